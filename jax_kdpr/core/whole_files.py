"""Files that commands write: each is always either the old one or the new one, whole.

A file grows under a random name beside its own, made anew, and is renamed when it is complete and
on the disk. So nothing that ends the process leaves half a file under its name, and a link that
lies at either name is never followed: one at the final name is replaced.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from jax_kdpr.core.errors import InputError, StoppedError

ABANDONED = 86400  # seconds after which nobody is still writing a temporary file
STARTING = 10.0  # seconds within which a folder that is made is locked
MARK = ".jax_kdpr"  # a file in each folder of `staging`: no other folder is ever removed


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Gives an open file that becomes `path` when the context ends, and nothing if it fails.

    Its `name` is the temporary one, for libraries that open files themselves.

    Raises:
        StoppedError: If the file system refuses: it is full, the folder is gone.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
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


def nearest(path: Path) -> Path:
    """Returns the path itself, or else the nearest folder above it that exists."""
    return next(above for above in (path, *path.absolute().parents) if above.exists())


def is_writable(folder: Path) -> bool:
    """Returns whether files can be written into a folder, or into one made in its place."""
    return nearest(folder).is_dir() and os.access(nearest(folder), os.W_OK | os.X_OK)


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
            other.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path, prefix: str) -> Iterator[Path]:
    """Gives a folder inside another, for files that wait until all of them are made.

    It is gone at the end; so is what processes that were killed left of theirs.
    """
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError), _locked(left / MARK):
            if time.time() - left.lstat().st_mtime > STARTING:
                shutil.rmtree(left)
    with TemporaryDirectory(dir=folder, prefix=prefix) as made, ExitStack() as held:
        (Path(made) / MARK).touch()
        with suppress(OSError):  # where the file system has no locks, others let it be too
            held.enter_context(_locked(Path(made) / MARK))
        yield Path(made)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Holds a file, which is no link, that no living process holds; else raises OSError."""
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def open_in_place(path: Path, flags: int) -> Iterator[IO[bytes]]:
    """Gives a file that is not replaced but kept, and made if need be; never through a link.

    Args:
        path: The file.
        flags: Of `os.open`: how it is to be opened.

    Raises:
        InputError: If a link lies there.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as failure:
        if failure.errno != errno.ELOOP:
            raise
        raise InputError(
            f"{path}: expected a file, got a link, which nothing is written through; remove it"
        ) from failure
    with os.fdopen(descriptor, "wb") as file:
        yield file


def append_text(path: Path, text: str) -> None:
    """Adds text to a file; it is on the disk when this returns."""
    with open_in_place(path, os.O_WRONLY | os.O_APPEND) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
