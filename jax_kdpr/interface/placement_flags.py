"""Flags that say where the pattern lies on the camera, and how bright it is, for `reconstruct`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface.bench_flags import Lengths, numbers
from jax_kdpr.lab.frames.calibration import calibration_notes, read_calibration
from jax_kdpr.lab.frames.geometry import FLIPS, Geometry, Window, default_geometry
from jax_kdpr.runs.run import Run

CALIBRATION = flags.DEFINE_string("calibration", "", "File that jax_kdpr.calibrate wrote.")
CENTRE = flags.DEFINE_string("centre", "", "Y,X of the zero frequency; default: the middle.")
ROTATE = flags.DEFINE_float("rotate", None, "Rotation of the pattern on the camera, degrees.")
SCALE = flags.DEFINE_float(
    "scale", None, "Camera pixels in a model sample.", lower_bound=0.1, upper_bound=1000.0
)
FLIP = flags.DEFINE_enum("flip", None, FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool("transpose", None, "Whether it swaps rows and columns (first).")
GAIN = flags.DEFINE_string("gain", "auto", "auto, or counts a unit.")


class Placement(NamedTuple):
    """Where the pattern lies, how bright it is, and what speaks against both."""

    geometry: Geometry  # in pixels of the raw frame
    gain: float | None  # counts a unit; None scales each frame
    notes: list[str]


def read_placement(run: Run, window: Window, lengths: Lengths) -> Placement:
    """Returns what the flags, or the calibration, say.

    Args:
        run: The run.
        window: Of the frames.
        lengths: Of the bench.

    Raises:
        InputError: If two of them say the same, the calibration is none, or no gain is known.
    """
    guess = default_geometry(
        window,
        run.sensor,
        SCALE.value or lengths.scale,
        rotation=ROTATE.value or 0.0,
        flip=FLIP.value or "none",
        transpose=bool(TRANSPOSE.value),
    )
    given = [
        f"--{flag.name}"
        for flag in (CENTRE, ROTATE, SCALE, FLIP, TRANSPOSE)
        if flag.value not in (None, "")
    ]
    if CALIBRATION.value and given:
        raise InputError(f"{given[0]}: --calibration holds it already; leave out one of the two")
    gain, notes = _gain(), []
    if CALIBRATION.value:
        calibration = read_calibration(Path(CALIBRATION.value))
        geometry = calibration.geometry
        notes = calibration_notes(calibration, run, CALIBRATION.value)
        if gain is None and run.camera.scene.kind != "phase":
            gain = calibration.counts_per_unit
    else:
        centre = numbers(CENTRE, "Y,X") or (guess.centre_y, guess.centre_x)
        if not CENTRE.value:
            notes.append("no --calibration, no --centre: the pattern is taken to be in the middle")
        geometry = guess._replace(centre_y=centre[0], centre_x=centre[1])
    if gain is None and run.camera.scene.kind != "phase":
        raise InputError(
            f"--gain: the energy of {run.camera.scene.kind} scenes is not known; give "
            "--calibration or the counts a unit"
        )
    return Placement(geometry, gain, notes)


def _gain() -> float | None:
    if GAIN.value == "auto":
        return None
    try:
        gain = float(GAIN.value)
    except ValueError:
        gain = 0.0
    if not 0.0 < gain < np.inf:
        raise InputError(f"--gain: expected auto or a positive number, got {GAIN.value!r}")
    return gain
