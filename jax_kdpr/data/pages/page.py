"""What a reader returns for a file, and the checks that every page must pass."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_PIXELS


class Refused(ValueError):
    """Says what is wrong with a file and what to do; the code that opened it adds its name."""


class Pages(NamedTuple):
    """The pages of an open file."""

    count: int
    read: Callable[[int], np.ndarray]
    """read(page) -> grey [h w], or [h w 3] if the colours differ; counts as stored, black is 0."""
    top: int | None = None  # largest possible value of a pixel, if its type allows larger ones
    turned: bool = False  # whether a tag asks viewers to turn it, which is ignored
    dataset: str = ""  # its name in an HDF5 or MATLAB file; else empty
    are_planes: bool = False  # whether the file declares them to be the planes of one colour image


def require_file(path: Path) -> None:
    """Refuses a path that is not a regular file: a folder, a pipe that never ends, a device.

    Raises:
        InputError: If the path is not a regular file, or does not exist.
    """
    if not path.is_file():
        found = "is no regular file" if path.exists() else "is not there"
        raise InputError(f"{path}: {found}; give a file")


def require_page(*shape: int) -> None:
    """Raises `Refused` if a page of this shape has no pixels, or more than `MOST_PIXELS` values."""
    if not 0 < math.prod(shape) <= MOST_PIXELS:
        raise Refused(f"declares pages of shape {shape}, expected 1 to {MOST_PIXELS:,} values each")


def reduced(pixels: np.ndarray) -> np.ndarray:
    """Drops an opaque alpha channel, and reduces equal colours to grey.

    Args:
        pixels: [h w] or [h w c]: c = 1 is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Returns:
        [h w]; or [h w 3] if the colours differ.

    Raises:
        Refused: If a pixel is transparent: what it shows depends on what lies behind it.
    """
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[-1] in (2, 4):
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
        if np.any(pixels[..., -1] != opaque):
            raise Refused("has transparent pixels, which have no value of their own; flatten it")
        pixels = pixels[..., :-1]
    first = pixels[..., 0]
    equal = all(np.array_equal(first, one, equal_nan=True) for one in np.moveaxis(pixels, -1, 0))
    return first if equal else pixels
