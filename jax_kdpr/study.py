"""Runs a grid of trainings and makes one report of them.

    python -m jax_kdpr.study --config configs/cpu/study.py --workdir runs/study

Each run has a folder of its own, WORKDIR/ENTRY/seed-N. What is done is skipped, what was cut goes
on, a run that fails is reported and does not stop the others. The report (report.md, the
self-contained report.html, report.json and figures) goes to WORKDIR/report, or --output; it can be
made again at any time with --report_only.

--dry_run lists the runs with what they are estimated to take; with --compile it also compiles every
distinct training step for its shapes. --only trains the entries named, and the teachers they need.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from jax_kdpr.config import schema as config
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.signals import Interrupted, noting
from jax_kdpr.interface import cli
from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.plan import only_these, plan
from jax_kdpr.studies.rehearsal import compile_steps, plan_table
from jax_kdpr.studies.report import FIGURES, REPORT, REPORT_FILE, write_report
from jax_kdpr.studies.runner import run_study

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: new, or its own.")
ONLY = flags.DEFINE_list("only", [], "Entries to run, with the teachers they need; default all.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the runs and what they would take.")
COMPILE = flags.DEFINE_bool("compile", False, "With --dry_run: compile every distinct step.")
REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is there.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default: WORKDIR/report.")


def main(positional: list[str]) -> int:
    """Runs the study; returns 0, 1 if runs failed, or 128 + the signal that interrupted it."""
    cli.require_no_more(positional)
    if not WORKDIR.value:
        raise InputError("--workdir: a folder is needed, such as runs/study")
    if COMPILE.value and not DRY_RUN.value:
        raise InputError("--compile: goes with --dry_run; a study compiles its steps anyway")
    study, workdir = read_study(), Path(WORKDIR.value)
    everything = plan(study, workdir)
    runs = only_these(everything, ONLY.value)
    if DRY_RUN.value:
        print(plan_table(study, runs))
        if COMPILE.value:
            compile_steps(runs)
        return 0
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "report"
    whole_files.require_writable("--workdir", workdir)
    whole_files.require_writable("--output", output)
    json_files.require_own(
        *("--output", output / REPORT_FILE, REPORT),
        command="study",
        beside=("report.md", "report.html", FIGURES),
    )
    failures: dict[str, str] = {}
    stopped = 0
    if not REPORT_ONLY.value:
        try:
            with noting():  # so that there is a report of what is finished
                failures = run_study(study, runs, workdir)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            stopped = stop.exit_code
    if any(run.is_done for run in everything):
        write_report(study, everything, workdir, output, command=_command())
        print(f"written: {output}/report.md, report.html, report.json")
    elif REPORT_ONLY.value:
        raise InputError(f"--workdir: {str(workdir)!r} holds no finished run of this study yet")
    for name, why in failures.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return stopped or (1 if failures else 0)


def read_study() -> Study:
    """Returns the checked study of --config."""
    study = cli.load_config(CONFIG, Study)
    study.base = config.check_types(study.base)
    config.resolve_paths(study.base)
    declaration.check(study)
    return study


def _command() -> str:
    """The command line that makes the runs, as a reader would type it."""
    made = [option for option in sys.argv[1:] if not option.lstrip("-").startswith("report_only")]
    return f"python -m jax_kdpr.study {shlex.join(made)}"


if __name__ == "__main__":
    cli.run(main, prefix="base.", others=("seeds", "refine"))
