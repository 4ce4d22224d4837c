"""Arrays as stacks of pages, and how they are read from NPY, NPZ, HDF5 and FITS files.

The first axis counts the pages. The last axis is that of the channels if its length is 1, 3 or 4:

    [h w]  [h w 1]  [h w 3]  [h w 4]        one page
    [n h w]  [n h w 1]  [n h w 3]  [n h w 4]    n pages

An array of three axes that looks like [h w n] is refused; [n h w 1] cannot be misread.
"""

import contextlib
import importlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.page import Pages, Refused, reduced, require_file, require_page

NUMPY = (".npy", ".npz")
HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
FITS = (".fits", ".fit", ".fts")
NAMED = (*HDF5, ".mat")  # files whose parts have names
CHANNELS = (1, 3, 4)  # grey; RGB; RGB and alpha
LONG = 2  # aspect ratio beyond which a page is long, see `may_be_last`


def make_stack(shape: tuple[int, ...], take: Callable[[Any], Any], dataset: str = "") -> Pages:
    """Returns the pages of an array, by the rule of this module.

    Args:
        shape: Shape of the array.
        take: take(index) -> that part of the array.
        dataset: Name of the array in the file.

    Raises:
        Refused: If it is not a stack, could be read in two ways, or declares too large pages.
    """
    has_channels = len(shape) > 2 and shape[-1] in CHANNELS
    plane = shape[:-1] if has_channels else shape
    if len(plane) not in (2, 3):
        raise Refused(
            f"expected one image [h w] or a stack [n h w], got shape {shape}; save it as that"
        )
    require_page(*shape[len(plane) - 2 :])
    counts = plane[:-2]
    if not counts:
        return Pages(1, lambda _: reduced(np.asarray(take(()))), dataset=dataset)
    if not has_channels and may_be_last(*shape):
        raise Refused(
            f"shape {shape} may be [n h w] or [h w n]; save it as [n h w 1], with array[..., None] "
            "if its first axis counts the images, numpy.moveaxis(array, -1, 0)[..., None] if its "
            "last does"
        )
    return Pages(counts[0], lambda number: reduced(np.asarray(take(number))), dataset=dataset)


def read_array(path: Path) -> np.ndarray:
    """Reads an array of any shape from .npy (memory-mapped), or from .npz with one array in it.

    Raises:
        Exception: Of any kind, if the file is damaged, not regular, or declares too large an array.
    """
    require_file(path)
    if path.suffix.lower() == ".npy":
        return np.lib.format.open_memmap(path, "r")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise Refused(f"expected one array in the file, got {arrays.files}; save one")
        return arrays[arrays.files[0]]


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads arrays by name from an .npz that this package wrote.

    Raises:
        InputError: If one of them is missing or cannot be read.
    """
    require_file(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as failure:  # of many kinds
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(failure).split())}); remove it and the "
            "metrics.json beside it, and the same command as before makes both again"
        ) from failure


@contextmanager
def open_numpy(path: Path, _: str) -> Iterator[Pages]:
    """Opens .npy or .npz; raises like `read_array`."""
    array = read_array(path)
    yield make_stack(array.shape, array.__getitem__)


@contextmanager
def open_hdf5(path: Path, dataset: str) -> Iterator[Pages]:
    """Opens one dataset of a file, by default the only one with two or three axes.

    Links to other HDF5 files are followed; the master files of detectors contain them.

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # an extra: compression of detectors
    with h5py.File(path, "r") as file:
        if not dataset:
            there = _datasets(file)
            if len(there) != 1:
                raise Refused(
                    f"expected one dataset of 2 or 3 axes, got {_listed(there)}; name it, such as "
                    f"'{path.name}::/entry/data'"
                )
            (dataset,) = there
        item = file.get(dataset)
        if not isinstance(item, h5py.Dataset):
            raise Refused(f"no dataset {dataset!r}; it has {_listed(_datasets(file))}")
        stack = make_stack(item.shape, item.__getitem__, dataset)
        require_all_there(item)
        yield stack


