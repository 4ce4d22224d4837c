"""What the sensor did to the light, undone: dark level, flat field, bad pixels; and what it lost.

    corrected = (frame - dark) / flat, flat = (flat frame - dark) / its mean; bad pixels mended

Frames come cropped to the window that is used, and what lies outside it is not judged either.
Counts stay counts: `frames.geometry` brings them to the model's grid and its unit.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.frames.geometry import Window, crop

HOT_SIGMAS = 10.0  # a dark pixel so far above the median is hot
MAX_BAD = 0.1  # share of bad pixels above which the maps are taken for a mistake
MIN_FLAT = 0.1  # of the mean: below it a flat holds too little light to divide by
FULL_SCALE = (8, 10, 12, 14, 16)  # bits of usual converters
PLATEAU = 1e-3  # share of pixels at one largest value that only saturation explains


class Neighbours(NamedTuple):
    """What n bad pixels are mended from; places in the flattened frame."""

    pixels: Int[np.ndarray, "n"]  # the bad ones
    places: Int[np.ndarray, "n 24"]  # around them
    good: Bool[np.ndarray, "n 24"]  # whether to take them


class Correction(NamedTuple):
    """How the frames of one camera are corrected in one window; see `make_correction`."""

    dark: Float[np.ndarray, "h w"]  # counts
    flat: Float[np.ndarray, "h w"]  # mean 1 over the good pixels of the whole frame
    bad: Bool[np.ndarray, "h w"]
    neighbours: Neighbours  # of the bad pixels


class Counts(NamedTuple):
    """What the counts of a raw frame say about its converter."""

    step: int  # greatest common divisor of all counts; 1 where there is none, or for floats
    saturation: float  # share of pixels at the largest value, where that is the converter's end

    @property
    def unused_bits(self) -> int:
        """Low bits that are always 0: 4 for 12-bit data left-justified in 16 bits, 6 for 10-bit."""
        return (self.step & -self.step).bit_length() - 1


def make_correction(
    shape: tuple[int, int],
    *,
    dark: Num[np.ndarray, "dh dw"] | None = None,
    flat: Num[np.ndarray, "fh fw"] | None = None,
    bad: Num[np.ndarray, "bh bw"] | None = None,
    dark_step: int = 1,
    window: Window | None = None,
) -> Correction:
    """Prepares the correction of frames of one size, in one window of them.

    Args:
        shape: Of a frame, as in its file.
        dark: Mean frame without light, counts. Pixels more than `HOT_SIGMAS` robust standard
            deviations above its median are hot, and so bad.
        flat: Mean frame of even light, counts.
        bad: Map of the bad pixels: not 0 where bad.
        dark_step: Counts between neighbouring levels of a raw dark frame.
        window: That is used of the frames; None for the whole.

    Raises:
        InputError: If one is of another size, or if in the window the flat is dark somewhere or
            too much is bad.
    """
    part = window or Window(0, 0, *shape)
    for name, given in (("--dark", dark), ("--flat", flat), ("--bad_pixels", bad)):
        if given is not None and given.shape != shape:
            raise InputError(
                f"{name}: expected the size of the frames {shape}, got {given.shape}; take it "
                "with the same region and binning of the camera"
            )
    wrong = np.zeros(shape, bool) if bad is None else bad != 0
    level = np.zeros(shape) if dark is None else dark.astype(np.float64)
    if dark is not None:
        wrong = wrong | hot_pixels(level, dark_step)
    used = crop(wrong, part)
    if used.mean() > MAX_BAD:
        raise InputError(
            f"--bad_pixels, --dark: {used.mean():.0%} of the pixels are bad or hot; check that "
            "the map is not 0 only where a pixel is bad, and that the dark was taken without light"
        )
    response = np.ones(used.shape)
    if flat is not None:
        response = np.where(used, 1.0, crop(_response(flat - level, wrong), part))
        if not np.all(response >= MIN_FLAT):
            raise InputError(
                f"--flat: has pixels with less than {MIN_FLAT:.0%} of its mean light above the "
                "dark; take it with even light, or mark those pixels in --bad_pixels"
            )
    return Correction(crop(level, part), response, used, find_neighbours(used))


def hot_pixels(dark: Float[np.ndarray, "h w"], step: int = 1) -> Bool[np.ndarray, "h w"]:
    """Finds the hot pixels of a dark: those beyond `HOT_SIGMAS` of its median.

    The standard deviation is 1.4826 times the median absolute deviation, at least half a step.

    Args:
        dark: Mean of one or more frames, counts.
        step: Counts between neighbouring levels of a raw frame: 16 of 12 bits left-justified.
    """
    above = dark - np.median(dark)
    return above > HOT_SIGMAS * max(1.4826 * float(np.median(np.abs(above))), step / 2)


def correct(frame: Num[np.ndarray, "h w"], correction: Correction) -> Float[np.ndarray, "h w"]:
    """Returns a cropped frame in counts of light: dark subtracted, flat divided out, mended.

    Negative values, of noise around the dark level, stay.
    """
    light = (frame.astype(np.float64) - correction.dark) / correction.flat
    return mend(light, correction)


def find_neighbours(bad: Bool[np.ndarray, "h w"]) -> Neighbours:
    """Finds the good neighbours of all bad pixels: of 8, or of 24 if none of these is good."""
    rows, columns = np.nonzero(bad)
    around = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0)]
    around.sort(key=lambda step: max(abs(step[0]), abs(step[1])))  # the 8 first
    steps = np.array(around)
    y, x = rows[:, None] + steps[:, 0], columns[:, None] + steps[:, 1]
    height, width = bad.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    places = np.where(inside, y * width + x, 0)
    good = inside & ~bad.ravel()[places]
    good[good[:, :8].any(axis=1), 8:] = False
    return Neighbours(rows * width + columns, places, good)


def mend(frame: Float[np.ndarray, "h w"], correction: Correction) -> Float[np.ndarray, "h w"]:
    """Replaces bad pixels by the median of their good neighbours.

    A bad pixel without any good one among 24 gets the median of all good pixels.
    """
    pixels, places, good = correction.neighbours
    if not pixels.size:
        return frame
    count = good.sum(axis=1)
    values = np.sort(np.where(good, frame.ravel()[places], np.inf), axis=1)  # good ones first
    each = np.arange(len(pixels))
    median = (values[each, (count - 1) // 2] + values[each, count // 2]) / 2
    if not count.all():
        median[count == 0] = np.median(frame[~correction.bad])
    mended = frame.copy()
    mended.ravel()[pixels] = median
    return mended


def read_counts(frame: Num[np.ndarray, "h w"]) -> Counts:
    """Returns what a raw frame's counts say; floats say nothing of steps.

    Saturated is a frame of which more than one pixel holds the largest value, if that value is the
    end of a converter of 8, 10, 12, 14 or 16 bits (left-justified or not), or if more than
    `PLATEAU` of the pixels hold it.
    """
    top = frame.max()
    at_top = int(np.count_nonzero(frame == top))
    step = 1
    if frame.dtype.kind in "ui":
        step = int(np.gcd.reduce(np.abs(frame.astype(np.int64)), axis=None)) or 1
    ends = {(2**bits - 1) * scale for bits in FULL_SCALE for scale in (1, 2 ** (16 - bits))}
    share = at_top / frame.size
    is_end = frame.dtype.kind in "ui" and int(top) in ends
    saturated = at_top > 1 and top > 0 and (is_end or share > PLATEAU)
    return Counts(step, share if saturated else 0.0)


def check_exposure(frame: Num[np.ndarray, "h w"], name: str) -> Counts:
    """Refuses a raw frame that holds no pattern; returns what its counts say (`read_counts`).

    Args:
        frame: Cropped.
        name: For the message.

    Raises:
        InputError: If all pixels are equal (dark or saturated), or most are saturated.
    """
    if frame.min() == frame.max():
        state = "dark" if frame.max() == 0 else f"at {frame.max()}: saturated, or no exposure"
        raise InputError(f"{name}: all pixels are {state}; set the exposure and take it again")
    counts = read_counts(frame)
    if counts.saturation > 0.5:
        raise InputError(f"{name}: more than half of the pixels are saturated; expose it for less")
    return counts


def check_light(light: Float[np.ndarray, "*n"], name: str) -> None:
    """Refuses a corrected frame, or what it gives on the model's grid, without light.

    Args:
        light: Counts.
        name: For the message.

    Raises:
        InputError: If they do not add up to more than 0.
    """
    if light.sum() <= 0:
        raise InputError(
            f"{name}: no light is left over the dark; check that --dark belongs to this exposure"
        )


def _response(
    light: Float[np.ndarray, "h w"], wrong: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Light over its mean, 0 if there is none.

    The mean is that of the whole frame whatever window is used of it: a calibration's counts a
    unit hold for reconstructions in another window.
    """
    mean = float(light[~wrong].mean()) if not wrong.all() else 0.0
    return light / mean if mean > 0 else np.zeros_like(light)
