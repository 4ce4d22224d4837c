"""Runs a grid of trainings and makes one report of them.

    python -m jax_kdpr.study --config configs/cpu/study.py --workdir runs/study

Each run has a folder of its own, WORKDIR/ENTRY/seed-N. Finished runs are skipped, interrupted ones
go on, and a run that fails is reported and does not stop the others. The report (report.md, the
self-contained report.html, report.json and figures) goes to WORKDIR/report, or --output; it can be
made again at any time with --report_only.

--cluster does many runs at a time, on the machines of a Ray cluster: "local" makes one of this
machine, "auto" takes the one that this machine belongs to. --array_index N does run N alone, after
the teachers it needs, for a job array without Ray; runs are counted from 0, seed by seed.

--dry_run lists the runs with the estimated time that is left; with --compile it also compiles every
distinct training step for its shapes. --only trains the entries named, and the teachers they need.
"""

import dataclasses
import os
import shlex
import sys
from pathlib import Path

from absl import flags

from jax_kdpr.config import schema
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.signals import Interrupted, noting
from jax_kdpr.interface import cli
from jax_kdpr.studies import declaration
from jax_kdpr.studies.cluster import Share, run_on_cluster
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.plan import PlannedRun, only_these, plan
from jax_kdpr.studies.rehearsal import compile_steps, plan_table
from jax_kdpr.studies.report import FIGURES, REPORT, REPORT_FILE, write_report
from jax_kdpr.studies.runner import Carry, Minutes, run_one, run_study

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: new, or its own.")
ONLY = flags.DEFINE_list("only", [], "Entries to run, with the teachers they need; default all.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the runs and what they would take.")
COMPILE = flags.DEFINE_bool("compile", False, "With --dry_run: compile every distinct step.")
REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is there.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default: WORKDIR/report.")
CLUSTER = flags.DEFINE_string("cluster", "", "local, auto, or the address of a Ray cluster.")
CPUS = flags.DEFINE_float(
    "cpus_per_run", 1.0, "Cores for each run on a cluster.", lower_bound=0.1, upper_bound=1e4
)
GPUS = flags.DEFINE_float(
    "gpus_per_run",
    -1.0,
    "GPUs, or a share of one, for each run on a cluster; -1: one where it has any.",
    lower_bound=-1.0,
    upper_bound=64.0,
)
RETRIES = flags.DEFINE_integer(
    "max_retries",
    3,
    "Retries of a run on a cluster whose worker has died.",
    lower_bound=0,
    upper_bound=1000,
)
INDEX = flags.DEFINE_integer(
    "array_index", None, "Number of the only run to do.", lower_bound=0, upper_bound=10**6
)


def main(positional: list[str]) -> int:
    """Runs the study; returns 0, 1 if runs failed, or 128 + the signal that interrupted it."""
    cli.require_no_more(positional)
    if not WORKDIR.value:
        raise InputError("--workdir: a folder is needed, such as runs/study")
    if COMPILE.value and not DRY_RUN.value:
        raise InputError("--compile: goes with --dry_run; a study compiles its steps anyway")
    _require_one_way()
    # On a cluster every process must know the folder by the same path.
    workdir = Path(WORKDIR.value).resolve() if CLUSTER.value else Path(WORKDIR.value)
    study = read_study()
    if INDEX.value is not None:
        return _do_one(study, workdir, INDEX.value)
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
            with noting():  # so that finished runs get a report
                failures = run_study(study, runs, workdir, _on_cluster(workdir))
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


def _require_one_way() -> None:
    """Refuses combinations of flags of which one would not be read."""
    for flag in (CPUS, GPUS, RETRIES):
        if flag.present and not CLUSTER.value:
            raise InputError(f"--{flag.name}: is read only with --cluster; give both, or neither")
    if GPUS.value not in (-1, 0) and not (0 < GPUS.value < 1 or GPUS.value.is_integer()):
        raise InputError(
            f"--gpus_per_run: expected a share of one GPU, a whole number, or -1, got {GPUS.value}"
        )
    if INDEX.value is not None and (
        CLUSTER.value or DRY_RUN.value or REPORT_ONLY.value or OUTPUT.value
    ):
        raise InputError(
            "--array_index: does one run and nothing else; leave out --cluster, --dry_run, "
            "--report_only and --output"
        )
    if CLUSTER.value and (DRY_RUN.value or REPORT_ONLY.value):
        raise InputError("--cluster: does runs; leave out --dry_run and --report_only")


def _leave_gpus_to_runs() -> None:
    """Lets this process take only the GPU memory that it needs, since it shares GPUs with runs."""
    if CLUSTER.value:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _do_one(study: Study, workdir: Path, index: int) -> int:
    """Does one of the runs; returns the exit code.

    It looks only at the folders of its own seed and of the first one, since there may be as many
    jobs as runs.
    """

    def of_seed(number: int) -> list[PlannedRun]:
        alone = dataclasses.replace(study, seeds=study.seeds[number : number + 1])
        return only_these(plan(alone, workdir), ONLY.value)

    each = len(of_seed(0))
    if index >= each * len(study.seeds):
        last = each * len(study.seeds) - 1
        raise InputError(f"--array_index: expected 0 to {last}, got {index}")
    with noting():
        failures = run_one(of_seed(index // each)[index % each])
    for name, why in failures.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failures else 0


def _on_cluster(workdir: Path) -> Carry | None:
    """Returns the function that does the runs on --cluster; None without --cluster."""
    if not CLUSTER.value:
        return None

    def carry_out(runs: list[PlannedRun], minutes: Minutes) -> dict[str, str]:
        given = _without(CLUSTER, CPUS, GPUS, RETRIES, WORKDIR, OUTPUT)
        study = [sys.executable, "-m", "jax_kdpr.study", *given, f"--workdir={workdir}"]
        commands = {run.name: [*study, f"--array_index={n}"] for n, run in enumerate(runs)}
        share = Share(CPUS.value, GPUS.value, RETRIES.value)
        return run_on_cluster(runs, commands, workdir, CLUSTER.value, share, minutes)

    return carry_out


def _without(*left_out: flags.FlagHolder) -> list[str]:
    """Returns the command line without some flags, given as --NAME=VALUE or --NAME VALUE."""
    kept: list[str] = []
    names, is_value = {flag.name for flag in left_out}, False
    for option in sys.argv[1:]:
        name, equals, _ = option.lstrip("-").partition("=")
        if is_value or (option.startswith("-") and name in names):
            is_value = not (is_value or equals or flags.FLAGS[name].boolean)
        else:
            kept.append(option)
    return kept


def read_study() -> Study:
    """Returns the checked study of --config."""
    study = cli.load_config(CONFIG, Study)
    study.base = schema.check_types(study.base)
    schema.resolve_paths(study.base)
    declaration.check(study)
    return study


def _command() -> str:
    """Returns the command line that makes the runs, as a reader would type it."""
    return f"python -m jax_kdpr.study {shlex.join(_without(REPORT_ONLY))}"


if __name__ == "__main__":
    cli.run(main, prefix="base.", others=("seeds", "refine"), first=_leave_gpus_to_runs)
