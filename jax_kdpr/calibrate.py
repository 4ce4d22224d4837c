"""Finds where the pattern lies on the camera, from frames of a known object.

    python -m jax_kdpr.calibrate --workdir RUN --input 'blank/*.tif' --output calibration.json \\
        [--object IMAGE] [--scale 3] [--dark D] [--flat F] [--bad_pixels B]

Without --object there is none in the beam: the CDP of the mask alone (one of phases 0 and pi needs
an object, since its CDP is its own half turn). The first L frames are its snapshots. Centre, all
eight orientations, a rotation of --rotation_range degrees and a scale of --scale_range (relative)
around --scale are searched; the result, in pixels of the raw frame, with the counts a unit, goes to
--output, for `reconstruct --calibration`. Its score is the correlation of measured and expected
amplitudes. If the score is low, or another orientation fits nearly as well, the fit is not to be
trusted: a warning says so, and the exit code is 1.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import cli, frame_flags
from jax_kdpr.lab.frames.calibration import CALIBRATION, calibrate, in_words, write_calibration
from jax_kdpr.lab.frames.measured import blank_image
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.runs.run import load_run

flags.adopt_module_key_flags(frame_flags)
OUTPUT = flags.DEFINE_string("output", None, "Calibration file to write, .json.")
OBJECT = flags.DEFINE_string(
    "object",
    "",
    "Image file of the object, as data.dir takes them, but never stretched; default: none in the "
    "beam.",
)
ROTATION_RANGE = flags.DEFINE_float(
    "rotation_range", 10.0, "Degrees to search each way.", lower_bound=0.0, upper_bound=45.0
)
SCALE_RANGE = flags.DEFINE_float(
    "scale_range",
    0.15,
    "Relative change of scale to search each way.",
    lower_bound=0.0,
    upper_bound=0.5,
)
DOUBT = (
    "do not trust this calibration; check the object, the mask that is shown, the exposure, and "
    "--scale"
)


def main(positional: list[str]) -> int:
    """Registers one set of frames."""
    cli.require_no_more(positional, "quote the pattern of --input")
    workdir = Path(frame_flags.require(frame_flags.WORKDIR, "a run folder"))
    frame_flags.fill_from_bench(workdir)
    frames = list_frames(
        frame_flags.require(frame_flags.INPUT, "frames without an object, or of that of --object")
    )
    output = Path(frame_flags.require(OUTPUT, "the file to write, such as calibration.json"))
    json_files.require_own("--output", output, CALIBRATION, command="calibrate")
    run = load_run(workdir).on_one_device()
    shots = run.snapshots
    if len(frames) < shots:
        raise InputError(f"--input: expected {shots} frames, one a snapshot, got {len(frames)}")
    setup = frame_flags.read_setup(frames, run)
    image = blank_image(run)
    if OBJECT.value:
        (image,) = own_images(run, Path(OBJECT.value), flag="--object", count=1)
    cli.make_folder("--output", output.parent)
    found = calibrate(
        frames[:shots],
        setup,
        run,
        image,
        rotation_range=ROTATION_RANGE.value,
        scale_range=SCALE_RANGE.value,
    )
    write_calibration(output, found)
    print(f"{in_words(found)}\nwritten: {output}")
    coarse = frame_flags.coarseness(setup._replace(geometry=found.geometry), run)
    for warning in filter(None, (coarse, "" if found.trusted else DOUBT)):
        print(f"warning: {warning}", file=sys.stderr)
    return 0 if found.trusted else 1


if __name__ == "__main__":
    cli.run(main)
