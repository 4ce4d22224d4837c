"""The user's own images: a folder of files, or one stack of them, as pixels in [0, 1]."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.opening import OPENERS, STACKS, natural_order, note_turned, open_pages
from jax_kdpr.data.pages.page import Pages
from jax_kdpr.data.pages.pictures import PICTURES
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.data.pages.tiff import TIFF

SUFFIXES = (".npy", *PICTURES, *TIFF)  # in a folder
DARK = 0.1  # an image that never gets brighter was likely written with fewer bits than its type has
FITS = ("stretch", "crop", "pad")  # crop takes the middle, pad adds black, or no phase
UNITS = ("fraction", "radians")  # fraction: of `scene.phase_range`
ROUNDING = 1e-6  # relative, of phases that were saved as float32


class Preparation(NamedTuple):
    """How a file becomes an image."""

    size: int  # pixels, height and width
    fit: str = "stretch"  # of what is not square; one of FITS
    unit: str = "fraction"  # of values: one of UNITS
    rescale: bool = False  # stretch each image so that its darkest pixel is 0, its brightest 1
    phase_range: float = 0.0  # radians of the value 1; 0 where images are no phases
    offset: float | None = None  # radians added to phases; None: what makes the smallest 0


class Found(NamedTuple):
    """Images that were read."""

    images: np.ndarray  # float32 [n size size], in [0, 1]
    offset: float  # radians that were added to all phases; 0 of the unit fraction
    names: list[str]  # path of each, with its page in a stack


def read_images(
    source: Path,
    wanted: Preparation,
    *,
    subfolders: bool = False,
    of_frames: bool = False,
    label: str = "data",
) -> Found:
    """Reads images as float32 [n size size] with values in [0, 1], those of a folder by name.

    Integers are divided by the largest value that a pixel of the file can have (255, 4,095 of a
    TIFF of 12 bits, 65,535); floats must lie in [0, 1] already. Of the unit radians, values are
    phases: divided by `phase_range`, after an offset common to all images that makes the smallest
    0 if it is negative. Colours become luminance (ITU-R 601); transparent pixels are refused.
    Each image is resized to size x size, bilinear, with antialiasing where it shrinks.

    A line says what was found. What the axes of an array mean: `pages.stacks`.

    Args:
        source: A folder, or one file of many pages (NPY, NPZ, TIFF, HDF5, FITS; of HDF5 the dataset
            may follow, "scan.h5::/entry/data").
        wanted: What images are made of them.
        subfolders: Take the images in folders of the folder as well.
        of_frames: Whether they belong to frames: names are then in the same order, 2 before 10
            (else character by character: the split of old runs depends on it), and a file of one
            image will do.
        label: Of the line that says what was found.

    Raises:
        InputError: If nothing is found, an image cannot be read or used (names the file), or
            memory would not hold them all.
    """
    prepared, names, colours, turned, assumed = [], [], 0, 0, 0
    suffixes: dict[str, None] = {}
    sizes = set()
    for path, name, pixels, pages in _pages(source, subfolders, of_frames, wanted.size):
        suffixes[path.suffix[1:].upper()] = None
        sizes.add(pixels.shape[:2])
        colours += pixels.ndim == 3
        turned += pages.turned
        assumed += pixels.dtype == np.uint16 and pages.top is None
        if pixels.ndim == 3:
            pixels = _luminance(pixels, path)
        prepared.append(_fitted(_values(pixels, pages.top, name, wanted), wanted))
        names.append(name)
    divides = wanted.unit == "fraction" and not wanted.rescale
    images, offset, said = _in_range(np.stack(prepared), source, wanted)
    dark = sum(float(image.max()) < DARK for image in images)
    if dark and wanted.unit == "fraction":
        print(
            f"note: {dark} of {len(images)} images never exceed {DARK:g} of their range; "
            "frames of fewer bits than their type? Divide them by their largest value into float "
            "files (data.rescale=True stretches each image by itself)",
            file=sys.stderr,
        )
    note_turned(turned, str(source))
    if assumed and divides:
        said += ", counts over 65535: no file says fewer bits"
    size = " to ".join(dict.fromkeys(f"{h} x {w}" for h, w in (min(sizes), max(sizes))))
    colour = f"{colours} in colour made " if colours else ""
    print(
        f"{label}: {len(images)} {', '.join(suffixes)} {size}, {colour}grey -> {wanted.size} x "
        f"{wanted.size} ({wanted.fit}), {said}"
    )
    return Found(images, offset, names)


def _pages(
    source: Path, subfolders: bool, of_frames: bool, size: int
) -> Iterator[tuple[Path, str, np.ndarray, Pages]]:
    """(path, name, pixels, its file) of every page, if there is room for all of that size."""
    file, dataset = split_dataset(str(source))
    is_folder = source.is_dir()
    paths = _image_paths(source, subfolders, of_frames) if is_folder else [Path(file)]
    if not is_folder and paths[0].suffix.lower() not in (OPENERS if of_frames else STACKS):
        raise InputError(
            f"data.dir: expected a folder of images, or one stack ({', '.join(STACKS)}), got "
            f"{file!r}"
        )
    for path in paths:
        with open_pages(path, dataset) as pages:
            if is_folder and pages.count > 1:
                raise InputError(
                    f"{path}: expected one image in each file of a folder, got {pages.count}; "
                    "save them as separate files, or give the stack itself as data.dir"
                )
            if pages.count == 1 and not is_folder and not of_frames:
                raise InputError(
                    f"{path}: expected a stack [n h w], got one image, shape "
                    f"{pages.read(0).shape}; give the folder of several"
                )
            if path is paths[0]:  # of float32, and twice: one by one, and joined
                count = len(paths) if is_folder else pages.count
                runtime.require_memory("data.dir, data.size", 2 * 4 * count * size**2)
            for page in range(pages.count):
                yield path, f"{path}" if is_folder else f"{path}[{page}]", pages.read(page), pages


def _image_paths(folder: Path, subfolders: bool, of_frames: bool) -> list[Path]:
    """The image files of a folder, by name; says what else it leaves aside."""
    entries = folder.rglob("*") if subfolders else folder.iterdir()
    visible = [
        path
        for path in sorted(entries, key=natural_order if of_frames else None)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (subfolders and path.is_dir())
    ]
    paths = [path for path in visible if path.suffix.lower() in SUFFIXES]
    ignored = len(visible) - len(paths)
    if not paths:
        where = (
            "or its subfolders" if subfolders else "itself (data.subfolders=True searches below)"
        )
        raise InputError(
            f"data.dir: no {', '.join(SUFFIXES)} file in {str(folder)!r} {where}; {ignored} other "
            "entries"
        )
    if ignored:
        print(f"note: {ignored} entries of {folder} are no images and are ignored", file=sys.stderr)
    return paths


def _values(pixels: np.ndarray, top: int | None, name: str, wanted: Preparation) -> np.ndarray:
    """Returns pixels as float32 [h w]: in [0, 1], or in radians where that is the unit."""
    if pixels.dtype in (np.uint8, np.uint16) and wanted.unit == "fraction":
        grey = pixels.astype(np.float32) / (top or np.iinfo(pixels.dtype).max)
    elif pixels.dtype.kind in "bf":
        grey = pixels.astype(np.float32)
    else:
        if wanted.unit == "radians":
            raise InputError(
                f"{name}: expected float pixels, which data.unit=radians takes as phases, got "
                f"{pixels.dtype}; save the phases as a float .tif or .npy, or, where values are "
                "fractions of scene.phase_range, train with data.unit=fraction"
            )
        raise InputError(
            f"{name}: expected uint8, uint16 or float pixels, got {pixels.dtype}; convert the file"
        )
    if not np.all(np.isfinite(grey)):
        raise InputError(f"{name}: has pixels that are not finite numbers; mend or remove it")
    low, high = float(grey.min()), float(grey.max())
    if wanted.rescale:
        return (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    if wanted.unit == "fraction" and (low < 0.0 or high > 1.0):
        raise InputError(
            f"{name}: expected float pixels in [0, 1], got [{low:.4g}, {high:.4g}]; divide them, "
            "set data.unit=radians if they are phases, or data.rescale=True to stretch each image"
        )
    return grey


def _luminance(colours: np.ndarray, path: Path) -> np.ndarray:
    """Grey [h w] of colours [h w 3], rounded where they are integers."""
    if colours.dtype == np.uint8 and path.suffix.lower() in PICTURES:
        # Pillow's weights are off by 1e-5: the data digests of runs are of these.
        return np.asarray(Image.fromarray(colours).convert("L"))
    grey = np.tensordot(colours, [0.299, 0.587, 0.114], axes=1)
    return (grey.round() if colours.dtype.kind == "u" else grey).astype(colours.dtype)


def _fitted(grey: np.ndarray, wanted: Preparation) -> np.ndarray:
    """Makes an image square and of the wanted size; what is padded is 0."""
    height, width = grey.shape
    if wanted.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        grey = grey[top : top + side, left : left + side]
    elif wanted.fit == "pad":
        side = max(height, width)
        before = (side - height) // 2, (side - width) // 2
        grey = np.pad(
            grey, [(before[0], side - height - before[0]), (before[1], side - width - before[1])]
        )
    size = (wanted.size, wanted.size)
    if grey.shape == size:
        return grey
    resized = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR), np.float32)
    return resized.clip(0.0, 1.0) if wanted.unit == "fraction" else resized


def _in_range(
    images: np.ndarray, source: Path, wanted: Preparation
) -> tuple[np.ndarray, float, str]:
    """Returns the images in [0, 1], the offset, and in words what their values were."""
    low, high, mean = float(images.min()), float(images.max()), float(images.mean())
    if wanted.unit == "fraction":
        said = f"values {low:.3g} to {high:.3g} (mean {mean:.2g})"
        if wanted.phase_range:
            r = wanted.phase_range
            said += f" = {low * r:.3g} to {high * r:.3g} rad"
        return images, 0.0, said
    offset, top = wanted.offset, wanted.phase_range
    found = f"got {low:.4g} to {high:.4g} rad"
    if offset is None:
        offset = max(0.0, -low)
        if high + offset > top * (1 + ROUNDING):
            raise InputError(
                f"{source}: expected phases within scene.phase_range = {top:.4g} rad, {found}; set "
                f"scene.phase_range={high + offset:.4g} or more"
            )
    elif not -ROUNDING * top <= low + offset <= high + offset <= top * (1 + ROUNDING):
        raise InputError(
            f"{source}: expected phases of {-offset:.4g} to {top - offset:.4g} rad, as the run's "
            f"own, to which {offset:.4g} is added, {found}; train for objects of that range"
        )
    said = f"phases {low:.3g} to {high:.3g} rad (mean {mean:.2g}) of {top:.3g}"
    if offset:
        said += f", {offset:.4g} added to all"
    return ((images + offset) / top).clip(0.0, 1.0).astype(np.float32), offset, said
