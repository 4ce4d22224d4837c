"""Opens files of pages of any supported kind, and refuses those that cannot be used."""

import glob
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.matlab import MATLAB, open_matlab
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

STACKS = (*NUMPY, *TIFF, *HDF5, *FITS, *MATLAB)  # files that may hold many pages
OPENERS = {
    **dict.fromkeys(PICTURES, open_picture),
    ".pgm": open_pgm,
    **dict.fromkeys(NUMPY, open_numpy),
    **dict.fromkeys(TIFF, open_tiff),
    **dict.fromkeys(HDF5, open_hdf5),
    **dict.fromkeys(FITS, open_fits),
    **dict.fromkeys(MATLAB, open_matlab),
}


@contextmanager
def open_pages(path: Path, dataset: str = "") -> Iterator[Pages]:
    """Opens a file; a page is decoded when it is read, and memory holds only that one.

    The bit depth is kept, 0 is black, and equal colours become grey. Orientation tags are ignored,
    and thumbnails are left out. The first axis of a stack counts its pages (`pages.stacks`).

    Args:
        path: The file, with a suffix in `OPENERS`.
        dataset: Dataset of an HDF5 file or variable of a MATLAB file; empty takes the only one.

    Raises:
        InputError: On opening or in `read`, if the file is of another kind, damaged or not
            regular, or holds no page, too large ones, transparent pixels, or values that are not
            real numbers.
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
    """Turns exceptions in the context into an `InputError` that names the file."""
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
    """Prints how many files of a source have a tag that asks viewers to turn them, if any have."""
    if files:
        print(
            f"note: {files} file(s) of {source} ask viewers to turn them (orientation tag); they "
            "are taken as stored",
            file=sys.stderr,
        )


def matching_files(pattern: str) -> list[Path]:
    """Returns the files that match a name or pattern, in natural order; [] if none does.

    Brackets in the names of existing folders do not count as a pattern.
    """
    path = Path(pattern)
    if path.is_file():
        return [path]
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    found = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
    files = [folder / name for name in found if (folder / name).is_file()]
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """Returns a sort key: by folder, digits as numbers; the text decides between 1 and 01."""

    def pieces(part: str) -> list[str | int]:  # text and numbers alternate: types agree
        return [int(s) if i % 2 else s for i, s in enumerate(re.split("([0-9]+)", part))]

    return [pieces(part) for part in path.parts], str(path)


def read_named(named: str, path: str) -> np.ndarray:
    """Reads the file that the option or flag `named` gives, like `read_stack`.

    Args:
        named: Name of the option or flag, for messages.
        path: The file; an HDF5 dataset may follow, as in "scan.h5::/entry/data".

    Raises:
        InputError: If there is no such file, or as in `read_stack`.
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
    """Reads all pages of a file, which must be grey and of one size, as [n h w].

    An orientation tag is reported by `note_turned`.

    Raises:
        InputError: As in `open_pages`, or if a page has colours or another size.
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
    """Returns pixels in the machine's byte order; refuses values that are not real numbers."""
    if pixels.dtype.kind not in "uifb":
        raise Refused(f"expected real numbers, got {pixels.dtype}; convert it")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
