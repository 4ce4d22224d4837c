"""Reads TIFF files of cameras and ImageJ page by page; pixels keep their type and counts."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from jax_kdpr.data.pages.page import Pages, Refused, reduced, require_page
from jax_kdpr.data.pages.pictures import ORIENTATION

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs is raised as well

TIFF = (".tif", ".tiff")
GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
WHOLE_BITS = (1, 8, 16, 32, 64)  # depths that use all values of the pixel type
# Bits of NewSubfileType: a thumbnail or pyramid level, and a mask of another page.
REDUCED, MASK = 1, 4


@contextmanager
def open_tiff(path: Path, _: str) -> Iterator[Pages]:
    """Opens a file; only the pages that are read are decoded.

    Pages that NewSubfileType declares to be thumbnails or masks of other pages are left out.

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    with tifffile.TiffFile(path) as file:
        first = file.pages.first
        turned = first.tags.valueof(ORIENTATION, 1) != 1
        bits = first.bitspersample
        top = None if bits in WHOLE_BITS else 2**bits - 1
        # ImageJ lists only the first page of a stack above 4 GB; the others follow it unlisted.
        unlisted = _unlisted(file) if len(file.pages) == 1 else 0
        if unlisted > 1:
            yield Pages(unlisted, _behind_the_first(path, file), top, turned)
        elif _is_stack_of_planes(file):
            count = first.samplesperpixel
            yield Pages(count, _planes(first.aspage()), top, turned, are_planes=True)
        else:
            kinds = [page.aspage().subfiletype for page in file.pages]
            shown = [number for number, kind in enumerate(kinds) if not kind & (REDUCED | MASK)]
            yield Pages(
                len(shown), lambda page: _read_page(file.pages[shown[page]].aspage()), top, turned
            )


def _is_stack_of_planes(file: tifffile.TiffFile) -> bool:
    """Returns whether what the file declares to be the planes of a colour image are pages.

    `tifffile.imwrite(path, frames)` declares this of three or four frames [n h w], and notes their
    shape beside it.
    """
    page, noted = file.pages.first, file.shaped_metadata
    are_planes = page.planarconfig == PLANARCONFIG.SEPARATE
    if not (noted and are_planes and page.photometric == PHOTOMETRIC.RGB):
        return False
    return noted[0].get("shape") == [page.samplesperpixel, page.imagelength, page.imagewidth]


def _planes(page: tifffile.TiffPage) -> Callable[[int], np.ndarray]:
    require_page(page.imagelength, page.imagewidth, page.samplesperpixel)
    return lambda number: page.asarray()[number]


def _unlisted(file: tifffile.TiffFile) -> int:
    """Returns how many grey images a file that lists one page holds; 0 for colours and OME."""
    page = file.pages.first
    if page.photometric not in GREY or file.is_ome:  # OME also counts images in other files
        return 0
    return file.series[0].size // page.size


def _behind_the_first(path: Path, file: tifffile.TiffFile) -> Callable[[int], np.ndarray]:
    page = file.pages.first
    require_page(page.imagelength, page.imagewidth)
    if file.series[0].dataoffset is None:
        raise Refused("a stack with one compressed page; save it again, with all its pages")
    stack = tifffile.memmap(path, mode="r").reshape(-1, page.imagelength, page.imagewidth)
    return lambda number: _black_is_zero(stack[number], page)


def _read_page(page: tifffile.TiffPage) -> np.ndarray:
    require_page(page.imagelength, page.imagewidth, page.samplesperpixel)
    kind, samples = PHOTOMETRIC(page.photometric), page.samplesperpixel * page.imagedepth
    # A second value beside grey may be a frame of its own, unless it is declared to be alpha.
    if kind == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG:
        kind = PHOTOMETRIC.RGB  # the decoder converts it
    known = dict.fromkeys(GREY, (1, 2) if any(page.extrasamples) else (1,))
    known |= {PHOTOMETRIC.RGB: (3, 4), PHOTOMETRIC.PALETTE: (1,)}
    if samples not in known.get(kind, ()):
        raise Refused(
            f"has {samples} values a pixel ({kind.name}); save a stack with a page for each image, "
            "tifffile.imwrite(..., photometric='minisblack') of [n h w]"
        )
    # Channels are stored in planes or pixel by pixel.
    pixels = np.moveaxis(page.asarray().reshape(page.shaped)[:, 0], 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if kind == PHOTOMETRIC.PALETTE and page.colormap is not None:
        return reduced((page.colormap.T[pixels[..., 0]] >> 8).astype(np.uint8))
    return _black_is_zero(reduced(pixels), page)


def _black_is_zero(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    if page.photometric != PHOTOMETRIC.MINISWHITE:
        return pixels
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind != "u":
        raise Refused(f"white is 0, of {pixels.dtype} pixels; save it with black 0")
    return 2**page.bitspersample - 1 - pixels
