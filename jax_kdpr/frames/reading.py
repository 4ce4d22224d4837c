"""Camera frames from files, one at a time: TIFF (also of many pages), PNG, NPY and HDF5.

Pixels keep their type and their counts: nothing is scaled. `list_frames` reads headers only, and
`iterate_frames` holds one frame, so that memory does not grow with their number.
"""

import glob
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image

from jax_kdpr.data.tiff_files import TIFF, open_tiff
from jax_kdpr.errors import InputError
from jax_kdpr.frames.correction import read_counts

HDF5 = (".h5", ".hdf5")
SUFFIXES = (*TIFF, ".png", ".npy", *HDF5)


class Frame(NamedTuple):
    """Where one frame lies."""

    path: Path
    page: int
    dataset: str  # in an HDF5 file; else empty
    name: str  # of its results: the file's, with the page's number where there are several


class Moments(NamedTuple):
    """Of frames that show the same."""

    mean: np.ndarray  # frame [h w], float64
    spread: float | None  # root of the median variance of a pixel, counts; None of a single frame
    type: np.dtype  # of the first file's pixels
    step: int  # counts between neighbouring levels: 16 of 12 bits left-justified in 16


def list_frames(pattern: str, *, flag: str = "--input") -> list[Frame]:
    """Returns the frames of all files that match a pattern, by path and page.

    Numbers in a path count as numbers: shot_2.tif comes before shot_10.tif.

    Args:
        pattern: Such as "frames/*.tif". For HDF5 the dataset may follow, "scan.h5:/entry/data";
            without it the only one of two or three axes is taken.
        flag: That gave it, for messages.

    Raises:
        InputError: If nothing matches, a file cannot be read, or two frames have one name.
    """
    files, dataset = pattern, ""
    named = re.fullmatch(r"(.+\.(?:h5|hdf5)):(/.+)", pattern)
    if named:
        files, dataset = named[1], named[2]
    paths = [Path(path) for path in glob.glob(files, recursive=True) if Path(path).is_file()]
    if not paths:
        raise InputError(f"{flag}: no file matches {files!r}; quote the pattern, check the folder")
    frames = []
    for path in sorted(paths, key=_natural):
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: expected {', '.join(SUFFIXES)}; convert it or leave it out")
        with _opened(path, dataset) as pages:
            count, found = len(pages), pages.dataset
        if not count:
            raise InputError(f"{path}: holds no frame; remove it")
        digits = max(4, len(str(count - 1)))
        for page in range(count):
            name = path.stem if count == 1 else f"{path.stem}_{page:0{digits}d}"
            frames.append(Frame(path, page, found, name))
    names = [frame.name for frame in frames]
    doubled = sorted({name for name in names if names.count(name) > 1}) if _repeat(names) else []
    if doubled:
        raise InputError(
            f"{flag}: several frames would be named {doubled[0]!r}; give the folders apart"
        )
    return frames


def iterate_frames(frames: list[Frame]) -> Iterator[np.ndarray]:
    """Yields each frame [h w] in its own type, in order; a file is opened once for all its pages.

    Raises:
        InputError: If a frame is not grey, is not finite, cannot be read, or is of another size
            than the first one.
    """
    size = None
    for (path, dataset), members in groupby(frames, key=lambda frame: (frame.path, frame.dataset)):
        with _opened(path, dataset) as pages:
            for frame in members:
                pixels = pages.read(frame.page)
                _check(pixels, f"{path}" if len(pages) == 1 else f"{path}, page {frame.page}")
                size = size or pixels.shape
                if pixels.shape != size:
                    raise InputError(
                        f"{path}: expected the size of the first frame {size}, got {pixels.shape}; "
                        "reconstruct frames of different sizes apart"
                    )
                yield pixels


def read_mean(pattern: str, *, flag: str = "--input") -> np.ndarray:
    """Returns the mean [h w] of all frames of a pattern, float64: a dark, a flat or a mask."""
    return read_moments(pattern, flag=flag).mean