def _datasets(file: h5py.File) -> list[str]:
    """Returns all datasets with 2 or 3 axes, each under one of its names."""
    found: dict[h5py.Dataset, str] = {}

    def visit(name: str, _: Any) -> None:
        item = file.get(name)  # None for a link that leads nowhere
        if isinstance(item, h5py.Dataset) and item.ndim in (2, 3):
            found.setdefault(item, f"/{name}")

    file.visititems_links(visit)
    return list(found.values())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) or "none"


def require_all_there(item: Any) -> None:
    """Refuses an HDF5 dataset if parts of it would be read as zeros, or lie in external files.

    A virtual dataset takes its values from other datasets; each of these is checked.
    """
    name = item.name
    if item.external:
        raise Refused(f"{name} lies outside, in {item.external[0][0]!r}; copy it into one")
    if item.is_virtual:
        sources = item.virtual_sources()
        grows = None in item.maxshape  # with its sources, whose size HDF5 does not tell
        if not grows and sum(s.vspace.get_select_npoints() for s in sources) < item.size:
            raise Refused(f"the sources of {name} leave parts of it open; copy it without them")
        for file, dataset in {(source.file_name, source.dset_name) for source in sources}:
            with h5py.File(_source_path(item, file), "r") as opened:
                require_all_there(opened[dataset])
    elif item.chunks:
        sides = zip(item.shape, item.chunks, strict=True)
        wanted = math.prod(-(-side // chunk) for side, chunk in sides)
        written = item.id.get_num_chunks()
        if written < wanted:
            raise Refused(
                f"{written:,} of {wanted:,} chunks of {name}, shape {item.shape}, were written; "
                "record it again, or copy what is there into a file of its own"
            )
    elif not item.id.get_storage_size():
        raise Refused(f"nothing was written into {name}, shape {item.shape}; record it again")


def _source_path(item: h5py.Dataset, name: str) -> Path:
    """Returns where HDF5 finds a source of a virtual dataset; "." means the same file."""
    here = Path(item.file.filename)
    # Relative to the file's folder, or directly in it if file and sources were moved together.
    for path in (here if name == "." else here.parent / name, here.parent / Path(name).name):
        if path.is_file():
            return path
    raise Refused(f"the source {name!r} of {item.name} is not there; put it beside the file")


@contextmanager
def open_fits(path: Path, _: str) -> Iterator[Pages]:
    """Opens the only image of a FITS file, in its physical values (BZERO, BSCALE).

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    try:
        fits = importlib.import_module("astropy.io.fits")  # an extra, and slow to import
    except ImportError as missing:
        raise InputError(
            f"{path}: FITS is read by astropy; install it: pip install 'jax_kdpr[fits]'"
        ) from missing
    with fits.open(path, memmap=False) as units:
        images = [unit for unit in units if unit.is_image and len(unit.shape) >= 2]
        if len(images) != 1:
            raise Refused(f"holds {len(images)} images; save one, or one stack of them [n h w]")
        yield make_stack(images[0].shape, lambda part: images[0].section[part])


def split_dataset(pattern: str) -> tuple[str, str]:
    """Returns (file, dataset) of "scan.h5::/entry/data", "scan.h5:/entry/data", "a.mat::frames".

    The dataset is "" where none is named.
    """
    suffixes = "|".join(suffix[1:] for suffix in NAMED)
    named = re.fullmatch(rf"(.+\.(?:{suffixes}))(?:::|:(?=/))(.+)", pattern, re.IGNORECASE)
    return (named[1], named[2]) if named else (pattern, "")


def may_be_last(n: int, h: int, w: int) -> bool:
    """Returns whether [n h w] looks like [h w n].

    It does if w = 2, if n = h differs from w, or if h x w is a long page and n x h is not.
    """
    long = max(h, w) > LONG * min(h, w)
    return w == 2 or (n == h != w) or (long and max(n, h) <= LONG * min(n, h))
