"""Teaches a trained system its own bench: `python -m jax_kdpr.adapt`.

    python -m jax_kdpr.export_mask --workdir RUN --format slm --teacher 9 --output masks
    python -m jax_kdpr.adapt --workdir RUN --input 'frames/*.tif' --shots 9 --blank 'blank/*.tif' \\
        --dark dark.tif --calibration calibration.json --output RUN2

No bench equals the simulated one, and on a bench the true objects are not known. But nine shots of
an object through nine known masks determine it without any training. So each object is taken nine
times: through the run's own mask, and through eight further ones, those of `export_mask --teacher
9` or of --masks. The object is recovered from all its shots. Then filter and network are fine-tuned
to recover it from the first shot alone; simulated scenes in the same batches keep the system from
forgetting. A share of the objects is held back for validation. The state with the best score on
these is kept, which may be the run as it was.

--blank takes the same shots of the empty beam. They tell what no calibration knows of the bench:
amplitude and wavefront of the light pixel by pixel and, with --fit, the modulator's crosstalk and
gain.

--output is a run folder like any other: `evaluate`, `reconstruct`, `export_mask` take it. It also
has adaptation.json (each object's misfit, which objects were left out, what was gained),
objects.npy (the images recovered from all shots) and calibration.json (the given calibration
without its optics, which the run itself has now).

--shots 1 needs no further shots. It asks that the recovered object explains its shot, and that a
shifted object is recovered at its new place. On a bench that is not the model's it learns wrong
objects, and a warning says so.

The same command resumes an adaptation that was interrupted.
"""

