"""Runs one benchmark: compiles the cases of a config, times them in turn, and makes rows."""

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from jax_kdpr.config import checks, presets
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.sharding import make_mesh
from jax_kdpr.evaluation.speed import ahead, cases, report
from jax_kdpr.evaluation.speed.cases import Case, Made, Plan, Shape
from jax_kdpr.evaluation.speed.counts import measure_limits
from jax_kdpr.evaluation.speed.report import Row
from jax_kdpr.evaluation.speed.timing import Timing, clock, time_alternating
from jax_kdpr.training.losses import Weights, loss_weights

Some = TypeVar("Some", Plan, Plan | Made)
SWEEPS = {
    "snapshots": ("masks", "snapshots"),
    "size": ("data", "size"),
    "iterations": ("spectral", "iterations"),
    "batch": ("train", "batch_size"),
}


class Wanted(NamedTuple):
    """What to time, beside the config."""

    calls: int  # timed calls of each case
    teacher_snapshots: int
    only: str = ""  # beginning of the names of the wanted cases
    convolutions: bool = False  # whether each kind of them is a case too
    compile_only: bool = False  # whether nothing is timed


def read_sweep(text: str, config: Config) -> tuple[str, dict[int, Config]]:
    """Returns the NAME that "NAME=V1,V2" sweeps, and a config for each of the values.

    Raises:
        InputError: If the text is not a sweep, or one of the configs is not valid.
    """
    name, _, listed = text.partition("=")
    if name not in SWEEPS:
        raise InputError(f"--sweep: expected one of {', '.join(SWEEPS)}, got {name!r}")
    try:
        values = [int(value) for value in listed.split(",")]
    except ValueError:
        raise InputError(
            f"--sweep: expected integers, such as {name}=1,2,4, got {text!r}"
        ) from None
    section, field = SWEEPS[name]
    trials = {}
    for value in values:
        trials[value] = copy.deepcopy(config)
        setattr(getattr(trials[value], section), field, value)
        checks.validate(trials[value])
    return name, trials


def time_config(config: Config, wanted: Wanted, also: Sequence[Made] = ()) -> list[Row]:
    """Times the wanted cases: those of a config, and those of `also`.

    Raises:
        InputError: If no case has the wanted name, or the machine has too few devices.
    """
    built = build(config, wanted, also)
    timings = _time(built, wanted)
    peak = None if wanted.compile_only else runtime.peak_memory()
    limits = None if wanted.compile_only else measure_limits()
    known = facts(config, wanted)
    return [
        report.row(case, timing, limits, known, peak_bytes=peak)
        for case, timing in zip(built, timings, strict=True)
    ]


def time_sweep(name: str, trials: dict[int, Config], wanted: Wanted) -> list[Row]:
    """Times the cases `cases.SWEPT` of each config of a sweep; raises as `time_config`."""
    rows = []
    limits = None if wanted.compile_only else measure_limits()
    for value, config in trials.items():
        swept = [plan for plan in plans(config, wanted) if plan.name in cases.SWEPT]
        built = [plan.compile() for plan in swept]
        known = facts(config, wanted)
        for case, timing in zip(built, _time(built, wanted), strict=True):
            rows.append(report.row(case, timing, limits, known))
        print(f"{name} = {value}: done", flush=True)
    return rows


def count_config(config: Config, wanted: Wanted, target: str) -> list[Row]:
    """Compiles the wanted cases for a GPU that is not present, and counts kernels and bytes.

    Args:
        config: Config of the student; its batch is on one device, with one step in a program.
        wanted: What to count.
        target: One of `ahead.TARGETS`.

    Raises:
        InputError: If no case has the wanted name, or the GPU's compiler is missing.
    """
    config = copy.deepcopy(config)
    config.train.devices = config.train.scan_steps = 1
    known = facts(config, wanted) | {"target": target}
    ahead.devices_of(target, 1)  # raises before any array is made if its compiler is missing
    rows = []
    listed = _named(list(plans(config, wanted)), wanted.only)
    for plan in progress(listed, desc=f"compiling for {target}", unit="case"):
        program = plan.make()
        started = time.perf_counter()
        compiled = ahead.compile_for(target, program.run, program.arguments)
        seconds = time.perf_counter() - started
        counts = ahead.count(compiled.as_text() or "", config.net.precision)
        memory = cases.program_bytes(compiled)
        rows.append(report.counted_row(plan.name, counts, seconds, memory, known))
    return rows


def build(config: Config, wanted: Wanted, also: Sequence[Made] = ()) -> list[Case]:
    """Compiles the cases that are wanted; raises as `time_config`."""
    listed = _named([*plans(config, wanted), *also], wanted.only)
    return [plan.compile() for plan in progress(listed, desc="compiling", unit="case")]


def _named(listed: list[Some], only: str) -> list[Some]:
    wanted = [plan for plan in listed if plan.name.startswith(only)]
    if not wanted:
        names = "; ".join(plan.name for plan in listed)
        raise InputError(f"--only: no case begins with {only!r}; there are: {names}")
    return wanted


def _time(built: list[Case], wanted: Wanted) -> list[Timing | None]:
    """Returns the times of one unit of each case; None for each if nothing is timed."""
    if wanted.compile_only:
        return [None] * len(built)
    clocks = [lambda case=case: clock(case.call) for case in built]
    timings = time_alternating(clocks, calls=wanted.calls)
    return [timing.per(case.units) for case, timing in zip(built, timings, strict=True)]


def plans(config: Config, wanted: Wanted) -> Iterator[Plan]:
    """Yields all cases of a config, not yet compiled; raises as `make_shape`."""
    shape = make_shape(config, wanted)
    yield from cases.inference_cases(shape)
    yield from cases.network_cases(shape)
    yield from cases.step_cases(shape, weights=student_weights(config))
    if wanted.convolutions:  # some thirty cases
        yield from cases.convolution_cases(shape)


def make_shape(config: Config, wanted: Wanted) -> Shape:
    """Returns what all cases of a config have in common.

    Raises:
        InputError: If the machine has fewer devices than the config wants.
    """
    devices = runtime.choose_devices(config.train.devices, config.train.batch_size)
    return Shape(
        config=config,
        teacher_snapshots=wanted.teacher_snapshots,
        batch=config.train.batch_size,
        scan_steps=runtime.choose_scan_steps(config.train.scan_steps, 50),
        mesh=make_mesh(devices),
        made={},
    )


def student_weights(config: Config) -> Weights:
    """Returns a student's loss weights; for another regime, those of `presets.student`."""
    if config.regime != "student":
        config = presets.student(copy.deepcopy(config))
    return loss_weights(config)


def facts(config: Config, wanted: Wanted) -> dict[str, Any]:
    """Returns the fields that all rows share; raises as `make_shape`."""
    shape = make_shape(config, wanted)
    return {
        "snapshots": config.masks.snapshots,
        "teacher_snapshots": shape.teacher_snapshots,
        "size": config.data.size,
        "iterations": config.spectral.iterations,
        "batch": shape.batch,
        "precision": config.net.precision,
        "devices": 1 if shape.mesh is None else shape.mesh.size,
        "scan_steps": shape.scan_steps,
        "provenance": provenance(),
    }
