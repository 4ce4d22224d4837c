"""The user's own images: a folder of PNG, TIFF or NPY files, or one .npy or .npz array."""

import logging
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from jax_kdpr.errors import InputError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds is raised as well

SUFFIXES = (".npy", ".png", ".tif", ".tiff")


def read_images(source: Path, *, size: int, rescale: bool) -> np.ndarray:
    """Reads grey images as float32 [n size size] with values in [0, 1], sorted by file name.

    Integer images are divided by the largest value of their type (255 or 65,535); float images
    must lie in [0, 1] already. RGB is turned into luminance (ITU-R 601). Each image is resized to
    size x size, bilinear, with antialiasing where it shrinks; a shape that is not square is
    stretched to one.

    Args:
        source: A folder, or one array file [n h w] (a .npz file must hold one array).
        size: Height and width to resize to, pixels.
        rescale: Stretch each image so that its darkest pixel is 0 and its brightest 1.

    Raises:
        InputError: If nothing is found, or an image cannot be read or used; names the file.
    """
    if source.is_dir():
        paths = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(f"data.dir: no {', '.join(SUFFIXES)} file in {str(source)!r}")
        return np.stack(
            [_prepared(_read_file(path), str(path), size=size, rescale=rescale) for path in paths]
        )
    if source.suffix.lower() in (".npy", ".npz") and source.is_file():
        stack = _read_array(source)
        if stack.ndim != 3 or not len(stack):
            raise InputError(f"{source}: expected an array [images h w], got shape {stack.shape}")
        return np.stack(
            [
                _prepared(image, f"{source}[{i}]", size=size, rescale=rescale)
                for i, image in enumerate(stack)
            ]
        )
    raise InputError(
        f"data.dir: expected a folder of images or one .npy or .npz file, got {str(source)!r}"
    )


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
        if path.suffix.lower() == ".png":
            with Image.open(path) as opened:
                # Palettes and RGB become 8-bit luminance; 16-bit grey keeps its depth.
                grey = opened if opened.mode.startswith("I") else opened.convert("L")
                return np.asarray(grey).astype(np.uint16 if grey.mode.startswith("I") else np.uint8)
        return tifffile.imread(path)
    except Exception as failure:  # decoders of damaged files raise many kinds
        raise InputError(f"{path}: cannot be read as an image ({failure})") from failure


def _prepared(image: np.ndarray, name: str, *, size: int, rescale: bool) -> np.ndarray:
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        grey = np.tensordot(image[..., :3], [0.299, 0.587, 0.114], axes=1)
        image = (grey.round() if image.dtype.kind == "u" else grey).astype(image.dtype)
    if image.ndim != 2 or min(image.shape) < 1:
        raise InputError(f"{name}: expected one grey image [h w], got shape {image.shape}")
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