import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import cli, frame_flags, placement_flags, system_flags
from jax_kdpr.lab.adaptation import record
from jax_kdpr.lab.adaptation.fine_tuning import ROUND, adapted_config, prepare, require_folder
from jax_kdpr.lab.adaptation.light import OF_MODULATOR, Bench, see_bench
from jax_kdpr.lab.frames.calibration import Calibration, masks_digest, read_calibration
from jax_kdpr.lab.frames.measured import group_frames, measure_frames
from jax_kdpr.lab.frames.reading import Frame, iterate_frames, list_frames
from jax_kdpr.lab.masks.further import with_further
from jax_kdpr.optics.beam import Plane
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
    "Files of the further masks, or patterns of their names, in order, as of masks.file; default: "
    "those of export_mask --teacher.",
)
BLANK = flags.DEFINE_string(
    "blank", "", "Frames of the empty beam, one through each mask, as for an object."
)
FIT = flags.DEFINE_list(
    "fit",
    ["crosstalk", "gain"],
    f"Of the modulator, to find from --blank too: {', '.join(OF_MODULATOR)}; --fit= for none.",
)
STEPS = flags.DEFINE_integer(
    "steps",
    400,
    f"Fine-tuning steps; {ROUND} a round.",
    lower_bound=ROUND,
    upper_bound=10**9,
)
RATE = flags.DEFINE_float(
    "rate", 0.5, "Factor on the learning rates of the run.", lower_bound=1e-6, upper_bound=100.0
)
HOLD_BACK = flags.DEFINE_float(
    "hold_back", 0.2, "Share of the objects to validate on.", lower_bound=0.01, upper_bound=0.9
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the run's data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Adapts one run."""
    cli.require_no_more(positional, "quote the pattern of --input")
    system_flags.take_pretrained()
    if not system_flags.WORKDIR.value:
        raise InputError("--workdir: the run folder of a trained system is needed")
    workdir = Path(system_flags.WORKDIR.value)
    output = Path(cli.require_given(OUTPUT, "the folder of the new run"))
    frame_flags.fill_from_bench(run_folder.read_config(workdir))
    frames = list_frames(cli.require_given(frame_flags.INPUT, "frames such as 'shots/*.tif'"))
    frame_flags.require_apart(output, frames)
    groups = group_frames(frames, SHOTS.value)
    record.require_enough(len(groups), HOLD_BACK.value)
    run = load_run(workdir, data_dir=DATA_DIR.value).on_one_device()
    begun = require_folder(run, output)
    blank = _check_flags(run)
    setup, run, notes = placement_flags.read_placed(frames, run)
    calibration = _own_calibration(run)
    for note in notes:
        print(f"note: {note}")
    with TemporaryDirectory() as folder:  # for planes; the new run keeps copies
        bench = Bench(run, {}, setup)
        if blank:
            bench = see_bench(
                run,
                setup,
                blank,
                all_shots=_with_all_shots,
                mask_side=frame_flags.mask_side,
                fit=FIT.value,
                folder=Path(folder),
                begun=begun,
            )
        rounds = -(-STEPS.value // ROUND)
        config = adapted_config(bench.run, bench.optics, rounds=rounds, rate=RATE.value)
        many = _with_all_shots(bench.run)
        measured = list(measure_frames(groups, bench.setup, many))
        lessons = record.teach(bench.run, many, measured)
        learned, held_back = lessons.split(HOLD_BACK.value)
        digest = _digest(lessons.digest, masks_digest(many), blank)
        training = prepare(run, config, output, learned, held_back, digest)
        print(lessons.in_words(len(learned.intensity), len(held_back.intensity)))
        if doubt := lessons.doubt():
            print(f"warning: {doubt}", file=sys.stderr)
        rows = loop.carry_out(training)
    found = {
        "workdir": str(workdir.resolve()),
        "checkpoint": run.digest,
        "input": frame_flags.INPUT.value,
        **{"blank": BLANK.value, "fit": FIT.value if blank else []},
        "calibration": placement_flags.CALIBRATION.value,
        "counts_per_unit": bench.setup.counts_per_unit,
        **{"masks": MASKS.value, "steps": rounds * ROUND, "rate": RATE.value},
    }
    print(record.write_record(output, lessons, rows, found))
    if doubt := record.doubt_of_one_shot(lessons, rows):
        print(f"warning: {doubt}", file=sys.stderr)
    if calibration is not None:
        record.write_own_calibration(output, calibration, bench.setup)
    print(f"written: {output}, a run folder; next: python -m jax_kdpr.evaluate --workdir {output}")
    return 0


def _own_calibration(run: Run) -> Calibration | None:
    """Returns the calibration of --calibration, if given; refuses one that is for other masks.

    It also refuses one that is not to be trusted, unless --blank is given.

    Raises:
        InputError: If the calibration is refused; the message says what to do.
    """
    if not placement_flags.CALIBRATION.value:
        return None
    given = read_calibration(Path(placement_flags.CALIBRATION.value))
    masks = masks_digest(run)
    if given.masks != masks:
        raise InputError(
            f"--calibration: expected one of this run's masks (digest {masks[:12]}), got one of "
            f"others ({given.masks[:12]}); calibrate with --workdir {system_flags.WORKDIR.value}, "
            "on frames through its mask"
        )
    if given.has_wrong_sign:
        raise InputError(f"--calibration: says of itself: {given.doubt}")
    if not given.trusted and not BLANK.value:
        raise InputError(
            "--calibration: says of itself that it is not to be trusted; give --blank, which finds "
            "the light, or calibrate with --fit, such as defocus,waist"
        )
    return given


def _check_flags(run: Run) -> tuple[Frame, ...]:
    """Refuses flags that do not go together; returns the frames of --blank.

    Raises:
        InputError: If there are such flags.
    """
    if BLANK.value and SHOTS.value == run.snapshots:
        raise InputError(
            "--blank: the run's own shots alone do not determine the light; take those of --shots "
            "9, or leave it out"
        )
    if FIT.present and FIT.value and not BLANK.value:
        raise InputError("--fit: what is fitted to is --blank; give it, or leave --fit out")
    names = FIT.value
    if set(names) - set(OF_MODULATOR) or len(set(names)) < len(names):
        raise InputError(
            f"--fit: expected some of {', '.join(OF_MODULATOR)}, each once, got {','.join(names)}; "
            "what is of the light --blank finds by itself"
        )
    _with_all_shots(run)  # so that errors in the masks show now
    frames = list_frames(BLANK.value, flag="--blank") if BLANK.value else []
    if len(frames) not in (0, SHOTS.value):
        raise InputError(
            f"--blank: expected {SHOTS.value} frames, as of an object, got {len(frames)}"
        )
    frame_flags.require_apart(Path(OUTPUT.value or ""), frames)
    return tuple(frames)


def _digest(frames: str, masks: str, blank: tuple[Frame, ...]) -> str:
    """Returns a digest of the lessons' sources and split, which a resumed adaptation must share."""
    empty = [Plane.of(np.asarray(pixels, np.float32)).digest for pixels in iterate_frames([*blank])]
    asked = [frames, masks, *empty, *(FIT.value if blank else []), HOLD_BACK.value]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _with_all_shots(run: Run) -> Run:
    return with_further(run, SHOTS.value, MASKS.value, flag="--shots")


if __name__ == "__main__":
    cli.run(main)
