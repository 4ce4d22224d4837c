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
from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.signals import Interrupted, noting
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.interface import cli
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Study, difference_from_base
from jax_kdpr.studies.plan import PlannedRun, plan
from jax_kdpr.studies.programs import trace_step
from jax_kdpr.studies.report import FIGURES, REPORT, REPORT_FILE, write_report
from jax_kdpr.studies.runner import count_operations, remaining_minutes, run_study

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
    runs = plan(study, workdir, only=tuple(ONLY.value))
    if DRY_RUN.value:
        print(plan_table(study, runs))
        if COMPILE.value:
            compile_steps(runs)
        return 0
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "report"
    run_folder.require_writable("--workdir", workdir)
    run_folder.require_writable("--output", output)
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
    if CONFIG.value is None:
        raise InputError("--config: a study is needed, such as configs/cpu/study.py")
    if not isinstance(CONFIG.value, Study):
        raise InputError(
            "--config: expected get_config() to return a jax_kdpr.studies.declaration.Study, got "
            f"{type(CONFIG.value).__name__}; configs of single runs go to jax_kdpr.train"
        )
    study = CONFIG.value
    study.base = config.check_types(study.base)
    config.resolve_paths(study.base)
    declaration.check(study)
    return study


def plan_table(study: Study, runs: list[PlannedRun]) -> str:
    """Lists the runs by entry, with their state and the estimated minutes left."""
    operations, minutes, missing = {}, {}, ""
    try:
        operations = count_operations(runs)
        minutes = remaining_minutes(runs, operations)
    except InputError as failure:
        missing = str(failure)
    rows = []
    for name in dict.fromkeys(run.entry for run in runs):
        own = [run for run in runs if run.entry == name]
        rows.append(
            [
                name,
                "; ".join(f"{run.seed}: {run.state}" for run in own),
                f"{operations[own[0].name] / 1e12:.1f}" if operations else "",
                f"{sum(minutes[run.name] for run in own):.1f}" if minutes else "",
                study.entries[name].teacher,
                difference_from_base(study, name),
            ]
        )
    header = ["entry", "seeds", "Tflop a run", "minutes left", "teacher", "what it changes"]
    total = sum(minutes.values())
    done = sum(run.is_done for run in runs)
    text = f"{markdown_table(header, rows)}\n\n{len(runs)} runs, {done} done; "
    if missing:
        return f"{text}no estimate without their data: {missing}"
    source = "by the finished runs" if done else "a rough guess by the speed of a matrix product"
    return f"{text}about {total:.0f} minutes left ({total / 60:.1f} h), {source}"


def compile_steps(runs: list[PlannedRun]) -> None:
    """Compiles every distinct training step of a study, from shapes alone."""
    seen: dict[str, str] = {}
    for run in runs:
        if run.seed != runs[0].seed:
            continue
        program = trace_step(run.config, run.teacher and run.teacher.config)
        if program.digest in seen:
            print(f"{run.entry}: the step of {seen[program.digest]}", flush=True)
            continue
        seen[program.digest] = run.entry
        print(f"{run.entry}: {program.compile_bytes() / 2**20:,.0f} MB", flush=True)
    print(f"{len(seen)} distinct steps compiled")


def _command() -> str:
    """The command line that makes the runs, as a reader would type it."""
    made = [option for option in sys.argv[1:] if not option.lstrip("-").startswith("report_only")]
    return f"python -m jax_kdpr.study {shlex.join(made)}"


if __name__ == "__main__":
    cli.run(main, prefix="base.", others=("seeds",))
