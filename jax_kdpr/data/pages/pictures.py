"""PNG, JPEG, BMP and PGM through Pillow, at the depth that they were written with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile

from jax_kdpr.data.pages.colours import TRANSPARENT, reduced
from jax_kdpr.data.pages.limits import Refused, require_page

Image.MAX_IMAGE_PIXELS = None  # it would warn beside the error: `limits` has the one that holds

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "PPM")  # no others: some start foreign programs
SEVERAL = "holds several pictures, of which only the first would be read; save each as a file"
ORIENTATION = 274  # tag of EXIF and TIFF; 1 is upright
# Pillow cuts colours of 16 bits to 8: it unpacks the high bytes. Unpacked as if they were of the
# other byte order, the low ones come; grey and alpha have as many bytes as colours of 8 bits.
DEEP = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}


class Picture(NamedTuple):
    """An open file, of one page."""

    format: str
    read: Callable[[], np.ndarray]  # () -> [h w] grey or [h w 3] colours, uint8 or uint16
    top: int | None  # largest value that a pixel can have, where its type has a larger one
    turned: bool  # whether a tag asks viewers to turn it


@contextmanager
def open_picture(path: Path) -> Iterator[Picture]:
    """Opens a file; nothing is decoded yet.

    Raises:
        Exception: Of any kind, then or in `read`, where the file is damaged or unusual.
    """
    image = Image.open(path, formats=FORMATS)
    with image:
        require_page(image.height, image.width)
        # Further pictures of a JPEG are previews, which cameras put beside their own.
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise Refused(SEVERAL)
        tagged = image.format in ("JPEG", "MPO") or "exif" in image.info
        top = _unscaled(image) if image.format == "PPM" else None
        unpackers = DEEP.get(str(image.tile[0].args))
        yield Picture(
            {"MPO": "JPEG", "DIB": "BMP", "PPM": "PGM"}.get(str(image.format), str(image.format)),
            lambda: _read_deep(path, image, unpackers) if unpackers else read_image(image),
            top,
            tagged and image.getexif().get(ORIENTATION, 1) != 1,
        )


def read_image(image: Image.Image) -> np.ndarray:
    """Decodes an open image of Pillow: [h w] grey or [h w 3] colours; 16 bits if it is grey.

    Raises:
        Refused: If a pixel is transparent.
    """
    if image.mode.startswith("I"):  # 16 bits of grey
        pixels = np.asarray(image).astype(np.uint16)
        _require_opaque(pixels[..., None], image)
        return pixels
    if image.has_transparency_data:
        return reduced(np.asarray(image.convert("RGBA")))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return reduced(np.asarray(image.convert("RGB")))


def _read_deep(path: Path, image: Image.Image, unpackers: tuple[str, ...]) -> np.ndarray:
    halves = []
    for unpacker in unpackers:
        part = Image.open(path, formats=FORMATS)
        with part:
            part.tile = [tile._replace(args=unpacker) for tile in part.tile]
            halves.append(np.asarray(part).astype(np.uint16))
    high, low = halves if len(halves) == 2 else (halves[0][..., ::2], halves[0][..., 1::2])
    pixels = 256 * high + low
    _require_opaque(pixels, image)
    return reduced(pixels)


def _require_opaque(pixels: np.ndarray, image: Image.Image) -> None:
    """PNG may name one value of 16 bits, [c], that stands for transparent."""
    value = image.info.get("transparency")
    if value is not None and np.any(np.all(pixels == np.asarray(value), axis=-1)):
        raise Refused(TRANSPARENT)


def _unscaled(image: ImageFile.ImageFile) -> int | None:
    """Keeps the counts of a grey PGM, which Pillow would scale; returns its largest value."""
    (tile,) = image.tile
    if image.mode not in ("L", "I", "I;16"):
        return None
    file = cast(IO[bytes], image.fp)
    file.seek(tile.offset + image.height * image.width * (1 if image.mode == "L" else 2))
    if file.read(2) == b"P5":
        raise Refused(SEVERAL)
    if tile.codec_name == "raw":
        return None
    if tile.codec_name != "ppm":
        raise Refused("is PGM as text; save it as binary PGM (P5)")
    image.tile = [tile._replace(codec_name="raw", args="L" if image.mode == "L" else "I;16B")]
    _, top = cast(tuple[str, int], tile.args)
    return top
