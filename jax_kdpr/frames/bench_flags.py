"""Flags that say how frames were taken; `calibrate` and `reconstruct` share them."""

import numpy as np
from absl import flags
from jaxtyping import Num

from jax_kdpr.errors import InputError
from jax_kdpr.frames.correction import Correction, make_correction
from jax_kdpr.frames.geometry import SAMPLINGS, Window, make_window
from jax_kdpr.frames.reading import Frame, iterate_frames, read_mean, read_moments

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of the trained system.")
INPUT = flags.DEFINE_string(
    "input",
    None,
    "Frames, such as 'frames/*.tif': grey TIFF (also of many pages), PNG, NPY or HDF5 "
    "('scan.h5:/entry/data'), raw counts; L snapshots of each object follow each other by name, "
    "2 before 10.",
)
DARK = flags.DEFINE_string("dark", "", "Frame or frames without light; their mean is subtracted.")
FLAT = flags.DEFINE_string("flat", "", "Frame or frames of even light; their mean divides.")
BAD_PIXELS = flags.DEFINE_string("bad_pixels", "", "Map of bad pixels: not 0 where bad.")
CROP = flags.DEFINE_string("crop", "", "Y,X,H,W: the part of the frame to use, pixels.")
BIN = flags.DEFINE_integer("bin", 1, "Camera pixels each way to add up first.", lower_bound=1)
SAMPLING = flags.DEFINE_enum(
    "sampling",
    "points",
    SAMPLINGS,
    "points: read the pattern at the model's samples, as the model does; area: add up the light "
    "over a model pixel, for noisy frames or a system trained for it.",
)


def require(flag: flags.FlagHolder, hint: str) -> str:
    """Returns a flag that must be given.

    Raises:
        InputError: If it is not.
    """
    if not flag.value:
        raise InputError(f"--{flag.name}: needed, {hint}")
    return flag.value


def numbers(flag: flags.FlagHolder, names: str) -> list[float] | None:
    """Returns the numbers of a flag such as "Y,X"; None if it is not given.

    Raises:
        InputError: If they are not as many, or no numbers.
    """
    if not flag.value:
        return None
    try:
        values = [float(part) for part in flag.value.split(",")]
    except ValueError:
        values = []
    if len(values) != names.count(",") + 1 or not np.all(np.isfinite(values)):
        raise InputError(f"--{flag.name}: expected {names}, got {flag.value!r}")
    return values


def read_references(frames: list[Frame]) -> tuple[Correction, Window, float | None]:
    """Reads what the flags name, for frames of the first one's size.

    Returns:
        The correction, the window, and the spread of the dark's frames (`reading.read_moments`).

    Raises:
        InputError: If something of it cannot be used.
    """
    shape: tuple[int, int] = first_frame(frames).shape  # type: ignore[assignment]
    crop = numbers(CROP, "Y,X,H,W")
    if crop is not None and any(value != int(value) for value in crop):
        raise InputError(f"--crop: expected whole pixels, got {CROP.value!r}")
    window = make_window(
        shape,
        None if crop is None else (int(crop[0]), int(crop[1]), int(crop[2]), int(crop[3])),
        BIN.value,
    )
    dark, spread = read_moments(DARK.value, flag="--dark") if DARK.value else (None, None)
    correction = make_correction(
        shape,
        dark=dark,
        flat=read_mean(FLAT.value, flag="--flat") if FLAT.value else None,
        bad=read_mean(BAD_PIXELS.value, flag="--bad_pixels") if BAD_PIXELS.value else None,
    )
    return correction, window, spread


def first_frame(frames: list[Frame]) -> Num[np.ndarray, "h w"]:
    """Reads the first frame, raw."""
    return next(iterate_frames(frames[:1]))
