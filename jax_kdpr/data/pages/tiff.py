"""TIFF files page by page, as cameras and ImageJ write them; pixels keep their type and counts.

tifffile knows every pixel type and stacks, Pillow LZW, JPEG, palettes, 12 bits and the predictor
of floats without a further package.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from jax_kdpr.data.pages.colours import reduced
from jax_kdpr.data.pages.limits import Refused, require_count, require_inflated, require_page
from jax_kdpr.data.pages.pictures import ORIENTATION, read_image

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds is raised as well

TIFF = (".tif", ".tiff")
GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
ZLIB = (COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE)
PLAIN_CODECS = (COMPRESSION.NONE, COMPRESSION.PACKBITS, *ZLIB)
PLAIN_BITS = (1, 8, 16, 32, 64)
FLOAT_PREDICTOR = 3
# Bits of NewSubfileType: a thumbnail or a level of a pyramid, and a mask of another page.
REDUCED, MASK = 1, 4
# What undoes the turn that Pillow gives a page after its orientation tag.
STORED = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


class TiffPages(NamedTuple):
    """The images of an open file."""

    count: int
    read: Callable[[int], np.ndarray]  # page -> [h w] grey, 0 for black, or [h w 3] colours
    top: int | None  # largest value of a pixel of 12 bits; None where that is its type's
    turned: bool  # whether a tag asks viewers to turn the first page


@contextmanager
def open_tiff(path: Path) -> Iterator[TiffPages]:
    """Opens a file; only the pages that are read are decoded.

    Thumbnails and masks of other pages are left out: those that NewSubfileType calls so, and those
    at most half as high and wide as the largest page, if as few are of that size.

    Raises:
        Exception: Of any kind, then or in `read`, where the file is damaged or unusual.
    """
    with tifffile.TiffFile(path) as file:
        require_count(len(file.pages))
        first = file.pages.first
        require_page(first.imagelength, first.imagewidth, first.samplesperpixel)
        turned = first.tags.valueof(ORIENTATION, 1) != 1
        top = 4095 if first.bitspersample == 12 else None
        # ImageJ lists one page of a stack above 4 GB, and puts the others behind it.
        unlisted = _unlisted(file) if len(file.pages) == 1 else 0
        if unlisted:
            require_count(unlisted)
            yield TiffPages(unlisted, _behind_the_first(path, file), top, turned)
        else:
            numbers = _without_thumbnails(file)
            yield TiffPages(
                len(numbers), lambda page: _read_page(path, file, numbers[page]), top, turned
            )


def _without_thumbnails(file: tifffile.TiffFile) -> list[int]:
    sizes = {}
    for number in range(len(file.pages)):
        page = file.pages[number].aspage()
        if not page.subfiletype & (REDUCED | MASK):
            sizes[number] = page.imagelength, page.imagewidth
    if not sizes:
        raise Refused("holds thumbnails only; export it again")
    counts = Counter(sizes.values())
    height, width = max(counts, key=math.prod)
    return [
        number
        for number, (h, w) in sizes.items()
        if 2 * h > height or 2 * w > width or counts[h, w] > counts[height, width]
    ]


def _unlisted(file: tifffile.TiffFile) -> int:
    """How many grey images a file of one page holds; 0 if that page is all there is."""
    page = file.pages.first
    if page.photometric not in GREY or file.is_ome:  # OME counts those of other files too
        return 0
    count = file.series[0].size // (page.imagelength * page.imagewidth * page.samplesperpixel)
    return count if count > 1 else 0


def _behind_the_first(path: Path, file: tifffile.TiffFile) -> Callable[[int], np.ndarray]:
    page = file.pages.first
    if file.series[0].dataoffset is None:
        raise Refused("a stack with one compressed page; save it again, with all its pages")
    stack = tifffile.memmap(path, mode="r").reshape(-1, page.imagelength, page.imagewidth)
    native = stack.dtype.newbyteorder("=")
    return lambda number: _black_is_zero(stack[number].astype(native), page)


def _read_page(path: Path, file: tifffile.TiffFile, number: int) -> np.ndarray:
    page = file.pages[number].aspage()
    require_page(page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.imagedepth > 1:
        raise Refused(f"has pages of {page.imagedepth} layers; save each as a page")
    is_grey = page.photometric in GREY
    # A second value beside grey that is not said to be alpha may be a frame of its own.
    samples = ((1, 2) if any(page.extrasamples) else (1,)) if is_grey else (3, 4)
    if page.photometric in (*GREY, PHOTOMETRIC.RGB) and page.samplesperpixel not in samples:
        raise Refused(
            f"has {page.samplesperpixel} values a pixel; save a stack with a page for each image, "
            "tifffile.imwrite(..., photometric='minisblack') of [n h w]"
        )
    if (is_grey or page.photometric == PHOTOMETRIC.RGB) and _is_plain(page):
        if page.compression in ZLIB:
            _check_inflated(page)
        return _black_is_zero(reduced(_channels_last(page)), page)
    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(number)
        if page.bitspersample == 16 and page.samplesperpixel > 1:
            raise Refused(
                f"colours of 16 bits of compression {page.compression} cannot be read; save it "
                "uncompressed or with deflate"
            )
        wide = image.mode[0] in "IF"  # more than 8 bits, of any type
        pixels = np.asarray(image).astype(page.dtype) if wide else read_image(image)
        pixels = STORED.get(page.tags.valueof(ORIENTATION, 1), lambda same: same)(pixels)
        # Pillow itself turns 8 bits and fewer round, but not more.
        return _black_is_zero(pixels, page) if wide else pixels


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether tifffile reads it without the package imagecodecs."""
    return (
        page.compression in PLAIN_CODECS
        and page.bitspersample in PLAIN_BITS
        and page.predictor != FLOAT_PREDICTOR
    )


def _channels_last(page: tifffile.TiffPage) -> np.ndarray:
    pixels = page.asarray()
    if page.samplesperpixel == 1:
        return pixels.reshape(page.imagelength, page.imagewidth)
    planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    pixels = np.moveaxis(pixels, 0, -1) if planar else pixels
    # A fourth channel of no stated meaning is no alpha.
    return pixels if any(page.extrasamples) else pixels[..., :3]


def _check_inflated(page: tifffile.TiffPage) -> None:
    """A strip may hold a thousand times what it declares, and tifffile inflates it all."""
    most = math.prod(page.chunks) * (page.bitspersample + 7) // 8
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        require_inflated(file.read(count), most)


def _black_is_zero(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    if page.photometric != PHOTOMETRIC.MINISWHITE:
        return pixels
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind != "u":
        raise Refused(f"white is 0, of {pixels.dtype} pixels; save it with black 0")
    return (2**page.bitspersample - 1 - pixels.astype(np.int64)).astype(pixels.dtype)
