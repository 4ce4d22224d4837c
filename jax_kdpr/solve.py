"""Recovers test scenes without a network: `python -m jax_kdpr.solve --workdir RUN`.

Classical solvers get the same CDPs of the run's masks, its noise included, as the network does:

    python -m jax_kdpr.solve --workdir runs/e2e --solver raar,hio --steps 200
    python -m jax_kdpr.solve --workdir runs/e2e --start network --solver error_reduction
    python -m jax_kdpr.solve --workdir runs/teacher --start random --restarts 5
    python -m jax_kdpr.solve --config CONFIG --config.masks.start=file --config.masks.file=MASK \\
        --output DIR

--config in place of --workdir takes optics that nothing was trained for, such as a mask file's.
--calibration sets the optics to those of the bench that `calibrate --fit` has found.

Prints one table, and writes it with every number and a figure into --output (default RUN/solve):
solve.md, solve.json, solve.png. Solvers: error_reduction, hio, raar, wirtinger, taf, raf,
accelerated (with --tv for its prior); recovery/solvers.py says what each of them does. With one
shot several objects give the same CDP: a misfit near zero then does not mean that the object is
the right one.
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags

from jax_kdpr.core import options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import shallow
from jax_kdpr.core.provenance import provenance
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation import solvers as solving
from jax_kdpr.evaluation.solvers import Plan
from jax_kdpr.evaluation.tables import solve_table
from jax_kdpr.interface import cli, option_flags, system_flags
from jax_kdpr.interface.reports import Report
from jax_kdpr.lab.frames.calibration import calibration_notes, read_calibration
from jax_kdpr.lab.frames.reading import read_mean
from jax_kdpr.optics.camera import Camera
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(system_flags)
CONFIG = cli.define_config()
for _define in option_flags.declarations(Plan()):
    _define()
SUPPORT = flags.DEFINE_string(
    "support", None, "Image of where an amplitude object may be bright: pixels above 0."
)
CALIBRATION = flags.DEFINE_string(
    "calibration", "", "File of `calibrate --fit`: the optics to measure and to solve with."
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; default: RUN/solve.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Solves, prints and writes."""
    cli.require_no_more(positional)
    config = system_flags.read_system_config(CONFIG)
    plan = option_flags.read(Plan())
    options.check(plan, before="--")
    solving.check_plan(plan)
    report = Report(system_flags.output_folder(OUTPUT.value, "solve"), "solve")
    report.require_own({"run": str, "checkpoint_digest": str}, command="solve")
    run = system_flags.read_system(config, data_dir=DATA_DIR.value, images=plan.images)
    if CALIBRATION.value:
        run = _on_bench(run)
    solving.check_system(run, plan)
    support = _read_support(run.camera)
    report.make_folder()
    solved = solving.solve_images(run, plan, support=support)
    results = solving.summarise(solved)
    text = solve_table(results, run, plan, support=support)
    record = {
        "run": system_flags.WORKDIR.value or "",
        "checkpoint_digest": run.digest,
        "batch_size": run.batch_size,
        **shallow(plan),
        **{
            "calibration": CALIBRATION.value,
            "support": SUPPORT.value,
            "results": results,
            "provenance": provenance(),
        },
    }
    report.write(record, text)
    pictures.plot_comparison(
        solved.samples,
        report.picture,
        scene=run.camera.scene,
        pitch=run.config.propagation.pitch,
    )
    print(f"{text}\nwritten: {report.folder}/solve.md, solve.json and solve.png")
    return 0


def _on_bench(run: Run) -> Run:
    """Returns the run with the optics of --calibration."""
    found = read_calibration(Path(CALIBRATION.value))
    for note in calibration_notes(found, run, CALIBRATION.value):
        print(f"warning: {note}", file=sys.stderr)
    if not found.optics:
        raise InputError(
            f"--calibration: {CALIBRATION.value!r} holds no optics, only where the pattern lies; "
            "make it with calibrate --fit, or leave it out"
        )
    return run.with_optics(found.optics)


def _read_support(camera: Camera) -> np.ndarray | None:
    if SUPPORT.value is None:
        return None
    if camera.scene.has_phase:
        raise InputError(
            f"--support: only amplitude objects are dark somewhere; the run has "
            f"{camera.scene.kind} objects"
        )
    inside = read_mean(SUPPORT.value, flag="--support") > 0
    if inside.shape != (camera.size, camera.size):
        raise InputError(
            f"--support: expected an image of {camera.size}x{camera.size} pixels, as the run's "
            f"scenes, got {inside.shape[0]}x{inside.shape[1]}"
        )
    if not inside.any():
        raise InputError(f"--support: {SUPPORT.value} has no pixel above 0")
    return inside


if __name__ == "__main__":
    cli.run(main)
