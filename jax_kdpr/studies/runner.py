"""Trains, scores and times what a study plans: one run after the other, each on its own.

What is done is skipped, what was cut goes on, and a run that fails is reported and left: neither
it nor its students stop the others.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import jax

from jax_kdpr import run_folder
from jax_kdpr.config import data_arguments
from jax_kdpr.config_fields import shallow
from jax_kdpr.data import sources
from jax_kdpr.scoring import SCORES_FILE, score_run, score_under_noise
from jax_kdpr.studies import estimate
from jax_kdpr.studies.declaration import Costs, Study
from jax_kdpr.studies.estimate import ImageCounts
from jax_kdpr.studies.programs import time_inference, trace_step
from jax_kdpr.studies.runs import ROBUSTNESS_FILE, PlannedRun
from jax_kdpr.training import loop

FAILURES_FILE = "failures.json"
COSTS_FILE = "costs.json"


def run_study(study: Study, runs: list[PlannedRun], workdir: Path) -> dict[str, str]:
    """Does what is left of a study's runs, in order.

    Args:
        study: The study.
        runs: From `runs.plan`.
        workdir: The study's folder.

    Returns:
        {name of a run that failed: why}; also written to failures.json.

    Raises:
        training.loop.Interrupted: On SIGINT or SIGTERM within a training, after saving.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    operations = count_operations(runs)
    failures: dict[str, str] = {}
    left = [run for run in runs if not run.is_done]
    print(f"{len(runs)} runs, {len(runs) - len(left)} done")
    for number, run in enumerate(left, start=1):
        if run.teacher is not None and run.teacher.name in failures:
            failures[run.name] = f"not run: its teacher ({run.teacher.name}) failed"
            continue
        minutes = remaining_minutes(runs, operations)
        print(
            f"\n== {number} of {len(left)}: {run.name} (about {minutes[run.name]:.1f} min; "
            f"all that is left: {_duration(sum(minutes.values()))})",
            flush=True,
        )
        try:
            _run_one(run)
        except (KeyboardInterrupt, loop.Interrupted):
            raise
        except Exception as failure:  # whatever befalls one run, the others can still be made
            failures[run.name] = f"{type(failure).__name__}: {' '.join(str(failure).split())[:500]}"
            print(f"failed: {failures[run.name]}", flush=True)
        # A study of many shapes would hold the programs of all of them.
        jax.clear_caches()
    _measure_costs(study, runs, workdir)
    run_folder.write_json(workdir / FAILURES_FILE, failures)
    return failures


def count_operations(runs: list[PlannedRun]) -> dict[str, float]:
    """Returns the operations of each run, by name; reads, and so checks, the data they want."""
    counts: dict[str, ImageCounts] = {}
    for run in runs:
        key = str(shallow(run.config.data))
        if key not in counts:
            dataset = sources.load(**data_arguments(run.config))
            held_back = len(dataset.validation), len(dataset.test)
            counts[key] = ImageCounts(dataset.train_size, *held_back)
    return {
        run.name: estimate.run_operations(
            run.config,
            run.teacher and run.teacher.config,
            counts[str(shallow(run.config.data))],
        )
        for run in runs
    }


def remaining_minutes(runs: list[PlannedRun], operations: dict[str, float]) -> dict[str, float]:
    """Returns the estimated minutes that each run still takes, by name."""
    counted = [operations[run.name] for run in runs]
    rate = estimate.measured_rate(runs, counted) or estimate.expected_rate()
    return {
        run.name: estimate.remaining_share(run) * operations[run.name] / rate / 60 for run in runs
    }


def _run_one(run: PlannedRun) -> None:
    if not run.is_trained:
        loop.train(run.config, run.workdir)
        (run.workdir / SCORES_FILE).unlink(missing_ok=True)  # of an earlier, shorter state
    if not (run.workdir / SCORES_FILE).exists():
        score_run(run.workdir)
    wanted = run.robustness
    if wanted is not None and not (run.workdir / ROBUSTNESS_FILE).exists():
        print("scoring under noise", flush=True)
        scores = score_under_noise(
            run.workdir, snr_db=wanted.snr_db, photons=wanted.photons, images=wanted.images
        )
        run_folder.write_json(run.workdir / ROBUSTNESS_FILE, scores)


def _measure_costs(study: Study, runs: list[PlannedRun], workdir: Path) -> None:
    """Times inference and asks for the memory of each entry of a cost section, once."""
    wanted = {n for s in study.sections if isinstance(s, Costs) for n in s.entries}
    path = workdir / COSTS_FILE
    found: dict[str, Any] = run_folder.read_json(path) if path.exists() else {}
    for run in runs:
        if run.entry not in wanted - set(found) or not run.is_done:
            continue
        print(f"measuring memory and inference time of {run.entry}", flush=True)
        memory = trace_step(run.config, run.teacher and run.teacher.config).compile_bytes()
        timing = time_inference(run.config)
        found[run.entry] = {
            "batch": run.config.train.batch_size,
            "step_bytes": memory,
            "inference_ms": 1e3 * timing.median,
            "inference_quartiles_ms": [1e3 * value for value in timing.quartiles],
            "provenance": run_folder.provenance(),
        }
        run_folder.write_json(path, found)
        jax.clear_caches()


def _duration(minutes: float) -> str:
    return str(timedelta(minutes=round(minutes)))[:-3] + " h"
