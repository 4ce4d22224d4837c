"""Shows runs on one page: `python -m jax_kdpr.report --workdir RUN [RUN ...]`.

Writes report.html, one self-contained page, and report.md beside its figures: the options that are
not at their defaults, training curves, masks, first test scenes in radians, a histogram of the
errors, the best and the worst scenes, and the errors of the bench where `tolerance` has been run.
Notes name what is missing, such as the files that `evaluate` must write first. A study has a report
of its own (`jax_kdpr.study`).

--below FOLDER lists all runs below a folder, the best validation PSNR first.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation.run_page import FIGURES, list_runs, read_known, write_page
from jax_kdpr.interface import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
BELOW = flags.DEFINE_string("below", None, "Folder whose runs are listed, in place of --workdir.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the page; default: RUN/report, or report above the first of several."
)
SCENES = flags.DEFINE_integer(
    "scenes", 3, "Best, and worst, test scenes that are shown.", lower_bound=1, upper_bound=20
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")
OWN = {"page": {str: {"workdir": str}}}  # shape of the JSON that names the runs of a page


def main(positional: list[str]) -> int:
    """Writes one page, or lists the runs of a folder."""
    if BELOW.value is not None:
        return _list(positional)
    workdirs = cli.run_folders(WORKDIR.value, positional)
    runs = {name: read_known(workdir) for name, workdir in workdirs.items()}
    first = next(iter(workdirs.values()))
    output = Path(OUTPUT.value or (first if len(runs) == 1 else first.parent) / "report")
    file, beside = output / "report.json", ("report.html", "report.md", FIGURES)
    json_files.require_own("--output", file, OWN, command="report", beside=beside)
    cli.make_folder("--output", output)
    for figure in output.glob(FIGURES):  # of an earlier page
        figure.unlink()
    record = {name: {"workdir": str(workdir)} for name, workdir in workdirs.items()}
    json_files.write_json(file, {"page": record})
    for line in write_page(runs, output, scenes=SCENES.value, data_dir=DATA_DIR.value):
        print(f"note: {line}", file=sys.stderr)
    print(f"written: {output}/report.html, report.md and their figures")
    return 0


def _list(positional: list[str]) -> int:
    cli.require_no_more(positional)
    cli.refuse_given(("workdir", "output", "scenes", "data_dir"), "is not read beside --below")
    folder = Path(BELOW.value or "")
    if not folder.is_dir():
        raise InputError(f"--below: expected a folder, got {str(folder)!r}")
    header, rows = list_runs(folder)
    if not rows:
        raise InputError(
            f"--below: no run lies below {str(folder)!r}; give a folder of run folders"
        )
    print(markdown_table(header, rows))
    return 0


if __name__ == "__main__":
    cli.run(main)
