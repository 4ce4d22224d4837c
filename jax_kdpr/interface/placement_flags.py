"""Flags that say where the pattern lies and how bright it is; for `reconstruct` and `adapt`."""

import glob
from pathlib import Path

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import bench_flags, cli
from jax_kdpr.interface.frame_flags import DARK, SCALE, mask_side, read_setup
from jax_kdpr.lab.frames.calibration import calibration_notes, read_calibration
from jax_kdpr.lab.frames.geometry import FLIPS, default_geometry
from jax_kdpr.lab.frames.measured import Setup, coarseness
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.runs.run import Run

CALIBRATION = flags.DEFINE_string("calibration", "", "File that jax_kdpr.calibrate wrote.")
CENTRE = flags.DEFINE_string("centre", "", "Y,X of the zero frequency; default: the middle.")
ROTATE = flags.DEFINE_float("rotate", 0.0, "Rotation of the pattern on the camera, degrees.")
FLIP = flags.DEFINE_enum("flip", "none", FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool(
    "transpose", False, "Swap rows and columns of the pattern, before --flip."
)
GAIN = flags.DEFINE_string("gain", "auto", "auto, or counts a unit.")


def read_placed(frames: list[Frame], run: Run) -> tuple[Setup, Run, list[str]]:
    """Returns the setup by the flags or the calibration, the run, and notes on doubts.

    The run gets the optics that the calibration has fitted, if it has any.

    Raises:
        InputError: As `read_setup`, or if two flags say the same, the calibration cannot be used,
            or no gain is known.
    """
    calibration = read_calibration(Path(CALIBRATION.value)) if CALIBRATION.value else None
    unlike = []
    if calibration and calibration.reading:  # frames are read as those of the calibration were
        bin, sampling, square_pixels = calibration.reading
        mask_pixels = "square" if square_pixels else "point"
        alike = {"bin": bin, "sampling": sampling, "mask_pixels": mask_pixels}
        bench_flags.give(alike)
        unlike = [name for name, value in alike.items() if flags.FLAGS[name].value != value]
    setup, gain, notes = read_setup(frames, run), _gain(), []
    if calibration:
        for flag in (CENTRE, ROTATE, SCALE, FLIP, TRANSPOSE):
            if flag.present:
                raise InputError(
                    f"--{flag.name}: --calibration holds it already; leave out one of the two"
                )
        geometry = calibration.geometry
        notes = calibration_notes(calibration, run, CALIBRATION.value)
        notes += [f"--{name}: the frames of the calibration were read otherwise" for name in unlike]
        run = run.with_optics(calibration.optics) if calibration.optics else run
        setup = setup._replace(offset=calibration.offset, pixel_side=mask_side(run))
        if gain is None and not run.camera.knows_light:
            gain = calibration.counts_per_unit
    else:
        turn = {"rotation": ROTATE.value, "flip": FLIP.value, "transpose": TRANSPOSE.value}
        geometry = default_geometry(setup.window, run.sensor, SCALE.value, **turn)
        if centre := cli.numbers(CENTRE, "Y,X"):
            geometry = geometry._replace(centre_y=centre[0], centre_x=centre[1])
        else:
            notes = ["no --calibration, no --centre: the pattern is taken to be in the middle"]
    if gain is None and not run.camera.knows_light:
        raise InputError(
            f"--gain: how much light of {run.camera.scene.kind} scenes this camera sees is not "
            "known; give --calibration, or the counts of a model sample whose CDP is 1 (1 for "
            "frames that the model itself has measured)"
        )
    setup = setup._replace(geometry=geometry, counts_per_unit=gain)
    no_dark = "" if DARK.value or setup.offset else "no --dark: the camera's offset counts as light"
    return setup, run, [*notes, *filter(None, (coarseness(setup, run), no_dark))]


def take_example(folder: Path) -> None:
    """Sets flags that are left out to the files of a bench and its calibration.

    Args:
        folder: Folder of `simulate_bench`, with the calibration in it.
    """
    print(f"no --input: the frames in {folder}")
    names = ("dark.tif", "flat.tif", "bad_pixels.tif", "calibration.json", "truth.npy")
    files = {name.partition(".")[0]: str(folder / name) for name in names}
    bench_flags.give({"input": f"{glob.escape(str(folder))}/frames/*.tif", **files})


def is_trusted() -> bool:
    """Returns whether --calibration says that it is to be trusted; True if none is given."""
    return not CALIBRATION.value or read_calibration(Path(CALIBRATION.value)).trusted


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
