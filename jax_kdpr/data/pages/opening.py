"""Opens any file of pages: one place for what it may be, how much it may hold, what is refused."""

import glob
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.page import Pages, Refused, require_file
from jax_kdpr.data.pages.pictures import PICTURES, open_pgm, open_picture
from jax_kdpr.data.pages.stacks import (
    FITS,
    HDF5,
    NUMPY,
    open_fits,
    open_hdf5,
    open_numpy,
    split_dataset,
)
from jax_kdpr.data.pages.tiff import TIFF, open_tiff

STACKS = (*NUMPY, *TIFF, *HDF5, *FITS)  # files that may hold many pages
OPENERS = {
    **dict.fromkeys(PICTURES, open_picture),
    ".pgm": open_pgm,
    **dict.fromkeys(NUMPY, open_numpy),
    **dict.fromkeys(TIFF, open_tiff),
    **dict.fromkeys(HDF5, open_hdf5),
    **dict.fromkeys(FITS, open_fits),
}


@contextmanager
def open_pages(path: Path, dataset: str = "") -> Iterator[Pages]:
    """Opens a file; a page is decoded when it is read, and memory holds no other.

    Bits are kept, 0 is black, equal colours are grey. Pages lie as they are stored, whatever a tag
    says of their orientation; thumbnails are left out. Of a stack, the first axis counts
    (`pages.stacks`).

    Args:
        path: The file, of a suffix in `OPENERS`.
        dataset: In an HDF5 file; empty takes the only one.

    Raises:
        InputError: Then or in `read`: if it is of another kind, damaged, no regular file, holds
            transparent pixels or values that are no real numbers, no page, or too large ones.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise InputError(f"{path}: expected {', '.join(OPENERS)}; convert it or leave it out")
    require_file(path)
    with _blaming(path), opener(path, dataset) as pages:
        if not pages.count:
            raise Refused("holds no image; remove it")

        def read(page: int) -> np.ndarray:
            with _blaming(path):
                return _native(pages.read(page))

        yield pages._replace(read=read)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Names the file in what is raised inside."""
    try:
        yield
    except InputError:
        raise
    except Refused as refusal:
        raise InputError(f"{path}: {refusal}") from refusal
    except Exception as failure:  # decoders of damaged files raise many kinds
        reason = " ".join(str(failure).split()) or type(failure).__name__
        raise InputError(f"{path}: cannot be read ({reason}); copy or export it again") from failure


def note_turned(files: int, source: str) -> None:
    """Says of how many files of a source a tag asks viewers to turn them, if of any."""
    if files:
        print(
            f"note: {files} file(s) of {source} ask viewers to turn them (orientation tag); they "
            "are taken as stored",
            file=sys.stderr,
        )


def matching_files(pattern: str) -> list[Path]:
    """Returns the files of that name or pattern, in natural order, and none where there is none.

    Brackets in the names of folders are no pattern.
    """
    path = Path(pattern)
    if path.is_file():
        return [path]
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    found = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
    files = [folder / name for name in found if (folder / name).is_file()]
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts folder by folder, digits as numbers; the text itself decides between 1 and 01."""

    def pieces(part: str) -> list[str | int]:  # text and numbers by turns, so that types agree
        return [int(s) if i % 2 else s for i, s in enumerate(re.split("([0-9]+)", part))]

    return [pieces(part) for part in path.parts], str(path)


def read_named(named: str, path: str) -> np.ndarray:
    """Reads the file that the option or flag `named` gives, as `read_stack`.

    Args:
        named: For messages.
        path: Of HDF5 a dataset may follow, "scan.h5::/entry/data".

    Raises:
        InputError: If there is no file, or as `read_stack`.
    """
    name, dataset = split_dataset(path)
    if not Path(name).is_file():
        found = "a folder" if Path(name).is_dir() else "no file"
        raise InputError(f"{named}: expected a file, got {found} {name!r}; give its path")
    try:
        return read_stack(Path(name), dataset)
    except InputError as failure:
        raise InputError(f"{named}: {failure}") from failure


def read_stack(path: Path, dataset: str = "") -> np.ndarray:
    """Reads all pages of a file, which must be grey and of one size: [n h w]; `note_turned`.

    Raises:
        InputError: As `open_pages`, or if a page has colours or another size.
    """
    with open_pages(path, dataset) as pages:
        images = [pages.read(page) for page in range(pages.count)]
        note_turned(int(pages.turned), str(path))
    if any(image.ndim != 2 for image in images):
        raise InputError(f"{path}: its colours differ; save it as grey")
    if len({image.shape for image in images}) > 1:
        raise InputError(f"{path}: its pages differ in size; save them as files of their own")
    return np.stack(images)


def _native(pixels: np.ndarray) -> np.ndarray:
    """In the machine's byte order; what are no real numbers is refused."""
    if pixels.dtype.kind not in "uifb":
        raise Refused(f"expected real numbers, got {pixels.dtype}; convert it")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
