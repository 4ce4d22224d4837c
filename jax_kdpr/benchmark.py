"""Times a system and its training.

    python -m jax_kdpr.benchmark --config configs/paper/student.py

Every case is compiled first, apart; then all are called in turn, each call synchronised. One JSON
row a case goes to benchmark.jsonl in --output, and one table to benchmark.md. The config gives
sizes; no data are read, and a student needs no teacher's folder.

--compile_only stops before the first call: it shows that every shape of a config compiles, what
memory each program needs, and what it has to compute. --against torch times the same system in
PyTorch, in turn with ours, after checking that both give the same numbers in float32; its steps get
their images as ready floats, where ours gather and resize them. --sweep snapshots=1,3,9 (size,
iterations, batch) times inference and the E2E step over a range.
--only convolution times each kind of convolution in the U-Net, which nothing else does.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from jax_kdpr.config import checks
from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, runtime, whole_files
from jax_kdpr.core import options as config_fields
from jax_kdpr.core.choices import Precision
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.sharding import make_mesh
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.speed import cases, report
from jax_kdpr.evaluation.speed.cases import Case, Plan, Shape
from jax_kdpr.evaluation.speed.counts import measure_limits
from jax_kdpr.evaluation.speed.timing import Timing, clock, ratio_of, time_alternating
from jax_kdpr.evaluation.speed.torch_worker import (
    AGREEMENT,
    COMPILED,
    EAGER,
    TorchWorker,
    require_twin,
)
from jax_kdpr.interface import cli
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.training import losses
from jax_kdpr.training.steps import LossWeights

CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string(
    "output",
    "runs/benchmark",
    "Folder for rows, tables and plots; those of an earlier command are replaced.",
)
CALLS = flags.DEFINE_integer(
    "calls", 20, "Timed calls of each case.", lower_bound=1, upper_bound=1_000_000
)
TEACHER = flags.DEFINE_integer(
    "teacher_snapshots", 9, "Snapshots of the teacher.", lower_bound=1, upper_bound=4096
)
ONLY = flags.DEFINE_string("only", "", "Only the cases whose name begins so.")
COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Compile, and time nothing.")
AGAINST = flags.DEFINE_string("against", "", "torch, or torch-compile: time PyTorch too.")
SWEEP = flags.DEFINE_multi_string("sweep", [], "NAME=V1,V2,...; may be given several times.")

SWEEPS = {
    "snapshots": ("masks", "snapshots"),
    "size": ("data", "size"),
    "iterations": ("spectral", "iterations"),
    "batch": ("train", "batch_size"),
}
MODES = {"torch": EAGER, "torch-compile": COMPILED}


def main(positional: list[str]) -> int:
    """Runs the benchmark that the flags ask for."""
    cli.require_no_more(positional)
    config = cli.read_config(CONFIG, stand_in_teacher="none: timed at its random start")
    sweeps = [_parse_sweep(text, config) for text in SWEEP.value]
    for trial in (config, *(trial for _, trials in sweeps for trial in trials.values())):
        runtime.require_memory(
            "data.size, masks.snapshots, masks.oversample, net.widths, train.batch_size",
            checks.training_bytes(trial),
        )
    if AGAINST.value and AGAINST.value not in MODES:
        raise InputError(f"--against: expected torch or torch-compile, got {AGAINST.value!r}")
    if AGAINST.value and (sweeps or COMPILE_ONLY.value):
        raise InputError("--against: goes with neither --sweep nor --compile_only; leave it out")
    if ONLY.value and sweeps:
        raise InputError("--only: a sweep has its own cases; leave it out")
    if AGAINST.value:
        require_twin(config_fields.flatten(config))
    # A program from the cache would tell the time of a lookup.
    jax.config.update("jax_enable_compilation_cache", False)
    output = Path(OUTPUT.value)
    run_folder.require_writable("--output", output)
    for name in [f"sweep-{name}" for name, _ in sweeps] or [_name()]:
        json_files.require_own(
            *("--output", output / f"{name}.jsonl", {"case": str}),
            command="benchmark",
            beside=(f"{name}.md", f"{name}.png"),
        )

    facts = _facts(config)
    for name, trials in sweeps:
        rows = _sweep(name, trials)
        _write(output, f"sweep-{name}", rows, report.sweep_table(name, rows))
        plots.plot_sweep(name, rows, output / f"sweep-{name}.png")
    if not sweeps:
        rows, text = _compare(config, facts) if AGAINST.value else _single(config, facts)
        _write(output, _name(), rows, text)
    return 0


def _single(config: Config, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    built = _build(config)
    if COMPILE_ONLY.value:
        rows = [report.row(case, None, None, facts) for case in built]
    else:
        timings = time_alternating(
            [lambda case=case: clock(case.call) for case in built], calls=CALLS.value
        )
        peak = runtime.peak_memory()
        limits = measure_limits()
        rows = [
            report.row(case, timing.per(case.units), limits, facts, peak_bytes=peak)
            for case, timing in zip(built, timings, strict=True)
        ]
    return rows, report.table(rows)


def _compare(config: Config, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Times ours and PyTorch's of each case in turn."""
    rows = []
    limits = measure_limits()
    with TorchWorker(threads=runtime.cpu_cores(), mode=MODES[AGAINST.value]) as worker:
        facts = facts | {"against": worker.describe(), "agreement": _agreement(config, worker)}
        for case in _build(config):
            if case.name == "step, random":
                continue  # the E2E step less the gradient of the optics; the twin has none
            ours, theirs = time_alternating(
                [
                    lambda case=case: clock(case.call),
                    lambda case=case: worker.clock(case.name, case.units),
                ],
                calls=CALLS.value,
            )
            ours = ours.per(case.units)
            row = report.row(case, ours, limits, facts)
            theirs = theirs.per(case.units)
            ratio, low, high = ratio_of(theirs, ours)
            row |= {"torch_ms": round(1e3 * theirs.median, 3), "ratio": round(ratio, 3)}
            rows.append(row | {"ratio_low": round(low, 3), "ratio_high": round(high, 3)})
    return rows, report.comparison_table(rows)


