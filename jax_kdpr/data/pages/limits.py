"""What a file may declare: looked at before anything is allocated for it."""

import math
import zlib
from pathlib import Path

from jax_kdpr.core.errors import InputError


class Refused(ValueError):
    """Says of a file what is wrong and what to do; whoever opened it adds its name."""


MOST_PIXELS = 2**27  # of a page, over all its channels: 134 million
MOST_PAGES = 10**6  # of a file
MOST_BYTES = 2**31  # of what can only be read in one piece


def require_file(path: Path) -> None:
    """Refuses what is no regular file: a folder, a pipe that never ends, a device.

    Raises:
        InputError: If it is none, or not there.
    """
    if not path.is_file():
        found = "is no regular file" if path.exists() else "is not there"
        raise InputError(f"{path}: {found}; give a file")


def require_pixels(shape: tuple[int, ...]) -> None:
    """Raises `Refused` where an array has no elements."""
    if 0 in shape:
        raise Refused(f"holds no pixels, shape {shape}; remove it")


def require_page(*shape: int) -> None:
    """Raises `Refused` where a page of this shape has no pixels, or too many."""
    require_pixels(shape)
    if math.prod(shape) > MOST_PIXELS:
        raise Refused(f"declares pages of shape {shape}, more than {MOST_PIXELS:,} values; crop it")


def require_count(pages: int) -> None:
    """Raises `Refused` where a file has too many pages."""
    if pages > MOST_PAGES:
        raise Refused(f"declares {pages:,} pages, more than {MOST_PAGES:,}; split it")


def require_bytes(size: int) -> None:
    """Raises `Refused` where something is too large to be read in one piece."""
    if size > MOST_BYTES:
        raise Refused(
            f"declares {size:,} bytes in one piece, more than {MOST_BYTES:,}; split it, or save it "
            "as .npy"
        )


def require_inflated(data: bytes, most: int) -> None:
    """Raises `Refused` where zlib data hold more than `most` bytes."""
    if len(zlib.decompressobj().decompress(data, most + 1)) > most:
        raise Refused(
            f"its compressed data hold more than the {most:,} bytes declared; export it again"
        )
