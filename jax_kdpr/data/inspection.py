"""Reads all images of a source into memory, and collects what they have in common."""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.data.image_files import Facts, ImageFiles, Preparation
from jax_kdpr.data.pages.opening import note_turned

SKIPPING = "; or leave such files out by data.skip_unreadable=True"
DARK = 0.1  # an image with no brighter pixel likely has fewer bits than its type
ROUNDING = 1e-6  # relative, of phases saved as float32


class Found(NamedTuple):
    """Images that were read."""

    images: np.ndarray  # float32 [n size size] or [n size size 2], in [0, 1]
    offset: float  # radians that were added to all phases; 0 if the unit is fraction


class Inspection:
    """What all images of a source have in common, collected image by image."""

    def __init__(self, files: ImageFiles, *, skip: bool, hint: str = ""):
        """Images that cannot be read are noted with `skip`; else the first raises, with `hint`."""
        self.files, self.skip, self.hint = files, skip, hint
        self.skipped: dict[int, str] = {}
        self.count = self.dark = 0
        self._coloured = self._turned = self._assumed = 0
        channels = files.wanted.channels
        self._low, self._high, self._sum = ([x] * channels for x in (math.inf, -math.inf, 0.0))
        self._shapes: set[tuple[int, int]] = set()

    def add(self, images: tuple[Facts, ...]) -> None:
        """Counts one more scene."""
        self.count += 1
        for channel, facts in enumerate(images):
            self.dark += facts.high < DARK
            self._coloured += facts.coloured
            self._turned += facts.turned
            self._assumed += facts.assumed
            self._low[channel] = min(self._low[channel], facts.low)
            self._high[channel] = max(self._high[channel], facts.high)
            self._sum[channel] += facts.mean
            self._shapes.add(facts.shape)

    def leave_out(self, number: int, failure: InputError) -> None:
        """Notes an image that cannot be read, with `skip`; else raises its failure."""
        if not self.skip:
            raise InputError(f"{failure}{self.hint}") from failure
        self.skipped[number] = str(failure)

    def offset(self) -> float:
        """Returns the radians that are added to all phases; 0 if the unit is fraction.

        Raises:
            InputError: If there is no image, or phases do not fit into `phase_range`.
        """
        wanted, source = self.files.wanted, self.files.source
        if not self.count:
            raise InputError(
                f"data.dir: none of the {len(self.skipped):,} images of {str(source)!r} can be "
                f"used; the first: {next(iter(self.skipped.values()))}"
            )
        if wanted.unit == "fraction":
            return 0.0
        low, high, top, offset = self._low[0], self._high[0], wanted.phase_range, wanted.offset
        found = f"got {low:.4g} to {high:.4g} rad"
        if offset is None:
            offset = max(0.0, -low)
            if high + offset > top * (1 + ROUNDING):
                raise InputError(
                    f"{source}: expected phases within scene.phase_range = {top:.4g} rad, {found}; "
                    f"set scene.phase_range={high + offset:.4g} or more"
                )
        elif not -ROUNDING * top <= low + offset <= high + offset <= top * (1 + ROUNDING):
            raise InputError(
                f"{source}: expected phases of {-offset:.4g} to {top - offset:.4g} rad, as the "
                f"run's own, to which {offset:.4g} is added, {found}; train for objects of that "
                "range"
            )
        return offset

    def say(self, label: str) -> None:
        """Prints what was found, and what was left out."""
        files, wanted = self.files, self.files.wanted
        pairs = " pairs of" if wanted.channels > 1 else ""
        if self.dark and wanted.unit == "fraction":
            print(
                f"note: {self.dark:,} of {self.count * wanted.channels:,} images never exceed "
                f"{DARK:g} of their range; frames of fewer bits than their type? Divide them by "
                "their largest value into float files (data.rescale=True stretches each image by "
                "itself)",
                file=sys.stderr,
            )
        note_turned(self._turned, str(files.source))
        if self.skipped:
            first = next(iter(self.skipped.values()))
            print(
                f"note: {len(self.skipped):,} of {len(files):,}{pairs} images are left out; the "
                f"first: {first}",
                file=sys.stderr,
            )
        assumed = self._assumed and wanted.unit == "fraction" and not wanted.rescale
        said = self._values_in_words()
        said += ", counts over 65535: no file says fewer bits" if assumed else ""
        shapes = dict.fromkeys(f"{h} x {w}" for h, w in (min(self._shapes), max(self._shapes)))
        coloured = f"{self._coloured} in colour made " if self._coloured else ""
        print(
            f"{label}: {self.count}{pairs} {files.kinds()} {' to '.join(shapes)}, {coloured}grey "
            f"-> {wanted.size} x {wanted.size} ({wanted.fit}), {said}"
        )
        if files.turns:
            print(f"{label}: {files.turns}")

    def _values_in_words(self) -> str:
        if self.files.wanted.channels > 1:
            ranges = (
                f"{low:.3g} to {high:.3g}" for low, high in zip(self._low, self._high, strict=True)
            )
            return "values of phase {}, of amplitude {}".format(*ranges)
        low, high, mean = self._low[0], self._high[0], self._sum[0] / self.count
        top = self.files.wanted.phase_range
        if self.files.wanted.unit == "fraction":
            said = f"values {low:.3g} to {high:.3g} (mean {mean:.2g})"
            return said + (f" = {low * top:.3g} to {high * top:.3g} rad" if top else "")
        offset = self.offset()
        said = f"phases {low:.3g} to {high:.3g} rad (mean {mean:.2g}) of {top:.3g}"
        return said + (f", {offset:.4g} added to all" if offset else "")


