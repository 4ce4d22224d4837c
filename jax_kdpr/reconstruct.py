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
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import bench_flags, cli, placement_flags, refine_flags
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.job import reconstruct_bench
from jax_kdpr.lab.frames.loaded import own_truth
from jax_kdpr.lab.frames.measured import Setup, group_frames, measure_frames
from jax_kdpr.lab.frames.reading import Frame, list_frames
from jax_kdpr.lab.frames.sheet import SHEET_FILE
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import Run, load_run

flags.adopt_module_key_flags(bench_flags)
OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; default: RUN/reconstruction.")
flags.adopt_module_key_flags(placement_flags)
LIMIT = flags.DEFINE_float(
    "limit", None, "Largest misfit to trust; default: from the run.", lower_bound=0, upper_bound=1e6
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
RECORDED = ("input", "dark", "flat", "bad_pixels", "limit")  # flags


def main(positional: list[str]) -> int:
    """Reconstructs one set of frames."""
    cli.require_no_more(positional, "quote the pattern of --input")
    workdir = Path(bench_flags.require(bench_flags.WORKDIR, "a run folder"))
    lengths = bench_flags.fill_from_bench(workdir)
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "reconstruction"
    refinement = refine_flags.read_refinement()
    frames = _new_frames(output)
    kind = bench_flags.frame_kind(frames)
    window = bench_flags.read_window(kind.shape)
    run = load_run(workdir, data_dir=DATA_DIR.value).on_one_device()
    groups = _groups(frames, run, output)
    geometry, gain, notes = placement_flags.read_placement(run, window, lengths)
    notes += bench_flags.notes(run, geometry, window)
    references = bench_flags.read_references(kind)
    truth = own_truth(run, Path(TRUTH.value), len(groups)) if TRUTH.value else None
    place = partial(bench_flags.make_setup, run, kind, references, window, gain)
    setup = place(geometry)
    next(measure_frames(groups[:1], setup, run))  # what is wrong with it is said now
    settings = _settings(run, setup, refinement)
    rows = results.read_results(output, settings) if RESUME.value else []
    if LIMIT.value is None:
        run.dataset  # noqa: B018  what is wrong with the data is said now
    cli.make_folder("--output", output)
    found, trusted = reconstruct_bench(
        *(groups, setup, run, output),
        refinement=refinement,
        limit=LIMIT.value,
        spread=references.spread,
        **{"shape": kind.shape, "make_setup": place, "batch_size": BATCH.value},
        **{"notes": notes, "pitch": lengths.pitch, "stack": STACK.value},
        **{"settings": settings, "truth": truth, "rows": rows},
    )
    print(results.in_words(found, run.camera.scene.kind, scored=truth is not None))
    for line in results.warnings(found):
        print(f"warning: {line}", file=sys.stderr)
    print(f"written: {output}/{results.RESULTS_FILE}, {SHEET_FILE} and the objects")
    return 0 if trusted else 1


def _new_frames(output: Path) -> list[Frame]:
    """The frames of --input, where the results of them may go to `output`."""
    if STACK.value and RESUME.value:
        raise InputError("--resume: a stack is written in one go; leave out one of the two")
    if (output / results.RESULTS_FILE).exists() and not RESUME.value:
        raise InputError(
            f"--output: {str(output)!r} holds results already; give another folder, or --resume"
        )
    frames = list_frames(bench_flags.require(bench_flags.INPUT, "frames such as 'frames/*.tif'"))
    bench_flags.require_apart(output, frames)
    return frames


def _groups(frames: list[Frame], run: Run, output: Path) -> list[tuple[Frame, ...]]:
    """Those of each object, none of whose files is there yet."""
    if LIMIT.value is not None and DATA_DIR.value and not (TRUTH.value and run.in_radians):
        raise InputError("--data_dir: nothing would read it beside --limit; leave out one of them")
    groups = group_frames(frames, run.snapshots)
    if not RESUME.value:
        names = results.STACKED if STACK.value else [group[0].name for group in groups]
        results.require_new(output, (*names, Path(SHEET_FILE).stem))
    return groups


def _settings(run: Run, setup: Setup, refinement: Refinement) -> dict[str, Any]:
    """What results.json records, and --resume compares."""
    return {
        "workdir": str(run.workdir),
        "checkpoint": run.digest,
        "geometry": setup.geometry._asdict(),
        "window": list(setup.window),
        **{"sampling": setup.sampling, "pixel_side": setup.pixel_side},
        "gain": setup.counts_per_unit or "auto",
        **{name: flags.FLAGS[name].value for name in RECORDED},
        **{"refine": refinement.steps, "refine_with": refinement.solver},
        "refine_tv": refinement.tv,
        **({"truth": TRUTH.value} if TRUTH.value else {}),
    }


if __name__ == "__main__":
    cli.run(main)