def read_moments(pattern: str, *, flag: str = "--input") -> Moments:
    """Returns what all frames of a pattern together say of a sensor."""
    count, mean, squares, bits, kind = 0, np.zeros(()), np.zeros(()), 16, np.dtype(float)
    for pixels in iterate_frames(list_frames(pattern, flag=flag)):
        count += 1
        kind = pixels.dtype if count == 1 else kind
        step = pixels - mean
        mean = mean + step / count  # Welford's update: exact for counts on a large offset
        squares = squares + step * (pixels - mean)
        bits = min(bits, read_counts(pixels).unused_bits)
    spread = None if count < 2 else float(np.sqrt(np.median(squares / (count - 1))))
    return Moments(np.asarray(mean, np.float64), spread, kind, 2**bits)


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts folder by folder, digits as numbers; the text itself decides between 1 and 01."""

    def pieces(part: str) -> list[str | int]:  # text and numbers by turns, so that types agree
        return [int(s) if i % 2 else s for i, s in enumerate(re.split("([0-9]+)", part))]

    return [pieces(part) for part in path.parts], str(path)


class _Pages(NamedTuple):
    """An open file."""

    count: int
    read: Callable[[int], np.ndarray]
    dataset: str = ""

    def __len__(self) -> int:  # type: ignore[override]
        return self.count


@contextmanager
def _opened(path: Path, dataset: str) -> Iterator[_Pages]:
    """Opens a file; whatever its decoder says, then or later, becomes an `InputError`."""
    try:
        suffix = path.suffix.lower()
        if suffix in TIFF:
            with open_tiff(path) as pages:
                yield _Pages(pages.count, pages.read)
        elif suffix in HDF5:
            with h5py.File(path, "r") as file:
                name = dataset or _only_dataset(path, file)
                yield _stack(file[name], name)
        elif suffix == ".npy":
            yield _stack(np.load(path, mmap_mode="r", allow_pickle=False))
        else:
            with Image.open(path) as file:
                yield _Pages(1, lambda _: _grey_png(file))
    except InputError:
        raise
    except Exception as failure:  # decoders of damaged files raise many kinds
        reason = " ".join(str(failure).split()) or type(failure).__name__
        raise InputError(f"{path}: cannot be read ({reason}); copy or export it again") from failure


def _stack(array: Any, dataset: str = "") -> _Pages:
    if array.ndim == 2:
        return _Pages(1, lambda _: np.asarray(array[()]), dataset)
    if array.ndim == 3 and array.shape[-1] not in (3, 4):
        return _Pages(array.shape[0], lambda page: np.asarray(array[page]), dataset)
    raise ValueError(f"expected one frame [h w] or a stack [n h w], got shape {array.shape}")


def _only_dataset(path: Path, file: h5py.File) -> str:
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim in (2, 3):
            found.append(f"/{name}")

    file.visititems(visit)
    if len(found) != 1:
        raise InputError(
            f"{path}: expected one dataset of 2 or 3 axes, got {found or 'none'}; name it, "
            f"such as --input '{path}:/entry/data'"
        )
    return found[0]


def _grey_png(file: Image.Image) -> np.ndarray:
    """Palettes and colour keep their channels here, and are refused as such."""
    if file.mode == "1":
        return np.asarray(file.convert("L"))
    if file.mode == "P":
        return np.asarray(file.convert("RGB"))
    return np.asarray(file).astype(np.uint16) if file.mode.startswith("I") else np.asarray(file)


def _check(pixels: np.ndarray, name: str) -> None:
    if pixels.ndim != 2:
        raise InputError(
            f"{name}: expected a grey frame [h w], got shape {pixels.shape}; save the camera's raw "
            f"counts, not colours{_planar_hint(pixels.shape)}"
        )
    if pixels.dtype.kind not in "uifb":
        raise InputError(f"{name}: expected real counts, got {pixels.dtype}; convert the file")
    if pixels.dtype.kind == "f" and not np.all(np.isfinite(pixels)):
        raise InputError(
            f"{name}: has pixels that are not finite numbers; mend them, or leave the frame out"
        )


def _planar_hint(shape: tuple[int, ...]) -> str:
    """TIFF writers take a stack of 3 or 4 frames for the planes of a colour image."""
    if len(shape) == 3 and shape[0] in (3, 4):
        return f"; a stack of {shape[0]} frames wants tifffile.imwrite(photometric='minisblack')"
    return ""


def _repeat(names: list[str]) -> bool:
    return len(set(names)) < len(names)
