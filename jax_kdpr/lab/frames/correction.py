"""What the sensor did to the light, undone: dark level, flat field, bad pixels; and what it lost.

    corrected = (frame - dark) / flat, flat = (flat frame - dark) / its mean; bad pixels mended

Frames come cropped to the window that is used, and what lies outside it is not judged either.
Counts stay counts: `frames.geometry` brings them to the model's grid and its unit.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.frames.geometry import Window

HOT_SIGMAS = 10.0  # a dark pixel so far above the median is hot
MAX_BAD = 0.1  # share of bad pixels above which the maps are taken for a mistake
MIN_FLAT = 0.1  # of the mean: below it a flat holds too little light to divide by
FULL_SCALE = (8, 10, 12, 14, 16)  # bits of usual converters
PLATEAU = 1e-3  # share of pixels at one largest value that only saturation explains


class References(NamedTuple):
    """What is known of a sensor, of whole frames; None for what is not."""

    shape: tuple[int, int]  # of a frame, as in its file
    dark: Num[np.ndarray, "_ _"] | None = None  # mean frame without light, counts
    flat: Num[np.ndarray, "_ _"] | None = None  # mean frame of even light, counts
    bad: Num[np.ndarray, "_ _"] | None = None  # not 0 where a pixel is bad
    dark_step: int = 1  # counts between neighbouring levels of a raw dark frame
    spread: float | None = None  # standard deviation of a dark pixel from frame to frame, counts


class Correction(NamedTuple):
    """How the frames of one camera are corrected in one window; see `make_correction`."""

    dark: Float[np.ndarray, "h w"]  # counts
    flat: Float[np.ndarray, "h w"]  # mean 1 over the good pixels of the whole frame
    bad: Bool[np.ndarray, "h w"]


class Counts(NamedTuple):
    """What the counts of a raw frame say about its converter."""

    unused_bits: int  # that are always 0: 4 for 12-bit data left-justified in 16 bits
    saturation: float  # share of pixels at the largest value, where that is the converter's end


def make_correction(references: References, window: Window | None = None) -> Correction:
    """Prepares the correction of frames in one window of them; None for the whole.

    Pixels of the dark more than `HOT_SIGMAS` robust standard deviations above its median are hot,
    and so bad.

    Raises:
        InputError: If a reference is of another size than the frames, or if in the window the flat
            is dark somewhere or too much is bad.
    """
    shape, dark, flat, bad = references[:4]
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
        wrong = wrong | hot_pixels(level, references.dark_step)
    used = part.crop(wrong)
    if used.mean() > MAX_BAD:
        raise InputError(
            f"--bad_pixels, --dark: {used.mean():.0%} of the pixels are bad or hot; check that "
            "the map is not 0 only where a pixel is bad, and that the dark was taken without light"
        )
    response = np.ones(used.shape)
    if flat is not None:
        light = flat - level
        # The mean of the whole frame whatever window is used of it: a calibration's counts a unit
        # hold for reconstructions in another window.
        mean = light[~wrong].mean()
        response = np.where(used, 1.0, part.crop(light) / mean if mean > 0 else 0.0)
        if not np.all(response >= MIN_FLAT):
            raise InputError(
                f"--flat: has pixels with less than {MIN_FLAT:.0%} of its mean light above the "
                "dark; take it with even light, or mark those pixels in --bad_pixels"
            )
    return Correction(part.crop(level), response, used)


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

    Negative values, of noise around the dark level, stay. A bad pixel gets the median of its good
    neighbours: of 8, of 24 if none of these is good, else of all.
    """
    light = (frame.astype(np.float64) - correction.dark) / correction.flat
    bad = correction.bad
    if not bad.any():
        return light
    known = np.pad(np.where(bad, np.nan, light), 2, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(known, (5, 5))[bad]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where none of them is good
        near = np.nanmedian(around[:, 1:4, 1:4], axis=(1, 2))
        far = np.nanmedian(around, axis=(1, 2))
    mended = np.where(np.isnan(near), far, near)
    light[bad] = np.where(np.isnan(mended), np.median(light[~bad]), mended)
    return light


def read_counts(frame: Num[np.ndarray, "h w"]) -> Counts:
    """Returns what a raw frame's counts say; floats say nothing of bits.

    Saturated is a frame of which more than one pixel holds the largest value, if that value is the
    end of a converter of 8, 10, 12, 14 or 16 bits (left-justified or not), or if more than
    `PLATEAU` of the pixels hold it.
    """
    top = frame.max()
    at_top = int(np.count_nonzero(frame == top))
    is_integer = frame.dtype.kind in "ui"
    bits = int(np.bitwise_or.reduce(frame, axis=None)) if is_integer else 1
    unused = (bits & -bits).bit_length() - 1 if bits else 0
    ends = {(2**bits - 1) * scale for bits in FULL_SCALE for scale in (1, 2 ** (16 - bits))}
    is_end = is_integer and int(top) in ends
    share = at_top / frame.size
    saturated = at_top > 1 and top > 0 and (is_end or share > PLATEAU)
    return Counts(unused, share if saturated else 0.0)


def check_exposure(frame: Num[np.ndarray, "h w"], name: str) -> Counts:
    """Refuses a raw, cropped frame that holds no pattern; returns what its counts say.

    Raises:
        InputError: With its name, if all pixels are equal (dark or saturated), or most saturated.
    """
    if frame.min() == frame.max():
        state = "dark" if frame.max() == 0 else f"at {frame.max()}: saturated, or no exposure"
        raise InputError(f"{name}: all pixels are {state}; set the exposure and take it again")
    counts = read_counts(frame)
    if counts.saturation > 0.5:
        raise InputError(f"{name}: more than half of the pixels are saturated; expose it for less")
    return counts
