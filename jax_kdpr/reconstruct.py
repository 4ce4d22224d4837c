"""Recovers objects from frames of a real camera: `python -m jax_kdpr.reconstruct`.

    python -m jax_kdpr.reconstruct --workdir RUN --input 'frames/*.tif' --output DIR \\
        --dark dark.tif --flat flat.tif --calibration calibration.json

Frames are corrected (dark, flat, bad pixels), resampled to the model's grid and scaled to its unit.
The geometry comes from `jax_kdpr.calibrate` or from --centre, --rotate, --scale, --flip and
--transpose, in pixels of the raw frame; without any the pattern fills the frame, upright.

--gain auto scales each frame to the energy that a scene of modulus 1 has (h * w for ideal masks);
amplitude and complex scenes have no such energy and take the counts a unit of the calibration. A
number is counts a unit (of a model sample).

Each object gives phase (radians) as .tif and .npy, a preview .png, and .npz with the spectral
estimate and the CDPs; --stack writes stacks instead. results.json says how far to trust each one:
`misfit`, norm(abs(A x) - sqrt(y)) / norm(sqrt(y)), of the recovered object's pattern against the
measured one. Its limit comes from the run itself: the 99th percentile of the misfits of its
simulated validation scenes, with the read noise that several dark frames show, times 1.2; the
median over all frames has a tighter limit, found in the same way. What exceeds them gets a
warning, here and in results.json; where the median does, the exit code is 1, as where the first
frames fit far better flipped, turned or transposed. A network that was
hardly trained has large misfits of its own, and so a wide limit: look at `evaluate` first.
--limit sets the limit by hand, where the run's data are not at hand. Trust proves nothing for an
object beyond the run's phase range: another within it can explain the same pattern.

sheet.png has all objects in one picture, green where they are trusted. --truth, images of the
objects, adds PSNR, SSIM and the rms error in radians to each row.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Images, RawImages
from jax_kdpr.interface import bench_flags, cli, refine_flags
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.calibration import calibration_notes, read_calibration
from jax_kdpr.lab.frames.geometry import (
    FLIPS,
    Geometry,
    Window,
    check_geometry,
    default_geometry,
    grid_window,
    in_window,
)
from jax_kdpr.lab.frames.loaded import own_images
from jax_kdpr.lab.frames.measured import Setup, group_frames, measure_frames, noise_sigma
from jax_kdpr.lab.frames.orientation import orientation_warning
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.lab.frames.reconstruction import reconstruct
from jax_kdpr.lab.frames.recovery import (
    Recover,
    Simulated,
    make_recover,
    misfit_limit,
    simulated_misfits,
)
from jax_kdpr.lab.frames.sheet import SHEET_FILE, write_sheet
from jax_kdpr.runs.run import Run, load_run, run_keys

LIMIT_IMAGES = 256  # validation images that the limit comes from, at most

flags.adopt_module_key_flags(bench_flags)
OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; default: RUN/reconstruction.")
CALIBRATION = flags.DEFINE_string("calibration", "", "File that jax_kdpr.calibrate wrote.")
CENTRE = flags.DEFINE_string("centre", "", "Y,X of the zero frequency; default: the middle.")
ROTATE = flags.DEFINE_float("rotate", None, "Rotation of the pattern on the camera, degrees.")
SCALE = flags.DEFINE_float(
    "scale", None, "Camera pixels in a model sample.", lower_bound=0.1, upper_bound=1000.0
)
FLIP = flags.DEFINE_enum("flip", None, FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool("transpose", None, "Whether it swaps rows and columns (first).")
GAIN = flags.DEFINE_string("gain", "auto", "auto, or counts a unit.")
LIMIT = flags.DEFINE_float(
    "limit",
    None,
    "Largest misfit to trust; default: from the run.",
    lower_bound=0.0,
    upper_bound=1000000.0,
)
flags.adopt_module_key_flags(refine_flags)
BATCH = flags.DEFINE_integer("batch", 32, "Objects at a time.", lower_bound=1, upper_bound=65536)
STACK = flags.DEFINE_bool("stack", False, "Write stacks instead of files for each object.")
RESUME = flags.DEFINE_bool("resume", False, "Go on where an earlier call stopped.")
TRUTH = flags.DEFINE_string(
    "truth",
    "",
    "Images of the objects, in the order of the frames, as data.dir takes them, but never "
    "stretched; of complex scenes phase and amplitude by turns; or truth.npy of simulate_bench.",
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the run's data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Reconstructs one set of frames."""
    cli.require_no_more(positional, "quote the pattern of --input")
    workdir = Path(bench_flags.require(bench_flags.WORKDIR, "a run folder"))
    lengths = bench_flags.fill_from_bench(workdir)
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "reconstruction"
    refinement = refine_flags.read_refinement()
    if STACK.value and RESUME.value:
        raise InputError("--resume: a stack is written in one go; leave out one of the two")
    if (output / results.RESULTS_FILE).exists() and not RESUME.value:
        raise InputError(
            f"--output: {str(output)!r} holds results already; give another folder, or --resume"
        )
    frames = list_frames(bench_flags.require(bench_flags.INPUT, "frames such as 'frames/*.tif'"))
    bench_flags.require_apart(output, frames)
    kind = bench_flags.frame_kind(frames)
    window = bench_flags.read_window(kind.shape)
    run = load_run(workdir, data_dir=DATA_DIR.value).on_one_device()
    if LIMIT.value is not None and DATA_DIR.value and not (TRUTH.value and run.in_radians):
        raise InputError("--data_dir: nothing would read it beside --limit; leave out one of them")
    groups = group_frames(frames, run.snapshots)
    if not RESUME.value:
        names = results.STACKED if STACK.value else [group[0].name for group in groups]
        results.require_new(output, (*names, Path(SHEET_FILE).stem))
    guess = default_geometry(
        window,
        run.sensor,
        SCALE.value or lengths.scale,
        rotation=ROTATE.value or 0.0,
        flip=FLIP.value or "none",
        transpose=bool(TRANSPOSE.value),
    )
    geometry, gain, notes = _bench(run, guess)
    coarse = bench_flags.check_sampling(run, geometry, window)
    notes += [coarse] if coarse else []
    if not bench_flags.DARK.value:
        notes.append("no --dark: the camera's offset counts as light")
    references = bench_flags.read_references(kind)
    truth = _truth(run, len(groups))
    setup = _make_setup(run, kind, references, window, geometry, gain)
    first = next(measure_frames(groups[:1], setup, run))  # what is wrong with it is said now
    settings = {
        "workdir": str(workdir),
        "input": bench_flags.INPUT.value,
        "checkpoint": run.digest,
        "geometry": geometry._asdict(),
        "window": list(setup.window),
        "sampling": setup.sampling,
        "pixel_side": setup.pixel_side,
        "gain": gain or "auto",
        "dark": bench_flags.DARK.value,
        "flat": bench_flags.FLAT.value,
        "bad_pixels": bench_flags.BAD_PIXELS.value,
        "refine": refinement.steps,
        "refine_with": refinement.solver,
        "refine_tv": refinement.tv,
        "limit": LIMIT.value,
    }
    if TRUTH.value:
        settings["truth"] = TRUTH.value
    rows = results.read_results(output, settings) if RESUME.value else []
    recover = make_recover(run, refinement=refinement)
    images = _validation_images(run)
    cli.make_folder("--output", output)
    dark = references.dark
    sigma = noise_sigma(dark.spread if dark else None, setup, run, first.counts)
    simulated = _simulated(run, recover, images, sigma)

    def limit(count: int) -> float:
        return misfit_limit(simulated, count) if simulated else LIMIT.value or 0.0

    turned = orientation_warning(
        groups,
        setup,
        run,
        recover,
        batch_size=BATCH.value,
        shape=kind.shape,
        make_setup=lambda geometry: _make_setup(run, kind, references, window, geometry, gain),
        limit=limit,
    )
    found = reconstruct(
        groups,
        setup,
        run,
        recover,
        output,
        batch_size=BATCH.value,
        limit=limit,
        settings=settings,
        notes=(*notes, turned) if turned else tuple(notes),
        stack=STACK.value,
        pitch=lengths.pitch,
        truth=truth,
        rows=tuple(rows),
    )
    print(
        f"{len(found['frames'])} object(s), median misfit {found['median_misfit']:.3f} (limit "
        f"{found['median_misfit_limit']:.3f})"
    )
    write_sheet(
        output,
        found["frames"],
        scene=run.camera.scene,
        pitch=lengths.pitch,
        stack=STACK.value,
    )
    if truth is not None:
        print(_against_truth(found["frames"], run))
    for line in found["warnings"]:
        print(f"warning: {line}", file=sys.stderr)
    flagged = [row for row in found["frames"] if row["warning"]]
    if flagged:
        print(
            f"warning: {len(flagged)} of {len(found['frames'])} objects; first "
            f"{flagged[0]['name']}: {flagged[0]['warning']}",
            file=sys.stderr,
        )
    print(f"written: {output}/{results.RESULTS_FILE}, {SHEET_FILE} and the objects")
    return 1 if turned or found["median_misfit"] > found["median_misfit_limit"] else 0


