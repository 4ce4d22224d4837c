"""Reads PNG, JPEG, BMP and PGM files, at the bit depth that they were written with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from jax_kdpr.data.pages.page import Pages, Refused, reduced, require_page

Image.MAX_IMAGE_PIXELS = None  # `require_page` has the limit; Pillow would warn as well

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
FORMATS = ("PNG", "JPEG", "BMP", "DIB")  # other formats may start foreign programs
ORIENTATION = 274  # tag of EXIF and TIFF; 1 is upright
GAP = rb"(?:\s|#[^\n]*\n)+"  # between the words of a PGM header
PGM = b"P5" + 3 * (GAP + rb"(\d+)") + rb"\s"


@contextmanager
def open_picture(path: Path, _: str) -> Iterator[Pages]:
    """Opens a PNG, JPEG or BMP; nothing is decoded yet.

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    with Image.open(path, formats=FORMATS) as image:
        require_page(image.height, image.width)
        # Further pictures in a JPEG are previews that cameras add.
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise Refused("holds several pictures, of which one would be read; save each as a file")
        turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1) != 1

        def read(_: int) -> np.ndarray:
            if image.format == "PNG":  # Pillow reduces 16-bit colours to 8 bits
                import imagecodecs  # 79 MB, imported only if a PNG is read

                return reduced(imagecodecs.png_decode(path.read_bytes()))
            return reduced(np.asarray(image.convert("RGBA")))

        yield Pages(1, read, turned=turned)


@contextmanager
def open_pgm(path: Path, _: str) -> Iterator[Pages]:
    """Opens a binary PGM, which Pillow would scale to 8 or 16 bits; raises like `open_picture`."""
    data = path.read_bytes()
    header = re.match(PGM, data)
    if header is None:
        raise Refused("expected binary PGM (P5); save it as that")
    width, height, top = map(int, header.groups())
    require_page(height, width)
    counts = np.frombuffer(data, ">u2" if top > 255 else "u1", offset=header.end())
    if counts.size != height * width:
        raise Refused(f"expected one picture of {height} x {width}, got {counts.size} values")
    yield Pages(1, lambda _: counts.reshape(height, width), top)
