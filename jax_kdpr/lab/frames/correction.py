"""Corrects frames for dark level, flat field and bad pixels, and tells how much is saturated.

    corrected = (frame - dark) / flat, flat = (flat frame - dark) / its mean; bad pixels mended

Frames come cropped to the window that is used; pixels outside it are not checked either. The result
is still in counts: `frames.geometry` resamples it to the model's grid, and `frames.measured` scales
it to the model's unit.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.frames.geometry import Window

HOT_SIGMAS = 10.0  # standard deviations above the median beyond which a dark pixel is hot
MAX_BAD = 0.1  # share of bad pixels above which the maps are taken for a mistake
MIN_FLAT = 0.1  # share of the mean light below which a flat is too dark to divide by
FULL_SCALE = (8, 10, 12, 14, 16)  # bits of usual converters
PLATEAU = 1e-3  # share of pixels at the largest value beyond which a frame must be saturated


class References(NamedTuple):
    """Reference frames of a sensor, each a whole frame; None for what is not known."""

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

    unused_bits: int  # low bits that are always 0: 4 for 12-bit data left-justified in 16 bits
    saturation: float  # share of pixels at the largest value if the frame is saturated; else 0


def make_correction(references: References, window: Window | None = None) -> Correction:
    """Prepares the correction of frames in one window; None stands for the whole frame.

    Pixels of the dark that are more than `HOT_SIGMAS` robust standard deviations above its median
    are hot, and count as bad.

    Raises:
        InputError: If a reference has another size than the frames, or if in the window a pixel of
            the flat is too dark or too many pixels are bad.
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
        # The mean is that of the whole frame, whatever the window: so the counts a unit of a
        # calibration also hold for reconstructions in another window.
        mean = light[~wrong].mean()
        response = np.where(used, 1.0, part.crop(light) / mean if mean > 0 else 0.0)
        if not np.all(response >= MIN_FLAT):
            raise InputError(
                f"--flat: has pixels with less than {MIN_FLAT:.0%} of its mean light above the "
                "dark; take it with even light, or mark those pixels in --bad_pixels"
            )
    return Correction(part.crop(level), response, used)


def hot_pixels(dark: Float[np.ndarray, "h w"], step: int = 1) -> Bool[np.ndarray, "h w"]:
    """Finds the hot pixels of a dark: those beyond `HOT_SIGMAS` standard deviations of its median.

    The standard deviation is 1.4826 times the median absolute deviation, at least half a step.

    Args:
        dark: Mean of one or more frames, counts.
        step: Counts between neighbouring levels of a raw frame: 16 for 12-bit data left-justified
            in 16 bits.
    """
    above = dark - np.median(dark)
    return above > HOT_SIGMAS * max(1.4826 * float(np.median(np.abs(above))), step / 2)


def correct(frame: Num[np.ndarray, "h w"], correction: Correction) -> Float[np.ndarray, "h w"]:
    """Returns a cropped frame in counts of light: dark subtracted, flat divided out, mended.

    Negative values from noise around the dark level stay. A bad pixel gets the median of the good
    ones among its 8 neighbours; if none of these is good, among its 24; else of all good pixels.
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
    """Returns what the counts of a raw frame say about its converter; floats say nothing of bits.

    A frame is saturated if more than one pixel holds the largest value, and if that value is the
    end of a converter of 8, 10, 12, 14 or 16 bits (left-justified or not) or more than `PLATEAU` of
    the pixels hold it.
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
        InputError: If all pixels are equal (dark or saturated), or most of them are saturated; the
            message has the frame's name.
    """
    if frame.min() == frame.max():
        state = "dark" if frame.max() == 0 else f"at {frame.max()}: saturated, or no exposure"
        raise InputError(f"{name}: all pixels are {state}; set the exposure and take it again")
    counts = read_counts(frame)
    if counts.saturation > 0.5:
        raise InputError(f"{name}: more than half of the pixels are saturated; expose it for less")
    return counts
