"""Trains, scores and times the runs of a study, one after the other.

Runs that are done are skipped, interrupted ones go on, and runs that another call trains are left
to it. A run that fails is reported; neither it nor its students stop the others.
"""

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import jax

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, signals
from jax_kdpr.core.errors import InUseError
from jax_kdpr.core.options import flatten
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.signals import Interrupted
from jax_kdpr.evaluation.alone import OPTICS_FILE, judge_optics
from jax_kdpr.evaluation.scoring import score_run, score_under_noise
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run
from jax_kdpr.studies.declaration import RESERVED, Costs, Front, Study
from jax_kdpr.studies.plan import ROBUSTNESS_FILE, PlannedRun
from jax_kdpr.studies.programs import time_inference, trace_step
from jax_kdpr.studies.rehearsal import Remaining, count_operations
from jax_kdpr.training import loop

WAITING = 2.0  # seconds between two looks at a run that another call trains
FAILURES_FILE = "failures.json"
FAILURES = {str: str}  # {name of a run: why it failed}
COSTS_FILE = "costs.json"
COSTS = {  # of each entry
    str: {
        **{"device": str, "config": str, "batch": int, "step_bytes": int},
        **{"inference_ms": float, "inference_quartiles_ms": (float, float)},
    }
}
COSTS_OF = "costs of"  # begins the names of failures to measure costs
FRAMES_FILE = "frames.json"
FRAME = {"ms": float, "quartiles_ms": (float, float)}
FRAMES = {  # of each entry: times of a frame alone, and of one in a batch
    str: {"device": str, "config": str, "batch": int, "alone": FRAME, "in_batch": FRAME}
}
Minutes = Callable[[], dict[str, float]]  # what each run would still take here, by name
Carry = Callable[[list[PlannedRun], Minutes], dict[str, str]]  # does runs; returns the failures


def run_study(
    study: Study, runs: list[PlannedRun], workdir: Path, carry_out: Carry | None = None
) -> dict[str, str]:
    """Does the remaining runs of a study.

    Args:
        study: The study.
        runs: From `plan.plan`.
        workdir: The study's folder.
        carry_out: Does the runs elsewhere; None to do them here, one after the other, in order.

    Returns:
        {name of a run that failed in this call: why}. failures.json has them too, and failures of
        earlier calls that are not resolved yet.

    Raises:
        Interrupted: If a signal was noted, after saving.
    """
    operations = count_operations(runs)  # reads the data, before anything is written
    workdir.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    print(f"{len(runs)} runs, {sum(run.is_done for run in runs)} done")
    try:
        failures |= (carry_out or _in_turn)(runs, Remaining(runs, operations).minutes)
        for run in runs:
            failures |= _guarded(
                f"{COSTS_OF} {run.entry}", lambda run=run: _measure_costs(study, run, workdir)
            )
        failures |= _guarded(f"{COSTS_OF} frames", lambda: _time_frames(study, runs, workdir))
    finally:
        _record(failures, runs, workdir)
    return failures


def _in_turn(runs: list[PlannedRun], minutes: Minutes) -> dict[str, str]:
    """Does one run after the other in this process; returns the failures."""
    failures: dict[str, str] = {}
    left = [run for run in runs if not run.is_done]
    for number, run in enumerate(left, start=1):
        if run.teacher and run.teacher.scores is None:  # it failed, or another call trains it
            if run.teacher.name in failures:
                failures[run.name] = f"not run: its teacher ({run.teacher.name}) failed"
            continue
        each = minutes()
        print(
            f"\n== {number} of {len(left)}: {run.name} (about {each[run.name]:.1f} min; "
            f"all that is left: {timedelta(minutes=round(sum(each.values())))} h)",
            flush=True,
        )
        failures |= _guarded(run.name, lambda run=run: _run_one(run))
        # Otherwise a study of many shapes would hold the programs of all of them.
        jax.clear_caches()
    return failures


def run_one(run: PlannedRun) -> dict[str, str]:
    """Does one run of a study, after the teachers that it needs.

    It waits for runs that another call trains.

    Returns:
        {name of the run, or of its teacher, if it failed: why}.

    Raises:
        Interrupted: As in `run_study`.
    """
    if run.teacher and (failures := run_one(run.teacher)):
        return failures
    while not run.is_done:
        if run_folder.in_use(run.workdir):
            time.sleep(WAITING)
            signals.check()
        elif failures := _guarded(run.name, lambda: _run_one(run)):
            return failures
    return {}


