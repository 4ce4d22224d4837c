"""The user's own images: a folder of files or one stack, with values in [0, 1] or radians."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.opening import OPENERS, STACKS, natural_order, open_pages
from jax_kdpr.data.pages.page import Pages, reduced
from jax_kdpr.data.pages.pictures import PICTURES
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.data.pages.tiff import TIFF

SUFFIXES = (".npy", *PICTURES, *TIFF)  # of the images in a folder
FITS = ("stretch", "crop", "pad")  # crop takes the middle, pad adds zeros
UNITS = ("fraction", "radians")  # fraction: of `scene.phase_range`


class Preparation(NamedTuple):
    """How the pixels of a file become an image."""

    size: int  # pixels, height and width
    fit: str = "stretch"  # how an image is made square: one of FITS
    unit: str = "fraction"  # unit of the values: one of UNITS
    rescale: bool = False  # stretch each image so that its darkest pixel is 0, its brightest 1
    phase_range: float = 0.0  # radians that 1 stands for; 0 if images are not phases
    offset: float | None = None  # radians added to phases; None: raises a negative minimum to 0
    channels: int = 1  # of a scene; 2: images are its phase and its amplitude, by turns

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a scene: [size size], or [size size 2]."""
        return (self.size, self.size, *([self.channels] if self.channels > 1 else []))


class Facts(NamedTuple):
    """Properties of an image that was read."""

    shape: tuple[int, int]  # of its page, before resizing
    coloured: bool
    turned: bool  # whether a tag asks viewers to turn it, which is ignored
    assumed: bool  # whether 65535 was taken as the largest value, as the file gives no other
    low: float
    high: float
    mean: float


class ImageFiles:
    """The scenes of a folder, or of one file of many pages; each is decoded when it is read.

    A scene is an image, or two consecutive ones (`Preparation.channels`). A file of many pages
    stays open between reads. The object can be sent to another process.
    """

    def __init__(
        self,
        source: Path,
        wanted: Preparation,
        *,
        subfolders: bool = False,
        of_frames: bool = False,
    ):
        """Lists the images; `inspection.read_images` explains arguments and errors."""
        self.source, self.wanted = source, wanted
        self._pages: Pages | None = None
        self._open = ExitStack()
        file, self._dataset = split_dataset(str(source))
        self._file = None if source.is_dir() else Path(file)
        if self._file is None:
            # By character only where the splits of old runs depend on it.
            self._paths = _image_paths(source, subfolders, of_frames or wanted.channels > 1)
            self._count = len(self._paths)
            self._require_whole()
            return
        if self._file.suffix.lower() not in (OPENERS if of_frames else STACKS):
            raise InputError(
                f"data.dir: expected a folder of images, or one stack ({', '.join(STACKS)}), got "
                f"{file!r}"
            )
        pages = self._stack(self._file)
        if pages.count == 1 and not of_frames:
            raise InputError(
                f"{file}: expected a stack [n h w], got one image, shape {pages.read(0).shape}; "
                "give the folder of several"
            )
        self._paths, self._count = [self._file], pages.count
        self._require_whole()

    def _require_whole(self) -> None:
        if self._count % self.wanted.channels:
            raise InputError(
                "data.dir: expected two images of each complex scene, its phase and its amplitude "
                f"by turns, got {self._count} in all; add the one that is missing"
            )

    def __len__(self) -> int:
        return self._count // self.wanted.channels

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pages": None, "_open": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_open": ExitStack()}

    @property
    def turns(self) -> str:
        """Says which images are phase and amplitude of the first scene; empty of other scenes."""
        if self.wanted.channels == 1:
            return ""
        names = (self.name(number).removeprefix(str(self.source)) for number in (0, 1))
        phase, amplitude = (name.lstrip("/") for name in names)
        return f"phase {phase}, amplitude {amplitude}, and so on by turns"

    def name(self, number: int) -> str:
        """Returns the path of an image, with its page in a stack."""
        return f"{self._paths[number]}" if self._file is None else f"{self._file}[{number}]"

    def listing(self) -> list[tuple[str, int]]:
        """Returns name and size in bytes of each file, to tell copies of a folder apart."""
        folder = self.source if self._file is None else self._file.parent
        sizes = [path.stat().st_size if path.exists() else -1 for path in self._paths]
        return [(str(p.relative_to(folder)), n) for p, n in zip(self._paths, sizes, strict=True)]

    def kinds(self) -> str:
        """Returns the types of the files, such as "PNG, TIF"."""
        return ", ".join(dict.fromkeys(path.suffix[1:].upper() for path in self._paths))

    def read(self, number: int) -> tuple[np.ndarray, tuple[Facts, ...]]:
        """Decodes a scene to float32 of `Preparation.shape`: in [0, 1], or radians if so asked.

        Returns:
            The scene, and what is known of each of its images.

        Raises:
            InputError: If one cannot be read or used; the message names the file.
        """
        channels = self.wanted.channels
        images, facts = zip(
            *(self._read(channels * number + channel) for channel in range(channels)), strict=True
        )
        return images[0] if channels == 1 else np.stack(images, axis=-1), facts

    def _read(self, number: int) -> tuple[np.ndarray, Facts]:
        if self._file is not None:
            return self._prepared(self._stack(self._file), number, number)
        with open_pages(self._paths[number]) as pages:
            if pages.are_planes:
                planes = np.stack([pages.read(page) for page in range(pages.count)], axis=-1)
                pages = pages._replace(count=1, read=lambda _: reduced(planes))
            if pages.count > 1:
                raise InputError(
                    f"{self.name(number)}: expected one image in each file of a folder, got "
                    f"{pages.count}; save them as separate files, or give the stack itself as "
                    "data.dir"
                )
            return self._prepared(pages, 0, number)

    def close(self) -> None:
        """Closes the file that is open, if any."""
        self._pages = None
        self._open.close()

    def _stack(self, file: Path) -> Pages:
        if self._pages is None:
            self._pages = self._open.enter_context(open_pages(file, self._dataset))
        return self._pages

    def _prepared(self, pages: Pages, page: int, number: int) -> tuple[np.ndarray, Facts]:
        pixels = pages.read(page)
        coloured = pixels.ndim == 3
        grey = _luminance(pixels, self._file or self._paths[number]) if coloured else pixels
        image = _fitted(_values(grey, pages.top, self.name(number), self.wanted), self.wanted)
        return image, Facts(
            shape=pixels.shape[:2],
            coloured=coloured,
            turned=pages.turned,
            assumed=pixels.dtype == np.uint16 and pages.top is None,
            low=float(image.min()),
            high=float(image.max()),
            mean=float(image.mean()),
        )


def _image_paths(folder: Path, subfolders: bool, of_frames: bool) -> list[Path]:
    """Returns the image files of a folder, sorted by name; prints how many entries it ignores."""
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
    """Returns pixels as float32 [h w]: in [0, 1], or radians if that is the unit."""
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
    """Returns the luminance [h w] of colours [h w 3], rounded if they are integers."""
    if colours.dtype == np.uint8 and path.suffix.lower() in PICTURES:
        # Pillow's weights are off by 1e-5, but the data digests of runs depend on them.
        return np.asarray(Image.fromarray(colours).convert("L"))
    grey = np.tensordot(colours, [0.299, 0.587, 0.114], axes=1)
    return (grey.round() if colours.dtype.kind == "u" else grey).astype(colours.dtype)


def _fitted(grey: np.ndarray, wanted: Preparation) -> np.ndarray:
    """Makes an image square, and resizes it; padding is 0."""
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
