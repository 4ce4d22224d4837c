"""Atomic writes: a file that a command writes is always complete, in its old or new version.

A file is created under a random temporary name in the same folder, and renamed when it is complete
and on the disk. A process that is killed therefore never leaves half a file under the final name.
A link at either name is not followed: one at the final name is replaced.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jax_kdpr.core.errors import InputError, StoppedError

ABANDONED = 86400  # seconds; nobody is still writing a temporary file of that age
STAGED = "staged"  # names the folders of `staging`, with a temporary ending


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that becomes `path` when the context ends, or is removed if it fails.

    The `name` of the open file is the temporary path, for libraries that open files themselves.

    Raises:
        StoppedError: If the file system refuses, as when it is full or the folder is gone.
    """
    temporary = _temporary(path)
    try:
        file = temporary.open("x+b")  # "x" refuses what exists, hence also a link
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave the renamed file empty
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as failure:  # those of NumPy have no file name and no errno
        raise StoppedError(not_written(path, failure.strerror or str(failure))) from failure


def not_written(path: Path | str, why: str) -> str:
    """Returns the line that says why a path could not be written, and what to do."""
    return f"{path}: {why}; make room, or mend the place, and run the same command again"


def obstacle(folder: Path) -> str:
    """Returns why a folder cannot be created or written to; "" if it can."""
    nearest = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    if not nearest.is_dir():
        return f"{str(nearest)!r} is a file and no folder"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{str(nearest)!r} is not to be written"


def require_writable(flag: str, folder: Path) -> None:
    """Raises `InputError` if `obstacle` finds fault with the folder of a flag; creates nothing."""
    if found := obstacle(folder):
        raise InputError(f"{flag}: {str(folder)!r} cannot be used, {found}; give another one")


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a binary file; `write` is called with the open file."""
    with whole(path) as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with whole(path) as file:
        file.write(text.encode())


def is_temporary(path: Path, of: str) -> bool:
    """Returns whether a path is what a killed process left when it wrote the file named `of`."""
    return re.fullmatch(rf"{re.escape(of)}\.[0-9a-f]{{8}}\.tmp", path.name) is not None


def remove_abandoned(path: Path) -> None:
    """Removes temporary files of `path` that are older than a day, left by killed processes."""
    for other in path.parent.iterdir():
        if is_temporary(other, path.name) and time.time() - other.lstat().st_mtime > ABANDONED:
            if other.is_dir() and not other.is_symlink():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Makes a temporary folder inside another, for files that wait until all of them are complete.

    It is removed when the context ends. Folders that killed processes left are removed like
    temporary files (`remove_abandoned`).
    """
    remove_abandoned(folder / STAGED)
    made = _temporary(folder / STAGED)
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def open_in_place(path: Path) -> IO[bytes]:
    """Opens a file to append to, and creates it if necessary.

    Raises:
        InputError: If the path is a link or a pipe.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return open(path, "ab", opener=lambda name, given: os.open(name, given | flags, 0o666))
    except OSError as failure:
        if failure.errno in (errno.ELOOP, errno.ENXIO):
            raise InputError(f"{path}: expected a file, got a link or a pipe; remove it") from None
        raise


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file; raises `OSError` for a pipe or a device."""
    with open(path, "rb", opener=lambda name, given: os.open(name, given | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read()


def append_text(path: Path, text: str) -> None:
    """Appends text to a file; the text is on the disk when this returns."""
    with open_in_place(path) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
