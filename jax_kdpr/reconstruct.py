"""Recovers objects from frames of a real camera: `python -m jax_kdpr.reconstruct`.

    python -m jax_kdpr.reconstruct --workdir RUN --input 'frames/*.tif' --output DIR \\
        --dark dark.tif --flat flat.tif --calibration calibration.json

Frames are corrected (dark, flat, bad pixels), resampled to the model's grid and scaled to its unit.
The place of the pattern comes from `jax_kdpr.calibrate` or from --centre, --rotate, --scale, --flip
and --transpose, in pixels of the raw frame; without any of them the pattern fills the frame,
upright. --gain auto scales each frame to the energy of a scene of modulus 1. Amplitude and complex
scenes need the counts a unit: those of the calibration, or a number.

Each object gives phase (radians) as .tif and .npy, a preview .png, and .npz with the spectral
estimate and the CDPs; --stack writes stacks instead. sheet.png shows the first objects in one
picture. results.json says how far to trust each object: `misfit`, which is
norm(abs(A x) - sqrt(y)) / norm(sqrt(y)), compares the object's pattern with the measured one. The
limit of the misfit is found on the run's validation scenes, or set by --limit; an object above it
gets a warning. The exit code is 1 if the median misfit is above its limit, if the frames fit far
better flipped, turned or transposed, or if the calibration is not to be trusted. A network that was
hardly trained has a large limit: look at `evaluate` first. A small misfit proves nothing for an
object beyond the run's phase range. --truth takes images of the objects, and adds PSNR, SSIM and
the rms error in radians.

--starts 16 recovers by a solver in place of the network: that of --refine, or 500 steps of
accelerated with a total variation of 0.02. --config in place of --workdir names optics without a
network, such as those of a mask file; a solver recovers there too. --pretrained NAME names a system
that came with the package; without --input it recovers the frames that came with it.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr.config.schema import OF_BENCH
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import shallow
from jax_kdpr.interface import cli, frame_flags, placement_flags, solver_flags, system_flags
from jax_kdpr.interface.solver_flags import Recovery
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.calibration import masks_digest
from jax_kdpr.lab.frames.measured import Setup, group_frames, measure_frames, narrowed
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.reading import Frame, list_frames
from jax_kdpr.lab.frames.reconstruction import Wanted, reconstruct_bench
from jax_kdpr.lab.frames.recovery import SOLVED
from jax_kdpr.runs import pretrained
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(frame_flags)
CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; default: RUN/reconstruction.")
flags.adopt_module_key_flags(placement_flags)
LIMIT = flags.DEFINE_float(
    "limit", None, "Largest misfit to trust; default: from the run.", lower_bound=0, upper_bound=1e6
)
flags.adopt_module_key_flags(solver_flags)
BATCH = flags.DEFINE_integer("batch", 32, "Objects at a time.", lower_bound=1, upper_bound=65536)
STACK = flags.DEFINE_bool("stack", False, "Write stacks instead of files for each object.")
RESUME = flags.DEFINE_bool("resume", False, "Go on where an earlier call stopped.")
TRUTH = flags.DEFINE_string(
    "truth",
    "",
    "Images of the objects, in the order of the frames, as data.dir takes them, but never "
    "rescaled; of complex scenes phase and amplitude by turns; or truth.npy of simulate_bench.",
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the run's data lie now, if they have moved.")
OF_RUN = "reconstruction"  # folder
RECORDED = ("input", "dark", "flat", "bad_pixels")  # flags


def main(positional: list[str]) -> int:
    """Reconstructs one set of frames."""
    cli.require_no_more(positional, "quote the pattern of --input")
    config = system_flags.read_system_config(CONFIG)
    if system_flags.PRETRAINED.value and not frame_flags.INPUT.value:
        placement_flags.take_example(pretrained.example(system_flags.PRETRAINED.value))
    bench = frame_flags.fill_from_bench(config)
    output = system_flags.output_folder(OUTPUT.value, OF_RUN)
    frames = _new_frames(output)
    run = system_flags.read_system(config, data_dir=DATA_DIR.value).on_one_device()
    recovery, limit = solver_flags.read_recovery(run), LIMIT.value
    run, starts = recovery.run, recovery.starts
    if starts:
        limit = SOLVED if limit is None else limit
        steps, solver = recovery.solver.steps, recovery.solver.solver
        print(f"by a solver: {steps} steps of {solver} from {starts} estimates of each object")
    groups = _groups(frames, run, output)
    setup, run, notes = placement_flags.read_placed(frames, run)
    solver_flags.require_usable(recovery._replace(run=run))
    truth = None
    if TRUTH.value:
        there, count = Path(TRUTH.value), len(groups)
        truth = own_images(run, there, flag="--truth", as_trained=True, count=count)
    next(measure_frames(groups[:1], setup, run))  # so that its errors show now
    settings = _settings(setup, recovery)
    rows = results.read_results(output, settings) if RESUME.value else []
    if limit is None:
        run.dataset  # noqa: B018  so that errors in the data show now
    cli.make_folder("--output", output)
    wanted = Wanted(
        output=output,
        batch_size=1 if starts else BATCH.value,  # a solver takes one after the other anyway
        stack=STACK.value,
        pitch=config.propagation.pitch or bench.modulator.mask_pitch or 0.0,
        truth=truth,
        rows=tuple(rows),
        settings=settings,
        notes=tuple(notes),
        placed=placement_flags.is_trusted(),
    )
    found, trusted = reconstruct_bench(
        groups, setup, run, wanted, refinement=recovery.refinement, limit=limit
    )
    print(results.in_words(found, run.camera.scene.kind))
    for line in results.warnings(found):
        print(f"warning: {line}", file=sys.stderr)
    print(f"written: {output}/{results.RESULTS_FILE}, {results.SHEET_FILE} and the objects")
    return 0 if trusted else 1


def _new_frames(output: Path) -> list[Frame]:
    """Returns the frames of --input, if their results may go to `output`."""
    if STACK.value and RESUME.value:
        raise InputError("--resume: a stack is written in one go; leave out one of the two")
    if (output / results.RESULTS_FILE).exists() and not RESUME.value:
        raise InputError(
            f"--output: {str(output)!r} holds results already; give another folder, or --resume"
        )
    frames = list_frames(cli.require_given(frame_flags.INPUT, "frames such as 'frames/*.tif'"))
    frame_flags.require_apart(output, frames)
    return frames


def _groups(frames: list[Frame], run: Run, output: Path) -> list[tuple[Frame, ...]]:
    """Returns the frames of each object; refuses to replace files of results."""
    if LIMIT.value is not None and DATA_DIR.value and not (TRUTH.value and run.in_radians):
        raise InputError("--data_dir: nothing would read it beside --limit; leave out one of them")
    groups = group_frames(frames, run.snapshots)
    if not RESUME.value:
        names = results.STACKED if STACK.value else [group[0].name for group in groups]
        results.require_new(output, names)
    return groups


def _settings(setup: Setup, recovery: Recovery) -> dict[str, Any]:
    """Returns the settings that results.json records and --resume compares."""
    run, refinement, starts = recovery
    return {
        "workdir": str(run.workdir) if run.is_trained else "",
        "checkpoint": run.digest,
        "masks": masks_digest(run),
        "geometry": setup.geometry._asdict(),
        "window": list(narrowed(setup, run).window),
        **{"sampling": setup.sampling, "pixel_side": setup.pixel_side, "offset": setup.offset},
        "optics": {name: shallow(getattr(run.config, name)) for name in (*OF_BENCH, "sensor")},
        "gain": setup.counts_per_unit or "auto",
        **{name: flags.FLAGS[name].value or "" for name in RECORDED},
        "limit": LIMIT.value,
        **{"refine": refinement.steps, "refine_with": refinement.solver},
        **({"starts": starts} if starts else {}),
        "refine_tv": refinement.tv,
        **({"truth": TRUTH.value} if TRUTH.value else {}),
    }


if __name__ == "__main__":
    cli.run(main)
