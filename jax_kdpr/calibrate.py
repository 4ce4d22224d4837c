"""Finds where the pattern lies on the camera, from frames of a known object.

    python -m jax_kdpr.calibrate --workdir RUN --input 'blank/*.tif' --output calibration.json \\
        [--object IMAGE] [--scale 3] [--dark D] [--flat F] [--bad_pixels B]
    python -m jax_kdpr.calibrate --config CONFIG --object IMAGE --fit defocus,waist,offset ...

Without --object no object is in the beam, and the frames show the CDP of the mask alone. (A mask of
phases 0 and pi needs an object, since its CDP equals its half turn.) The frames are the L
snapshots; of several such sets the mean counts, or with --object the first. The search covers all
centres, all eight orientations, a rotation of --rotation_range degrees, and a relative change of
--scale by --scale_range. The geometry, in pixels of the raw frame, the counts a unit, and how the
frames were read (--bin, --sampling, --mask_pixels) go to --output, for `reconstruct --calibration`.
The score is the correlation of measured and expected amplitudes. If it is low, or if another
orientation fits nearly as well, or (without --fit) the mask of the other sign better, the fit is
not to be trusted: a warning says so, and the exit code is 1.

--fit names the parts of the optics that are fitted too, to the amplitudes of one or more objects
(--object names as many images as there are objects in the frames, in their order): shift, rotation,
scale (of the mask over the object), defocus, astigmatism, coma, spherical, gain, zero_order (of the
device), waist, beam (of a Gaussian beam) and offset (counts). Each number has an error bar; a
warning says which of them the frames do not determine. `reconstruct`, `solve` and
`train --config.optics` take the whole result. --config in place of --workdir names a system that is
not trained yet.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Images
from jax_kdpr.interface import cli, frame_flags, system_flags
from jax_kdpr.lab.bench_file import distance_note
from jax_kdpr.lab.frames.calibration import (
    CALIBRATION,
    Calibration,
    calibrate,
    calibrate_optics,
    in_words,
    undetermined,
    write_calibration,
)
from jax_kdpr.lab.frames.measured import blank_image, coarseness
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.parameters import FITTED
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.optics.propagation import squares_note
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(frame_flags)
CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string("output", None, "Calibration file to write, .json.")
OBJECT = flags.DEFINE_string(
    "object",
    "",
    "Image file of the object, as data.dir takes them, but never rescaled; default: none in the "
    "beam. A folder of them with --fit.",
)
FIT = flags.DEFINE_list("fit", [], f"Parts of the optics to fit: {', '.join(FITTED)}.")
FLATNESS = flags.DEFINE_string(
    "flatness", "", "Measured phase over the object, radians (float NPY or TIFF), known to the fit."
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
# Without an object, the far field of the conjugate mask is that of the mask turned by 180 degrees.
HALF_TURNS = {"none": "both", "both": "none", "vertical": "horizontal", "horizontal": "vertical"}


def main(positional: list[str]) -> int:
    """Registers, or fits, one set of frames."""
    cli.require_no_more(positional, "quote the pattern of --input")
    names = _fitted()
    config = system_flags.read_system_config(CONFIG)
    bench = frame_flags.fill_from_bench(config)
    frames = list_frames(
        cli.require_given(frame_flags.INPUT, "frames without an object, or of that of --object")
    )
    output = Path(cli.require_given(OUTPUT, "the file to write, such as calibration.json"))
    json_files.require_own("--output", output, CALIBRATION, command="calibrate")
    run = _run(config)
    shots = run.snapshots
    counted = shots if OBJECT.value and not names else len(frames)
    if len(frames) < shots or counted % shots:
        raise InputError(
            f"--input: expected a multiple of {shots} frames, one a snapshot, got {len(frames)}"
        )
    setup = frame_flags.read_setup(frames, run)
    cli.make_folder("--output", output.parent)
    blank = blank_image(run.camera)
    if names:
        count = len(frames) // shots
        images = _objects(run, count) if OBJECT.value else jnp.stack([blank] * count)
        found = calibrate_optics(frames, setup, run, images, names)
    else:
        image = _objects(run, 1)[0] if OBJECT.value else blank
        if len(frames) > counted:
            print(f"--input: the first {counted} of {len(frames)} frames count; --fit takes all")
        elif len(frames) > shots:
            print(f"--input: the mean of {len(frames) // shots} frames of each shot counts")
        found = calibrate(
            frames[:counted],
            setup,
            run,
            image,
            rotation_range=ROTATION_RANGE.value,
            scale_range=SCALE_RANGE.value,
        )
    write_calibration(output, found)
    print(f"{in_words(found)}\nwritten: {output}")
    coarse = coarseness(setup._replace(geometry=found.geometry), run)
    if found.trusted and (said := _sign_note(found, config)):
        print(f"note: {said}")
    is_placed = found.trusted and not names
    told = [distance_note(bench, config, found.geometry.scale)] if is_placed else []
    if frame_flags.MASK_PIXELS.value == "square":
        told.append(squares_note(config.data.size, config.propagation))
    for warning in filter(None, (coarse, *told, *undetermined(found), found.doubt)):
        print(f"warning: {warning}", file=sys.stderr)
    return 0 if found.trusted else 1


def _sign_note(found: Calibration, config: Config) -> str:
    """Returns what the calibration leaves open of the mask's sign; empty if nothing."""
    if found.other_sign is not None and found.tells_sign is False:
        return (
            f"the mask of the other sign fits nearly as well ({found.other_sign:.3f}), with "
            "objects inverted; give an --object that is less even"
        )
    is_untold = found.tells_sign is None and not OBJECT.value and config.propagation.kind == "far"
    if found.tells_sign is False or is_untold:
        return (
            "a mask of the other sign gives this pattern with flip "
            f"{HALF_TURNS[found.geometry.flip]}, and objects inverted; where you do not know how "
            f"your camera stands, give --object{' that is less even' if OBJECT.value else ''}"
        )
    return ""


def _fitted() -> list[str]:
    """Returns the names of what is to be fitted.

    Raises:
        InputError: If a name is unknown or given twice, or nothing would read another flag.
    """
    names = FIT.value
    unknown = [name for name in names if name not in FITTED]
    if unknown or len(set(names)) < len(names):
        raise InputError(
            f"--fit: expected some of {', '.join(FITTED)}, each once, got {','.join(names)}"
        )
    if names:
        why = "--fit searches around --scale by itself"
        cli.refuse_given(("rotation_range", "scale_range"), why)
    elif FLATNESS.value:
        raise InputError("--flatness: is part of the optics, give --fit too, such as --fit defocus")
    return names


def _run(config: Config) -> Run:
    run = system_flags.read_system(config).on_one_device()
    if not FLATNESS.value:
        return run
    if config.aberrations.file:
        raise InputError(
            f"--flatness: the run has phases of its own, {config.aberrations.file!r}; add the two, "
            "and train for the sum"
        )
    return run.with_optics({"aberrations": {"file": str(Path(FLATNESS.value).resolve())}})


def _objects(run: Run, count: int) -> Images:
    return own_images(run, Path(OBJECT.value), flag="--object", count=count)


if __name__ == "__main__":
    cli.run(main)