def _agreement(config: Config, worker: TorchWorker) -> dict[str, float]:
    """Largest difference of the twin's numbers from ours, relative to the largest of ours.

    Raises:
        InputError: If one is above `AGREEMENT`.
    """
    # In float32 on both sides, whatever is timed afterwards.
    shape = _shape(config)
    exact = shape._replace(config=copy.deepcopy(config))
    exact.config.net.precision = Precision.FLOAT32
    size = config.data.size
    images = np.random.default_rng(0).random((config.train.batch_size, size, size, 1), np.float32)
    weights = _weights(config)
    found = {}
    for role, snapshots in shape.roles.items():
        system = exact.make(snapshots)
        variables = shape.variables(snapshots)
        worker.build(
            role,
            jax.tree.map(np.asarray, variables),
            images,
            widths=config.net.widths,
            phase_range=config.scene.phase_range,
            iterations=config.spectral.iterations,
            tf32=config.net.precision == Precision.TF32,
            weights={name: float(value) for name, value in weights._asdict().items()},
            rates={"phases": 5e-4, "filter": 5e-4, "net": 5e-4},
        )
        output, _ = jax.jit(system.apply)(*variables, images, jax.random.key(0))
        ours = {
            "CDP": output.intensity,
            "spectral estimate": output.estimate,
            "image": output.image[..., 0],
        }
        theirs = worker.outputs(role)
        for what, value in ours.items():
            value = np.asarray(value)
            apart = float(np.abs(value - theirs[what]).max() / np.abs(value).max())
            found[f"{role}, {what}"] = apart
            if not apart < AGREEMENT:
                raise InputError(
                    f"--against: PyTorch's {what} of the {role} differs by {apart:.1e} of its "
                    f"largest value, expected below {AGREEMENT:g}; times of two different things "
                    "say nothing"
                )
    return found


