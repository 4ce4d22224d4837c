"""What a reader gives of a file, and what no page may be."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_kdpr.core.errors import InputError

MOST_PIXELS = 2**27  # of a page, over all its channels: 134 million


class Refused(ValueError):
    """Says of a file what is wrong and what to do; whoever opened it adds its name."""


class Pages(NamedTuple):
    """An open file."""

    count: int
    read: Callable[[int], np.ndarray]
    """read(page) -> [h w] grey or [h w 3] colours that differ, 0 for black, in counts as stored."""
    top: int | None = None  # largest value that a pixel can have, where its type has a larger one
    turned: bool = False  # whether a tag asks viewers to turn it, which is not done
    dataset: str = ""  # in an HDF5 file; else empty


def require_file(path: Path) -> None:
    """Refuses what is no regular file: a folder, a pipe that never ends, a device.

    Raises:
        InputError: If it is none, or not there.
    """
    if not path.is_file():
        found = "is no regular file" if path.exists() else "is not there"
        raise InputError(f"{path}: {found}; give a file")


def require_page(*shape: int) -> None:
    """Raises `Refused` where a page of this shape has no pixels, or more than any that is meant."""
    if not 0 < math.prod(shape) <= MOST_PIXELS:
        raise Refused(f"declares pages of shape {shape}, expected 1 to {MOST_PIXELS:,} values each")


def reduced(pixels: np.ndarray) -> np.ndarray:
    """Returns a page [h w] of pixels [h w c], where alpha is opaque and colours are equal.

    Args:
        pixels: [h w] or [h w c]: c = 1 is grey, 2 grey and alpha, 3 colours, 4 these and alpha.

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
    return pixels[..., 0] if np.all(pixels == pixels[..., :1]) else pixels