def read_images(
    source: Path,
    wanted: Preparation,
    *,
    subfolders: bool = False,
    of_frames: bool = False,
    label: str = "data",
) -> Found:
    """Reads scenes as float32 [n size size] with values in [0, 1]; images of a folder by name.

    Integers are divided by the largest value that a pixel of the file can have (255, 4,095 in a
    12-bit TIFF, 65,535); floats must lie in [0, 1] already. If the unit is radians, values are
    phases: an offset common to all images raises a negative minimum to 0, and the sum is divided
    by `phase_range`. Colours become luminance (ITU-R 601); transparent pixels are refused. Each
    image is resized to size x size, bilinear, with antialiasing where it shrinks. Scenes of two
    channels are [n size size 2].

    A printed line says what was found. `pages.stacks` explains the axes of an array.

    Args:
        source: A folder, or one file of many pages (`pages.opening.STACKS`). An HDF5 dataset
            is named as in "scan.h5::/entry/data".
        wanted: How to make images from the files.
        subfolders: Whether to take the images in subfolders as well.
        of_frames: Whether the images belong to frames. Names are then sorted like those of frames,
            2 before 10, and a file of one image is accepted. Else they are sorted character by
            character, which the split of old runs depends on.
        label: Beginning of the printed line.

    Raises:
        InputError: If nothing is found, an image cannot be read or used (the message names the
            file), or memory would not hold all images.
    """
    files = ImageFiles(source, wanted, subfolders=subfolders, of_frames=of_frames)
    return read_all(files, label=label)


def read_all(files: ImageFiles, *, skip: bool = False, label: str = "data") -> Found:
    """Reads listed images into memory, as `read_images`.

    With `skip`, images that cannot be read are left out, and a line says how many.
    """
    # float32 images are held twice: one by one, and joined.
    values = len(files) * math.prod(files.wanted.shape)
    runtime.require_memory("data.dir, data.size", 2 * 4 * values)
    found, images = Inspection(files, skip=skip, hint=SKIPPING if label == "data" else ""), []
    for number in range(len(files)):
        try:
            image, facts = files.read(number)
        except InputError as failure:
            found.leave_out(number, failure)
            continue
        found.add(facts)
        images.append(image)
    files.close()
    offset = found.offset()
    found.say(label)
    return Found(in_range(np.stack(images), files.wanted, offset), offset)


def in_range(images: np.ndarray, wanted: Preparation, offset: float) -> np.ndarray:
    """Brings images that were read to float32 in [0, 1]; `offset` is added to phases."""
    if wanted.unit == "fraction":
        return images
    return ((images + offset) / wanted.phase_range).clip(0.0, 1.0).astype(np.float32)
