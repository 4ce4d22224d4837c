"""Reads camera frames, one at a time, from all files that `pages.opening` reads except JPEG.

Pixels keep their type and their counts: nothing is scaled. `list_frames` reads headers only, and
`iterate_frames` holds one frame, so that memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.opening import STACKS, matching_files, note_turned, open_pages
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.lab.frames.correction import read_counts

SUFFIXES = (*STACKS, ".png", ".bmp", ".pgm")  # JPEG has no counts


class Frame(NamedTuple):
    """Where one frame lies."""

    path: Path
    page: int
    dataset: str  # in an HDF5 file; else empty
    name: str  # of its results: the file's name, with the page number if there are several


class Moments(NamedTuple):
    """Statistics of frames that show the same."""

    mean: np.ndarray  # frame [h w], float64
    spread: float | None  # root of the median variance of a pixel, counts; None for a single frame
    type: np.dtype  # of the first file's pixels
    step: int  # counts between neighbouring levels: 16 for 12 bits left-justified in 16


def list_frames(pattern: str, *, flag: str = "--input") -> list[Frame]:
    """Returns the frames of all files that match a pattern, by path and page.

    Numbers in a path count as numbers: shot_2.tif comes before shot_10.tif.

    Args:
        pattern: Pattern such as "frames/*.tif"; the name of an existing file is not taken as a
            pattern. For HDF5 the dataset may follow, as in "scan.h5::/entry/data"; without it, the
            only dataset of two or three axes is taken.
        flag: The flag that gave the pattern, for messages.

    Raises:
        InputError: If nothing matches, a file cannot be read, or two frames have the same name.
    """
    files, dataset = split_dataset(pattern)
    paths = matching_files(files)
    if not paths:
        raise InputError(f"{flag}: no file matches {files!r}; quote the pattern, check the folder")
    frames, turned = [], 0
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: expected {', '.join(SUFFIXES)}; convert it or leave it out")
        with open_pages(path, dataset) as pages:
            count, found = pages.count, pages.dataset
            turned += pages.turned
        digits = max(4, len(str(count - 1)))
        for page in range(count):
            name = path.stem if count == 1 else f"{path.stem}_{page:0{digits}d}"
            frames.append(Frame(path, page, found, name))
    note_turned(turned, pattern)
    name, times = Counter(frame.name for frame in frames).most_common(1)[0]
    if times > 1:
        raise InputError(f"{flag}: several frames would be named {name!r}; give the folders apart")
    return frames


def iterate_frames(frames: list[Frame]) -> Iterator[np.ndarray]:
    """Yields each frame [h w] in its own type, in order; a file is opened once for all its pages.

    Raises:
        InputError: If a frame is not grey, has integers below 0, is not finite, cannot be read, or
            is of another size than the first one.
    """
    size = None
    for (path, dataset), members in groupby(frames, key=lambda frame: (frame.path, frame.dataset)):
        with open_pages(path, dataset) as pages:
            for frame in members:
                pixels = pages.read(frame.page)
                _check(pixels, f"{path}" if pages.count == 1 else f"{path}, page {frame.page}")
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
    """Returns statistics of all frames that match a pattern; prints what was found."""
    count, mean, squares, bits, kind = 0, np.zeros(()), np.zeros(()), 16, np.dtype(float)
    frames = list_frames(pattern, flag=flag)
    for pixels in iterate_frames(frames):
        count += 1
        kind = pixels.dtype if count == 1 else kind
        step = pixels - mean
        mean = mean + step / count  # Welford's update: exact for counts on a large offset
        squares = squares + step * (pixels - mean)
        bits = min(bits, read_counts(pixels).unused_bits)
    print(found_line(flag, frames, mean, kind, "their mean"))
    spread = None if count < 2 else float(np.sqrt(np.median(squares / (count - 1))))
    return Moments(np.asarray(mean, np.float64), spread, kind, 2**bits)


def found_line(
    flag: str, frames: list[Frame], pixels: np.ndarray, kind: np.dtype, which: str
) -> str:
    """Returns a line on the frames found, their type `kind`, and the range of `pixels`.

    `which` says what `pixels` are, such as "the first" of the frames or "their mean".
    """
    formats = ", ".join(dict.fromkeys(frame.path.suffix[1:].upper() for frame in frames))
    height, width = pixels.shape
    of = f", {which}" if len(frames) > 1 else ""
    return (
        f"{flag}: {len(frames)} {formats} {height} x {width}, {kind}{of} {pixels.min():.5g} to "
        f"{pixels.max():.5g} (mean {pixels.mean():.5g})"
    )


def _check(pixels: np.ndarray, name: str) -> None:
    if pixels.ndim != 2:
        raise InputError(
            f"{name}: expected a grey frame [h w], got colours, shape {pixels.shape}; save the "
            "camera's raw counts"
        )
    if pixels.dtype.kind == "i" and pixels.min() < 0:
        raise InputError(
            f"{name}: expected counts of 0 and more, got {pixels.min()} of {pixels.dtype}; save "
            "raw counts as unsigned integers, nothing subtracted"
        )
    if pixels.dtype.kind == "f" and not np.all(np.isfinite(pixels)):
        raise InputError(
            f"{name}: has pixels that are not finite numbers; mend them, or leave the frame out"
        )
