"""Arrays as pages: which axis is the stack, and NPY, NPZ, HDF5 and FITS files.

The first axis counts the pages, the last one the channels where it is 1, 3 or 4:

    [h w]  [h w 1]  [h w 3]  [h w 4]        one page
    [n h w]  [n h w 1]  [n h w 3]  [n h w 4]    n pages

An array of three axes that looks like [h w n] is refused: [n h w 1] cannot be misread.
"""

import contextlib
import importlib
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.colours import reduced
from jax_kdpr.data.pages.limits import (
    Refused,
    require_bytes,
    require_count,
    require_file,
    require_page,
    require_pixels,
)

NUMPY = (".npy", ".npz")
HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
FITS = (".fits", ".fit", ".fts")
CHANNELS = (1, 3, 4)  # grey; colours; these and alpha
LONG = 2  # a page so much longer than wide, in a stack of as many as it is long, is a row of pages


class Stack(NamedTuple):
    """An open array."""

    count: int
    read: Callable[[int], np.ndarray]  # page -> [h w] grey or [h w 3] colours
    dataset: str = ""  # in an HDF5 file; else empty


def make_stack(shape: tuple[int, ...], take: Callable[[Any], Any], dataset: str = "") -> Stack:
    """Returns the pages of an array, by the rule above.

    Args:
        shape: Of the array.
        take: Index -> that part of it.
        dataset: Its name in the file.

    Raises:
        Refused: If it is no stack, could be read in two ways, or declares too much.
    """
    require_pixels(shape)
    has_channels = len(shape) > 2 and shape[-1] in CHANNELS
    plane = shape[:-1] if has_channels else shape
    if len(plane) not in (2, 3):
        raise Refused(
            f"expected one image [h w] or a stack [n h w], got shape {shape}; save it as that"
        )
    if not has_channels and len(plane) == 3 and _may_be_last(*shape):
        raise Refused(
            f"shape {shape} may be [n h w] or [h w n]; save it as [n h w 1], with array[..., None] "
            "if its first axis counts the images, numpy.moveaxis(array, -1, 0)[..., None] if its "
            "last does"
        )
    require_page(*shape[len(plane) - 2 :])
    counts = plane[:-2]
    if not counts:
        return Stack(1, lambda _: reduced(np.asarray(take(()))), dataset)
    require_count(counts[0])
    return Stack(counts[0], lambda number: reduced(np.asarray(take(number))), dataset)


def read_array(path: Path) -> np.ndarray:
    """Reads an array of any shape whole, of .npy or of .npz with one array in it.

    Raises:
        Exception: Of any kind, where the file is damaged, or declares too much.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".npy":
            require_bytes(_declared_bytes(file))
            file.seek(0)
            return np.load(file, allow_pickle=False)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise Refused(f"expected one array in the file, got {names}; save one")
            with archive.open(names[0]) as member:
                require_bytes(_declared_bytes(member))
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[names[0].removesuffix(".npy")]


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads arrays by name of an .npz that this package wrote.

    Raises:
        InputError: If one of them is missing or cannot be read.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    require_bytes(_declared_bytes(member))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as failure:  # of many kinds
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(failure).split())}); remove it and the "
            "metrics.json beside it, and the same command as before makes both again"
        ) from failure


def open_numpy(path: Path) -> Stack:
    """Opens .npy, which stays on disk, or reads .npz; raises as `read_array`."""
    if path.suffix.lower() == ".npz":
        array = read_array(path)
    else:
        with path.open("rb") as file:
            require_pixels(_declared(file)[0])  # nothing cannot be mapped
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return make_stack(array.shape, array.__getitem__)


@contextmanager
def open_hdf5(path: Path, dataset: str) -> Iterator[Stack]:
    """Opens one dataset of a file, by default the only one of two axes or more.

    Links to other HDF5 files are followed, as the master files of detectors have them.

    Raises:
        Exception: Of any kind, then or in `read`, where the file is damaged or unusual.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # an extra: how detectors compress
    with h5py.File(path, "r") as file:
        name = dataset or _only_dataset(path, file)
        if file.get(name, getlink=True) is None:
            raise InputError(f"{path}: no dataset {name!r}; it has {_listed(_datasets(file))}")
        item = file[name]
        if not isinstance(item, h5py.Dataset):
            raise Refused(f"{name} is no dataset; name one, {path.name}::/path/to/dataset")
        stack = make_stack(item.shape, item.__getitem__, name)
        _require_all_there(item)
        yield stack