def _guarded(name: str, work: Callable[[], None]) -> dict[str, str]:
    """Does some work; returns {name: why} if it failed, so that the rest can still be done.

    Raises:
        Interrupted: If a signal was noted.
    """
    signals.check()
    try:
        work()
    except Interrupted:
        raise
    except InUseError:
        print("left out: another call trains it now", flush=True)
    except Exception as failure:  # anything that happens to one run
        traceback.print_exc()
        why = f"{type(failure).__name__}: {' '.join(str(failure).split())[:500]}"
        print(f"failed: {name}: {why}", flush=True)
        return {name: why}
    return {}


def _record(failures: dict[str, str], runs: list[PlannedRun], workdir: Path) -> None:
    """Writes the failures of this call, and those of earlier calls that are not resolved."""
    path = workdir / FAILURES_FILE
    earlier = json_files.read_json(path, FAILURES) if path.exists() else {}
    done = {run.name for run in runs if run.is_done}
    kept = {
        name: why
        for name, why in earlier.items()
        if name not in done and not name.startswith(COSTS_OF)
    }
    if kept | failures:
        json_files.write_json(path, kept | failures)
    else:
        path.unlink(missing_ok=True)


def _run_one(run: PlannedRun) -> None:
    if not run.is_trained:
        loop.train(run.config, run.workdir)
    if run.scores is None:
        score_run(load_run(run.workdir), refinement=run.refinement)
    wanted, scores = run.robustness, run.scores
    if wanted is not None and scores is not None and run.noisy_scores is None:
        print("scoring under noise", flush=True)
        found = score_under_noise(
            run.workdir,
            snr_db=wanted.snr_db,
            photons=wanted.photons,
            images=wanted.images,
            refinement=run.refinement,
        )
        record = run.noise_conditions(scores) | {"scores": found["psnr"], "rms": found["rms"]}
        json_files.write_json(run.workdir / ROBUSTNESS_FILE, record)
    if run.alone and run.optics_scores is None:
        print("judging the optics without the network", flush=True)
        json_files.write_json(run.workdir / OPTICS_FILE, judge_optics(run.workdir))


def _measure_costs(study: Study, run: PlannedRun, workdir: Path) -> None:
    """Measures inference time and memory of an entry of a cost section, once for each device."""
    wanted = {n for s in study.sections if isinstance(s, Costs) for n in s.entries}
    path = workdir / COSTS_FILE
    found = json_files.read_json(path, COSTS) if path.exists() else {}
    made_for = _made_for(run.config)
    known = {name: found.get(run.entry, {}).get(name) for name in made_for}
    if run.entry not in wanted or known == made_for or not run.is_done:
        return
    print(f"measuring memory and inference time of {run.entry}", flush=True)
    memory = trace_step(run.config, run.teacher and run.teacher.config).compile_bytes()
    batch = run.config.train.batch_size
    (timing,) = time_inference([run.config], batch=batch)
    found[run.entry] = {
        **made_for,
        "batch": batch,
        "step_bytes": memory,
        "inference_ms": 1e3 * timing.median,
        "inference_quartiles_ms": [1e3 * value for value in timing.quartiles],
        "provenance": provenance(),
    }
    json_files.write_json(path, found)
    jax.clear_caches()


def _time_frames(study: Study, runs: list[PlannedRun], workdir: Path) -> None:
    """Times frames of all entries of fronts, in turn; all of them again if one is missing."""
    wanted = {n for s in study.sections if isinstance(s, Front) for n in s.entries}
    configs = {run.entry: run.config for run in runs if run.is_done and run.entry in wanted}
    made_for = {entry: _made_for(config) for entry, config in configs.items()}
    path = workdir / FRAMES_FILE
    found = json_files.read_json(path, FRAMES) if path.exists() else {}
    if all(made_for[n].items() <= found.get(n, {}).items() for n in configs):
        return
    batch = study.base.train.batch_size
    print(f"timing frames of {len(configs)} entries, in turn", flush=True)
    alone, in_batch = (
        [timing.per(count) for timing in time_inference(list(configs.values()), batch=count)]
        for count in (1, batch)
    )
    timings = dict(zip(configs, zip(alone, in_batch, strict=True), strict=True))
    for entry, pair in timings.items():
        found[entry] = made_for[entry] | {"batch": batch, "provenance": provenance()}
        for name, timing in zip(("alone", "in_batch"), pair, strict=True):
            quartiles = [1e3 * value for value in timing.quartiles]
            found[entry][name] = {"ms": 1e3 * timing.median, "quartiles_ms": quartiles}
    json_files.write_json(path, found)
    jax.clear_caches()


def _made_for(config: Config) -> dict[str, str]:
    """Returns what costs depend on, which is the same for all seeds of an entry."""
    values = {path: v for path, v in flatten(config).items() if path not in RESERVED}
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
    return {"device": jax.devices()[0].device_kind, "config": digest}
