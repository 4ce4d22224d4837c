"""Teaches a trained system its own bench: `python -m jax_kdpr.adapt`.

    python -m jax_kdpr.export_mask --workdir RUN --format slm --teacher 9 --output masks
    python -m jax_kdpr.adapt --workdir RUN --input 'frames/*.tif' --shots 9 --blank 'blank/*.tif' \\
        --dark dark.tif --calibration calibration.json --output RUN2

No bench is the one that was simulated, and on it nobody knows what an object is. But nine shots of
an object through nine known masks determine it without any training. So each object is taken nine
times: through the run's own mask, and through eight further ones, those of `export_mask --teacher
9`, or of --masks. From all shots of each it is recovered, and filter and network are fine-tuned to
recover it from the first alone; simulated scenes in the same batches see to it that nothing is
forgotten. A share of the objects is held back, and the best of these counts, the run as it was
among them.

--blank, the same shots of the empty beam, tells amplitude and wavefront of the light pixel by
pixel: what of the bench no calibration knows. --fit crosstalk,gain finds what of the modulator
explains these shots best.

--output is a run folder like any other: `evaluate`, `reconstruct`, `export_mask` take it. Beside it
has adaptation.json (each object's misfit, which were left out or held back, what was gained),
objects.npy (the images that the shots gave) and calibration.json, the one given without the optics,
which are the run's now.

--shots 1 needs no further shots, and learns less: it asks that what is recovered explains its shot,
and that a shifted object is recovered where it is.

The same command goes on where it was interrupted.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import jax.numpy as jnp
import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import cli, frame_flags, placement_flags, system_flags
from jax_kdpr.lab.adaptation import record
from jax_kdpr.lab.adaptation.fine_tuning import ROUND, adapted_config, prepare
from jax_kdpr.lab.adaptation.objects import (
    FITTED,
    fit_device,
    light_options,
    recover_light,
    require_explained,
)
from jax_kdpr.lab.frames.calibration import masks_digest, read_calibration
from jax_kdpr.lab.frames.measured import (
    Measured,
    Setup,
    group_frames,
    measure_frames,
    snapshot_energy,
)
from jax_kdpr.lab.frames.reading import Frame, list_frames
from jax_kdpr.lab.masks.further import with_further
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run, load_run
from jax_kdpr.training import loop

flags.adopt_module_key_flags(frame_flags)
OUTPUT = flags.DEFINE_string("output", None, "Run folder of the new run.")
flags.adopt_module_key_flags(placement_flags)
SHOTS = flags.DEFINE_integer(
    "shots",
    9,
    "Frames of each object, which follow each other by name: the run's own masks first.",
    lower_bound=1,
    upper_bound=1000,
)
MASKS = flags.DEFINE_list(
    "masks",
    [],
    "Files of the further masks, in order, as of masks.file; default: those of export_mask "
    "--teacher.",
)
BLANK = flags.DEFINE_string(
    "blank", "", "Frames of the empty beam, as many as of an object, through the same masks."
)
FIT = flags.DEFINE_list(
    "fit", [], f"What of the modulator to find from --blank too: {', '.join(FITTED)}."
)
STEPS = flags.DEFINE_integer(
    "steps", 400, f"Of the fine-tuning; {ROUND} a round.", lower_bound=ROUND, upper_bound=10**9
)
RATE = flags.DEFINE_float(
    "rate", 0.5, "Learning rates, over those of the run.", lower_bound=1e-6, upper_bound=100.0
)
HOLD_BACK = flags.DEFINE_float(
    "hold_back", 0.2, "Share of the objects to validate on.", lower_bound=0.01, upper_bound=0.9
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the run's data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Adapts one run."""
    cli.require_no_more(positional, "quote the pattern of --input")
    if not system_flags.WORKDIR.value:
        raise InputError("--workdir: the run folder of a trained system is needed")
    workdir = Path(system_flags.WORKDIR.value)
    output = Path(frame_flags.require(OUTPUT, "the folder of the new run"))
    frame_flags.fill_from_bench(run_folder.read_config(workdir))
    frames = list_frames(frame_flags.require(frame_flags.INPUT, "frames such as 'shots/*.tif'"))
    frame_flags.require_apart(output, frames)
    groups = group_frames(frames, SHOTS.value)
    record.require_enough(len(groups), HOLD_BACK.value)
    run = load_run(workdir, data_dir=DATA_DIR.value).on_one_device()
    _check_flags(run)
    setup, run, notes = placement_flags.read_placed(frames, run)
    _require_own_calibration(run)
    for note in notes:
        print(f"note: {note}")
    with TemporaryDirectory() as folder:  # of planes that the new run keeps copies of
        known, optics, setup = _known_light(run, setup, Path(folder))
        rounds = -(-STEPS.value // ROUND)
        config = adapted_config(known, optics, rounds=rounds, rate=RATE.value)
        lessons = _teach(known, groups, setup)
        learned, held_back = lessons.split(HOLD_BACK.value)
        training = prepare(run, config, output, learned, held_back, lessons.digest)
        print(lessons.in_words(len(learned.intensity), len(held_back.intensity)))
        rows = loop.carry_out(training)
    found = {
        "workdir": str(workdir.resolve()),
        "checkpoint": run.digest,
        "input": frame_flags.INPUT.value,
        **{
            "blank": BLANK.value,
            "fit": FIT.value,
            "calibration": placement_flags.CALIBRATION.value,
        },
        **{"masks": MASKS.value, "steps": rounds * ROUND, "rate": RATE.value},
    }
    print(record.write_record(output, lessons, rows, found))
    if placement_flags.CALIBRATION.value:
        given = read_calibration(Path(placement_flags.CALIBRATION.value))
        record.write_own_calibration(output, given, setup.counts_per_unit)
    print(f"written: {output}, a run folder; next: python -m jax_kdpr.evaluate --workdir {output}")
    return 0


def _require_own_calibration(run: Run) -> None:
    """Refuses a calibration that is not to be trusted, or of other masks.

    Raises:
        InputError: Which, and what to do.
    """
    if not placement_flags.CALIBRATION.value:
        return
    given = read_calibration(Path(placement_flags.CALIBRATION.value))
    remedy = f"calibrate with --workdir {system_flags.WORKDIR.value}, on frames through its mask"
    if given.masks and given.masks != masks_digest(run):
        raise InputError(
            f"--calibration: expected one of this run's masks (digest {masks_digest(run)[:12]}), "
            f"got one of others ({given.masks[:12]}); {remedy}"
        )
    if not given.trusted:
        raise InputError(f"--calibration: says of itself that it is not to be trusted; {remedy}")


def _known_light(run: Run, setup: Setup, folder: Path) -> tuple[Run, dict, Setup]:
    """The run on the bench that the empty beam shows, the options that say so, and the setup.

    Of a bench whose frames do not all hold the same light, the empty beam gives the unit too.
    """
    if not BLANK.value:
        return run, {}, setup
    frames = list_frames(BLANK.value, flag="--blank")
    if len(frames) != SHOTS.value:
        raise InputError(
            f"--blank: expected {SHOTS.value} frames, as of an object, got {len(frames)}"
        )
    optics: dict = {}

    def seen() -> tuple[Run, Measured]:
        """The run of all shots on the bench so far, and those of the empty beam."""
        many = with_further(run.with_optics(optics), SHOTS.value, MASKS.value)
        (blank,) = measure_frames([tuple(frames)], setup, many)
        return many, blank

    if FIT.value:
        many, blank = seen()
        optics = {"device": fit_device(many, jnp.asarray(blank.intensity), FIT.value)}
        said = ", ".join(f"{name} {value:.3g}" for name, value in optics["device"].items())
        print(f"--fit: {said}")
    many, blank = seen()
    light = recover_light(many, jnp.asarray(blank.intensity))
    require_explained(many, light)
    print(
        f"--blank: amplitude {light.amplitude.min():.2f} to {light.amplitude.max():.2f} and "
        f"wavefront of {np.std(light.phase):.2f} rad rms over what is known (misfit "
        f"{light.misfit:.3f})"
    )
    optics |= light_options(many, light, folder)
    run = run.with_optics(optics)
    if setup.counts_per_unit is None and not run.camera.knows_light:
        energies = snapshot_energy(with_further(run, SHOTS.value, MASKS.value))
        setup = setup._replace(counts_per_unit=sum(blank.counts) / float(energies.sum()))
    return run, optics, setup


def _check_flags(run: Run) -> None:
    """Refuses what does not go together.

    Raises:
        InputError: Which.
    """
    if BLANK.value and SHOTS.value == run.snapshots:
        raise InputError(
            "--blank: one shot does not determine the light; take those of --shots 9, or leave it"
        )
    if FIT.value and not BLANK.value:
        raise InputError("--fit: what is fitted to is --blank; give it, or leave --fit out")
    unknown = [name for name in FIT.value if name not in FITTED]
    if unknown or len(set(FIT.value)) < len(FIT.value):
        raise InputError(
            f"--fit: expected some of {', '.join(FITTED)}, each once, got {','.join(FIT.value)}"
        )
    with_further(run, SHOTS.value, MASKS.value)  # what is wrong with them is said now


def _teach(run: Run, groups: list[tuple[Frame, ...]], setup: Setup) -> record.Taught:
    """The shots of all objects, and what these were."""
    many = with_further(run, SHOTS.value, MASKS.value)
    measured: list[Measured] = list(measure_frames(groups, setup, many))
    return record.teach(many, measured, own=run.snapshots)


if __name__ == "__main__":
    cli.run(main)