def _truth(run: Run, count: int) -> Images | None:
    """The images of --truth, one for each object."""
    if not TRUTH.value:
        return None
    images = own_images(run, Path(TRUTH.value), flag="--truth", as_trained=True)
    if len(images) != count:
        raise InputError(
            f"--truth: expected {count} images, one for each object in the order of the frames, "
            f"got {len(images)}"
        )
    return images


def _against_truth(rows: list[dict[str, Any]], run: Run) -> str:
    scored = [row for row in rows if "psnr" in row]
    psnr, ssim, rms = (
        float(np.mean([row[name] for row in scored])) for name in ("psnr", "ssim", "rms")
    )
    unit = "" if run.camera.scene["kind"] == "amplitude" else " rad, piston removed"
    return (
        f"against --truth, mean of {len(scored)}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}, rms error "
        f"over the object {rms:.3f}{unit}"
    )


def _make_setup(
    run: Run,
    kind: bench_flags.FrameKind,
    references: bench_flags.References,
    window: Window,
    geometry: Geometry,
    gain: float | None,
) -> Setup:
    """The bench in the part of the frames that a geometry needs."""
    shape = window.height // window.bin, window.width // window.bin
    check_geometry(in_window(geometry, window), shape, run.sensor)
    used = grid_window(window, geometry, run.sensor)
    correction = bench_flags.correct_with(references, kind, used)
    sampling, side = bench_flags.SAMPLING.value, bench_flags.pixel_side(run)
    return Setup(correction, used, geometry, sampling, side, gain)


