"""Scores trained runs on their test images: `python -m jax_kdpr.evaluate --workdir RUN [RUN ...]`.

Writes metrics.json, scores.npz (image by image), samples.npz (a few scenes and their recovery),
figure.png and masks.npy (phases in [0, 2 pi) as [k h w]; mask l multiplies the field by
e^{-j phase}) into each run folder and prints one table.
--refine N also scores the network's image after N steps of error reduction. These gain a great deal
without noise, and do harm at an SNR of 20 dB. --refine_with names another solver, and --refine_tv
the weight of its total-variation prior, for noisy measurements.
`python -m jax_kdpr.solve` scores classical solvers on the same CDPs, without any network.
For several runs of the same data and scene, one table, and a figure of the same scenes side by
side, are also written to --output.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation.scoring import FILES, SCORES, SCORES_FILE, score_run
from jax_kdpr.evaluation.tables import advice, comparison_table
from jax_kdpr.interface import cli, refine_flags
from jax_kdpr.interface.reports import Report
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the table and figure of several runs; default: above the first run.",
)
SAMPLES = flags.DEFINE_integer(
    "samples", 4, "Test scenes in a figure.", lower_bound=1, upper_bound=100
)
flags.adopt_module_key_flags(refine_flags)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Evaluates every run folder given."""
    workdirs = cli.run_folders(WORKDIR.value, positional)
    refinement = refine_flags.read_refinement()
    run_folder.require_same_data(list(workdirs.values()))
    for workdir in workdirs.values():
        checkpoint.require_checkpoint(workdir)
    output = Path(OUTPUT.value) if OUTPUT.value else next(iter(workdirs.values())).parent
    report = Report(output, "comparison") if len(workdirs) > 1 or OUTPUT.value else None
    if report:
        report.require_own({str: SCORES}, command="evaluate")
        report.make_folder()
    places = {name: _place(name, workdir) for name, workdir in workdirs.items()}
    runs = {
        name: score_run(
            load_run(workdir, data_dir=DATA_DIR.value),
            output=places[name],
            samples=SAMPLES.value,
            refinement=refinement,
        )
        for name, workdir in workdirs.items()
    }
    text = comparison_table(runs)
    if report:
        report.write({name: run.result for name, run in runs.items()}, text)
        config = next(iter(runs.values())).config
        shown = {name: run.samples.shown for name, run in runs.items()}
        pictures.plot_comparison(
            shown, report.picture, scene=config.scene, pitch=config.propagation.pitch
        )
    print(text)
    for said in filter(None, map(advice, runs, runs.values())):
        print(said, file=sys.stderr)
    if report:
        print(f"written: {output}/comparison.md, .json, .png")
    for place in places.values():
        print(f"written: {place}/{', '.join(FILES)}")
    return 0


def _place(name: str, workdir: Path) -> Path:
    """Returns where a run's files go: its folder or, if not writable, one below --output."""
    found = whole_files.obstacle(workdir)
    if not found:
        return workdir
    if not OUTPUT.value:
        raise InputError(f"--workdir: {found}; name a folder for the results by --output")
    place = Path(OUTPUT.value) / name
    json_files.require_own(
        "--output", place / SCORES_FILE, SCORES, command="evaluate", beside=FILES
    )
    cli.make_folder("--output", place)
    return place


if __name__ == "__main__":
    cli.run(main)