def _sweep(name: str, trials: dict[int, Config]) -> list[dict[str, Any]]:
    rows = []
    limits = None if COMPILE_ONLY.value else measure_limits()
    for value, config in trials.items():
        shape, facts = _shape(config), _facts(config)
        built = [plan.compile() for plan in _all_plans(config, shape) if plan.name in cases.SWEPT]
        timings: list[Timing | None] = [None] * len(built)
        if limits is not None:
            timings = [
                timing.per(case.units)
                for case, timing in zip(
                    built,
                    time_alternating(
                        [lambda case=case: clock(case.call) for case in built], calls=CALLS.value
                    ),
                    strict=True,
                )
            ]
        for case, timing in zip(built, timings, strict=True):
            rows.append(report.row(case, timing, limits, facts))
        print(f"{name} = {value}: done", flush=True)
    return rows


def _all_plans(config: Config, shape: Shape) -> Iterator[Plan]:
    yield from cases.inference_cases(shape)
    yield from cases.network_cases(shape)
    yield from cases.step_cases(shape, weights=_weights(config))
    if ONLY.value and not AGAINST.value:  # some thirty cases: for those who ask
        yield from cases.convolution_cases(shape)


def _build(config: Config) -> list[Case]:
    """Compiles the cases that are wanted."""
    plans = [p for p in _all_plans(config, _shape(config)) if p.name.startswith(ONLY.value)]
    if not plans:
        raise InputError(f"--only: no case begins with {ONLY.value!r}")
    return [plan.compile() for plan in progress(plans, desc="compiling", unit="case")]


def _shape(config: Config) -> Shape:
    devices = runtime.choose_devices(config.train.devices, config.train.batch_size)
    if devices > jax.local_device_count():
        raise InputError(
            f"train.devices: expected at most the {jax.local_device_count()} device(s) of this "
            f"machine, got {devices}"
        )
    return Shape(
        config=config,
        teacher_snapshots=TEACHER.value,
        batch=config.train.batch_size,
        scan_steps=runtime.choose_scan_steps(config.train.scan_steps, 50),
        mesh=make_mesh(devices),
        made={},
    )


def _weights(config: Config) -> LossWeights:
    """Those of a student; of another regime's config, all terms weigh something."""
    alpha, beta = config.loss.alpha, config.loss.beta
    if config.regime != config_lib.Regime.STUDENT:
        alpha, beta = 0.999, 0.0005
    return LossWeights(
        alpha=alpha, rho=config.loss.rho, beta=beta, sigma=losses.feature_weight(alpha, beta)
    )


def _facts(config: Config) -> dict[str, Any]:
    """What every row says beside its own numbers."""
    shape = _shape(config)
    return {
        "snapshots": config.masks.snapshots,
        "teacher_snapshots": shape.teacher_snapshots,
        "size": config.data.size,
        "iterations": config.spectral.iterations,
        "batch": shape.batch,
        "precision": config.net.precision.value,
        "devices": 1 if shape.mesh is None else shape.mesh.size,
        "scan_steps": shape.scan_steps,
        "provenance": run_folder.provenance(),
    }


def _name() -> str:
    """Of the files that a command without sweeps writes."""
    if AGAINST.value:
        return f"against-{AGAINST.value}"
    return "memory" if COMPILE_ONLY.value else "benchmark"


def _parse_sweep(text: str, config: Config) -> tuple[str, dict[int, Config]]:
    """Returns the name of what is swept, and a config for each of its values."""
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
        trials[value] = config_lib.from_dict(config_lib.to_dict(config))
        setattr(getattr(trials[value], section), field, value)
        checks.validate(trials[value])
    return name, trials


def _write(output: Path, name: str, rows: list[dict[str, Any]], text: str) -> None:
    cli.make_folder("--output", output)
    whole_files.write_text(
        output / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
    )
    whole_files.write_text(output / f"{name}.md", text + "\n")
    print(f"\n{text}\n\nwritten: {output}/{name}.jsonl and .md")


if __name__ == "__main__":
    cli.run(main)
