"""Scores trained runs on their test images: `python -m jax_kdpr.evaluate --workdir RUN [RUN ...]`.

Writes metrics.json, scores.npz (image by image), samples.npz (a few scenes and their recovery),
figure.png and masks.npy (phases in [0, 2 pi) as [k h w]; mask l multiplies the field by
e^{-j phase}) into each run folder and prints one table.
--refine N also scores what N steps of error reduction make of the network's image: a great deal
without noise, and harm at an SNR of 20 dB; --refine_with names another solver, and --refine_tv the
weight of its total-variation prior, which noisy measurements want.
--solvers raar,hio adds what classical solvers make of the same CDPs without any network, started
from the spectral estimate (`python -m jax_kdpr.solve` does more with them).
Several runs of the same data and scene give one table, also written, with a figure of the same
scenes side by side, to --output.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation.scoring import FILES, SCORES, SCORES_FILE, Evaluated, score_run
from jax_kdpr.evaluation.tables import advice, comparison_table
from jax_kdpr.interface import cli, refine_flags
from jax_kdpr.interface.reports import Report
from jax_kdpr.recovery import refinement as classical
from jax_kdpr.recovery.solvers import SOLVERS
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the table and figure of several runs, and for the files of runs that may not be "
    "written to; default: above the first run.",
)
SAMPLES = flags.DEFINE_integer(
    "samples", 4, "Test scenes in a figure.", lower_bound=1, upper_bound=100
)
flags.adopt_module_key_flags(refine_flags)
SOLVING = flags.DEFINE_list(
    "solvers", [], f"Solvers to score from the spectral estimate: {', '.join(SOLVERS)}."
)
SOLVER_STEPS = flags.DEFINE_integer(
    "solver_steps", 200, "Steps of --solvers.", lower_bound=1, upper_bound=1_000_000
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")


def main(positional: list[str]) -> int:
    """Evaluates every run folder given."""
    workdirs = cli.run_folders(WORKDIR.value, positional)
    solvers = classical.solver_names("--solvers", SOLVING.value)
    refinement = refine_flags.read_refinement()
    if SOLVER_STEPS.value != SOLVER_STEPS.default and not solvers:
        raise InputError("--solver_steps: nothing would read it; give --solvers too")
    run_folder.require_same_data(list(workdirs.values()))
    for workdir in workdirs.values():
        checkpoint.require_checkpoint(workdir)
    output = Path(OUTPUT.value) if OUTPUT.value else next(iter(workdirs.values())).parent
    report = Report(output, "comparison") if len(workdirs) > 1 or OUTPUT.value else None
    if report:
        report.require_own({str: SCORES}, command="evaluate")
        report.make_folder()
    places = {name: _place(name, workdir, OUTPUT.value) for name, workdir in workdirs.items()}
    runs = {
        name: score_run(
            workdir,
            output=places[name],
            samples=SAMPLES.value,
            refinement=refinement,
            solvers=solvers,
            solver_steps=SOLVER_STEPS.value,
            data_dir=DATA_DIR.value,
        )
        for name, workdir in workdirs.items()
    }
    text = comparison_table(runs)
    if report:
        report.write({name: run.result for name, run in runs.items()}, text)
        _draw(runs, report.picture)
    print(text)
    for said in filter(None, map(advice, runs, runs.values())):
        print(said, file=sys.stderr)
    if report:
        print(f"written: {output}/comparison.md, .json, .png")
    for place in places.values():
        print(f"written: {place}/{', '.join(FILES)}")
    return 0


def _draw(runs: dict[str, Evaluated], path: Path) -> None:
    config = next(iter(runs.values())).config
    pictures.plot_comparison(
        {name: run.samples for name, run in runs.items()},
        path,
        scene=config.scene,
        pitch=config.propagation.pitch,
    )


def _place(name: str, workdir: Path, output: str | None) -> Path:
    """Returns where a run's files go: its folder or, if that may not be written, one in --output.

    Raises:
        InputError: If it may not be written, and there is no --output, or one with other files.
    """
    try:
        run_folder.require_writable("--workdir", workdir)
    except InputError as refused:
        if not output:
            raise InputError(
                f"--workdir: {str(workdir)!r} cannot be written to; name a folder for the results "
                "by --output"
            ) from refused
        place = Path(output) / name
        json_files.require_own(
            "--output", place / SCORES_FILE, SCORES, command="evaluate", beside=FILES
        )
        cli.make_folder("--output", place)
        return place
    return workdir


if __name__ == "__main__":
    cli.run(main)
