"""Files that commands write: each is always either the old one or the new one, whole.

A file grows under a random name beside its own, made anew, and is renamed when it is complete and
on the disk. So nothing that ends the process leaves half a file under its name, and a link that
lies at either name is never followed: one at the final name is replaced.
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

ABANDONED = 86400  # seconds after which nobody is still writing a temporary file
STAGED = "staged"  # names, with a temporary ending, folders of `staging`


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Gives an open file that becomes `path` when the context ends, and nothing if it fails.

    Its `name` is the temporary one, for libraries that open files themselves.

    Raises:
        StoppedError: If the file system refuses: it is full, the folder is gone.
    """
    temporary = _temporary(path)
    try:
        file = temporary.open("x+b")  # "x": never one that exists, and so never through a link
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave a renamed file empty
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as failure:  # NumPy's name neither file nor number
        raise StoppedError(not_written(path, failure.strerror or str(failure))) from failure


def not_written(path: Path | str, why: str) -> str:
    """Returns in one line that a file system refuses, and what to do."""
    return f"{path}: {why}; make room, or mend the place, and run the same command again"


def obstacle(folder: Path) -> str:
    """Returns why nothing can be written into a folder, or one made in its place; "" if it can."""
    nearest = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    if not nearest.is_dir():
        return f"{str(nearest)!r} is a file and no folder"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{str(nearest)!r} is not to be written"


def require_writable(flag: str, folder: Path) -> None:
    """Raises `InputError` for the folder of a flag that `obstacle` has a word on; makes nothing."""
    if found := obstacle(folder):
        raise InputError(f"{flag}: {str(folder)!r} cannot be used, {found}; give another one")


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a binary file; `write` puts its content into an open one."""
    with whole(path) as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with whole(path) as file:
        file.write(text.encode())


def is_temporary(path: Path, of: str) -> bool:
    """Returns whether a file is what a killed process left of writing the file named `of`."""
    # Without the random part: of versions that had none.
    return re.fullmatch(rf"{re.escape(of)}(\.[0-9a-f]{{8}})?\.tmp", path.name) is not None


def remove_abandoned(path: Path) -> None:
    """Removes what processes that were killed more than a day ago left of writing `path`."""
    for other in path.parent.iterdir():
        if is_temporary(other, path.name) and time.time() - other.lstat().st_mtime > ABANDONED:
            if other.is_dir() and not other.is_symlink():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Gives a folder inside another, for files that wait until all of them are made.

    It is gone at the end; what killed processes left of theirs goes as temporary files do.
    """
    remove_abandoned(folder / STAGED)
    made = _temporary(folder / STAGED)
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def open_in_place(path: Path) -> IO[bytes]:
    """Opens a file to add to, and makes it if need be.

    Raises:
        InputError: If a link or a pipe lies there.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return open(path, "ab", opener=lambda name, given: os.open(name, given | flags, 0o666))
    except OSError as failure:
        if failure.errno in (errno.ELOOP, errno.ENXIO):
            raise InputError(f"{path}: expected a file, got a link or a pipe; remove it") from None
        raise


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file; an OSError says that a pipe or a device is none."""
    with open(path, "rb", opener=lambda name, given: os.open(name, given | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read()


def append_text(path: Path, text: str) -> None:
    """Adds text to a file; it is on the disk when this returns."""
    with open_in_place(path) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