def _require_all_there(item: Any) -> None:
    """Refuses an HDF5 dataset of which a part would be read as zeros, or lies in foreign files.

    Of a virtual one, which takes its values from other datasets, each of these is looked at.
    """
    name = item.name
    if item.external:
        raise Refused(f"{name} lies outside, in {item.external[0][0]!r}; copy it into one")
    if item.is_virtual:
        sources = item.virtual_sources()
        grows = None in item.maxshape  # with its sources, of which HDF5 does not tell the size
        if not grows and sum(s.vspace.get_select_npoints() for s in sources) < item.size:
            raise Refused(f"the sources of {name} leave parts of it open; copy it without them")
        for file, dataset in {(source.file_name, source.dset_name) for source in sources}:
            with h5py.File(_source_path(item, file), "r") as opened:
                _require_all_there(opened[dataset])
    elif item.chunks:
        require_bytes(math.prod(item.chunks) * item.dtype.itemsize)
        wanted = math.prod(
            -(-side // chunk) for side, chunk in zip(item.shape, item.chunks, strict=True)
        )
        written = item.id.get_num_chunks()
        if written < wanted:
            raise Refused(
                f"{written:,} of {wanted:,} chunks of {name}, shape {item.shape}, were written; "
                "record it again, or copy what is there into a file of its own"
            )
    elif not item.id.get_storage_size():
        raise Refused(f"nothing was written into {name}, shape {item.shape}; record it again")


def _source_path(item: h5py.Dataset, name: str) -> Path:
    """Where a source of a virtual dataset lies, as HDF5 looks for it; "." is the same file."""
    here = Path(item.file.filename)
    path = here if name == "." else here.parent / name
    if Path(name).is_absolute() and not path.exists():  # it was moved with its sources
        path = here.parent / path.name
    if not path.is_file():
        raise Refused(f"the source {name!r} of {item.name} is not there; put it beside the file")
    return path


@contextmanager
def open_fits(path: Path) -> Iterator[Stack]:
    """Opens the only image of a FITS file, in its physical values (BZERO, BSCALE).

    Raises:
        Exception: Of any kind, then or in `read`, where the file is damaged or unusual.
    """
    try:
        fits = importlib.import_module("astropy.io.fits")  # of an extra, and slow to import
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
    """Returns (file, dataset) of "scan.h5::/entry/data" or "scan.h5:/entry/data"; "" for none."""
    suffixes = "|".join(suffix[1:] for suffix in HDF5)
    named = re.fullmatch(rf"(.+\.(?:{suffixes}))::?(/.+)", pattern, re.IGNORECASE)
    return (named[1], named[2]) if named else (pattern, "")


def _may_be_last(n: int, h: int, w: int) -> bool:
    """Whether [n h w] looks like [h w n]: square pages then, or long ones else."""
    long = max(h, w) > LONG * min(h, w)
    return w == 2 or (n == h != w) or (long and max(n, h) <= LONG * min(n, h))


def _declared(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type in the header of an .npy."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version > (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _declared_bytes(file: Any) -> int:
    shape, dtype = _declared(file)
    return int(np.prod(shape, dtype=float)) * dtype.itemsize


def _only_dataset(path: Path, file: h5py.File) -> str:
    found = _datasets(file)
    if len(found) != 1:
        raise InputError(
            f"{path}: expected one dataset of 2 or 3 axes, got {_listed(found)}; name it, "
            f"such as '{path}::/entry/data'"
        )
    return found[0]


def _listed(names: list[str]) -> str:
    return (", ".join(names[:8]) or "none") + (", ..." if len(names) > 8 else "")


def _datasets(file: h5py.File) -> list[str]:
    """All of 2 or 3 axes, each under one of its names."""
    found: list[str] = []
    seen = set()

    def visit(group: h5py.Group, place: str) -> None:
        for name in group:
            item = group.get(name)  # None of a link that leads nowhere
            if not isinstance(item, h5py.Dataset | h5py.Group):
                continue
            place_in_file = h5py.h5o.get_info(item.id).addr  # pyright: ignore
            if (item.file.filename, place_in_file) in seen:
                continue  # under another name
            seen.add((item.file.filename, place_in_file))
            if isinstance(item, h5py.Dataset):
                found.extend([f"{place}/{name}"] * (item.ndim in (2, 3)))
            elif group.get(name, getclass=True, getlink=True) is h5py.HardLink:
                visit(item, f"{place}/{name}")

    visit(file, "")
    return found