def _bench(run: Run, guess: Geometry) -> tuple[Geometry, float | None, list[str]]:
    """Geometry, counts a unit and warnings, from the flags or the calibration."""
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
        geometry, notes = (
            calibration.geometry,
            calibration_notes(calibration, run, CALIBRATION.value),
        )
        if gain is None and run.camera.scene["kind"] != "phase":
            gain = calibration.counts_per_unit
    else:
        centre = bench_flags.numbers(CENTRE, "Y,X") or (guess.centre_y, guess.centre_x)
        if not CENTRE.value:
            notes.append("no --calibration, no --centre: the pattern is taken to be in the middle")
        geometry = guess._replace(centre_y=centre[0], centre_x=centre[1])
    if gain is None and run.camera.scene["kind"] != "phase":
        raise InputError(
            f"--gain: the energy of {run.camera.scene['kind']} scenes is not known; give "
            "--calibration or the counts a unit"
        )
    return geometry, gain, notes


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


def _validation_images(run: Run) -> RawImages | None:
    """What the limit comes from; none if it is given."""
    if LIMIT.value is not None:
        return None
    return run.dataset.validation[:LIMIT_IMAGES]


def _simulated(
    run: Run, recover: Recover, images: RawImages | None, sigma: np.ndarray
) -> Simulated | None:
    """Misfits of the run's own scenes; None without any."""
    if images is None:
        return None
    return simulated_misfits(
        run,
        recover,
        images,
        noise_sigma=sigma,
        batch_size=BATCH.value,
        key=run_keys(run.config.seed).evaluation,
    )


if __name__ == "__main__":
    cli.run(main)
