"""TIFF files page by page, as cameras and ImageJ write them; pixels keep their type and counts.

tifffile knows every pixel type and stacks, Pillow LZW, JPEG and palettes without a further package.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds is raised as well

TIFF = (".tif", ".tiff")
GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
PLAIN_CODECS = (
    COMPRESSION.NONE,
    COMPRESSION.DEFLATE,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.PACKBITS,
)


class TiffPages(NamedTuple):
    """The images of an open file."""

    count: int
    read: Callable[[int], np.ndarray]
    """read(page) -> [h w], 0 for black; colours and palettes [h w 3] or, if so stored, [3 h w]."""


@contextmanager
def open_tiff(path: Path) -> Iterator[TiffPages]:
    """Opens a file; only the pages that are read are decoded.

    Raises:
        Exception: Of any kind, then or in `read`, where the file is damaged or unusual.
    """
    with tifffile.TiffFile(path) as file:
        # ImageJ lists one page of a stack above 4 GB, and puts the others behind it.
        unlisted = _unlisted(file) if len(file.pages) == 1 else 0
        if unlisted:
            yield TiffPages(unlisted, _behind_the_first(path, file))
        else:
            yield TiffPages(len(file.pages), lambda page: _read_page(path, file, page))


def _unlisted(file: tifffile.TiffFile) -> int:
    """How many grey images a file of one page holds; 0 if that page is all there is."""
    page = file.pages.first
    if page.photometric not in GREY or file.is_ome:  # OME counts those of other files too
        return 0
    count = file.series[0].size // (page.imagelength * page.imagewidth)
    return count if count > 1 else 0


def _behind_the_first(path: Path, file: tifffile.TiffFile) -> Callable[[int], np.ndarray]:
    page = file.pages.first
    if file.series[0].dataoffset is None:
        raise ValueError("a stack with one compressed page; save it again, with all its pages")
    stack = tifffile.memmap(path, mode="r").reshape(-1, page.imagelength, page.imagewidth)
    native = stack.dtype.newbyteorder("=")
    return lambda number: _black_is_zero(stack[number].astype(native), page)


def _read_page(path: Path, file: tifffile.TiffFile, number: int) -> np.ndarray:
    page = file.pages[number].aspage()
    is_grey = page.photometric in GREY
    if (is_grey or page.photometric == PHOTOMETRIC.RGB) and page.compression in PLAIN_CODECS:
        return _black_is_zero(page.asarray(), page)
    with Image.open(path) as image:
        image.seek(number)
        if not is_grey:
            return np.asarray(image.convert("RGB"))
        pixels = np.asarray(image).astype(page.dtype)
        # Pillow itself turns 1 and 8 bits round, but not 16.
        return _black_is_zero(pixels, page) if image.mode.startswith("I") else pixels


def _black_is_zero(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    if page.photometric != PHOTOMETRIC.MINISWHITE:
        return pixels
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind != "u":
        raise ValueError(f"white is 0, of {pixels.dtype} pixels; save it with black 0")
    return (2**page.bitspersample - 1 - pixels.astype(np.int64)).astype(pixels.dtype)
