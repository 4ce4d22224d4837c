"""The user's own images: a folder of PNG, TIFF, JPEG, BMP or NPY files, or one stack of them."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from jax_kdpr.data.tiff_files import TIFF, open_tiff
from jax_kdpr.errors import InputError

ARRAYS = (".npy", ".npz")
SUFFIXES = (".npy", ".png", ".jpg", ".jpeg", ".bmp", *TIFF)
DARK = 0.1  # an image that never gets brighter was likely written with fewer bits than its type has


def read_images(source: Path, *, size: int, rescale: bool) -> np.ndarray:
    """Reads grey images as float32 [n size size] with values in [0, 1], sorted by file name.

    Integer images are divided by the largest value of their type (255 or 65,535); float images
    must lie in [0, 1] already. RGB is turned into luminance (ITU-R 601). Each image is resized to
    size x size, bilinear, with antialiasing where it shrinks; a shape that is not square is
    stretched to one.

    Args:
        source: A folder, or one .npy, .npz (of one array) or TIFF stack [n h w].
        size: Height and width to resize to, pixels.
        rescale: Stretch each image so that its darkest pixel is 0 and its brightest 1.

    Raises:
        InputError: If nothing is found, or an image cannot be read or used; names the file.
    """
    if not source.exists():
        raise InputError(
            f"data.dir: no file or folder {str(source)!r} (KDPR_DATA_DIR, if data.dir is not set)"
        )
    if source.is_dir():
        images = [(str(path), _read_file(path)) for path in _image_paths(source)]
    elif source.suffix.lower() in (*ARRAYS, *TIFF):
        stack = _read_array(source) if source.suffix.lower() in ARRAYS else _read_file(source)
        if stack.ndim != 3 or not len(stack):
            raise InputError(f"{source}: expected a stack [images h w], got shape {stack.shape}")
        images = [(f"{source}[{i}]", image) for i, image in enumerate(stack)]
    else:
        raise InputError(
            "data.dir: expected a folder of images, or one .npy, .npz or TIFF "
            f"stack, got {str(source)!r}"
        )
    prepared = [_prepared(image, name, size=size, rescale=rescale) for name, image in images]
    dark = sum(float(image.max()) < DARK for image in prepared)
    if dark:
        print(
            f"note: {dark} of {len(prepared)} images never exceed {DARK:g} of their range; "
            "frames of fewer bits than their type? Divide them by their largest value into float "
            "files (data.rescale=True stretches each image by itself)",
            file=sys.stderr,
        )
    return np.stack(prepared)


def _image_paths(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; says what else it leaves aside."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    ignored = len(files) - len(paths)
    if not paths:
        raise InputError(
            f"data.dir: no {', '.join(SUFFIXES)} file in {str(folder)!r} itself ({ignored} other "
            "entries; subfolders are not searched)"
        )
    if ignored:
        print(f"note: {ignored} entries of {folder} are no images and are ignored", file=sys.stderr)
    return paths


def _read_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if len(loaded.files) != 1:
                raise InputError(f"{path}: expected one array in the file, got {loaded.files}")
            return loaded[loaded.files[0]]
    except InputError:
        raise
    except Exception as failure:  # numpy, zipfile, zlib and tokenize raise many kinds
        raise InputError(
            f"{path}: cannot be read as an array ({failure}); write it with numpy.save"
        ) from failure


def _read_file(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return _read_array(path)
    try:
        if path.suffix.lower() in TIFF:
            return _read_tiff(path)
        with Image.open(path) as opened:
            # Palettes and RGB become 8-bit luminance; 16-bit grey keeps its depth.
            grey = opened if opened.mode.startswith("I") else opened.convert("L")
            return np.asarray(grey).astype(np.uint16 if grey.mode.startswith("I") else np.uint8)
    except Exception as failure:  # decoders of damaged files raise many kinds
        raise InputError(f"{path}: cannot be read as an image ({failure})") from failure


def _read_tiff(path: Path) -> np.ndarray:
    """One image or a stack; pages of another size than the first are thumbnails."""
    with open_tiff(path) as pages:
        images = [pages.read(page) for page in range(pages.count)]
    alike = [image for image in images if image.shape == images[0].shape]
    return alike[0] if len(alike) == 1 else np.stack(alike)


def _prepared(image: np.ndarray, name: str, *, size: int, rescale: bool) -> np.ndarray:
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        grey = np.tensordot(image[..., :3], [0.299, 0.587, 0.114], axes=1)
        image = (grey.round() if image.dtype.kind == "u" else grey).astype(image.dtype)
    if image.ndim != 2 or min(image.shape) < 1:
        raise InputError(
            f"{name}: expected one grey image [h w], got shape {image.shape}; save the pages of a "
            "stack as separate files, or give the stack itself as data.dir"
        )
    image = image.astype(image.dtype.newbyteorder("="))
    if image.dtype in (np.uint8, np.uint16):
        grey = image.astype(np.float32) / np.iinfo(image.dtype).max
    elif image.dtype == bool or np.issubdtype(image.dtype, np.floating):
        grey = image.astype(np.float32)
    else:
        raise InputError(
            f"{name}: expected uint8, uint16 or float pixels, got {image.dtype}; convert the file"
        )
    if not np.all(np.isfinite(grey)):
        raise InputError(f"{name}: has pixels that are not finite numbers; mend or remove it")
    low, high = float(grey.min()), float(grey.max())
    if rescale:
        grey = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    elif low < 0.0 or high > 1.0:
        raise InputError(
            f"{name}: expected float pixels in [0, 1], got [{low:.4g}, {high:.4g}]; "
            "divide them, or set data.rescale=True to stretch each image"
        )
    if grey.shape == (size, size):
        return grey
    return np.asarray(
        Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR), np.float32
    ).clip(0.0, 1.0)
