"""Times the system in turn with its PyTorch twin, after checking that both compute the same."""

import copy

import jax
import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.evaluation.speed import report
from jax_kdpr.evaluation.speed.cases import Case
from jax_kdpr.evaluation.speed.counts import measure_limits
from jax_kdpr.evaluation.speed.report import Row
from jax_kdpr.evaluation.speed.session import Wanted, build, facts, make_shape, student_weights
from jax_kdpr.evaluation.speed.timing import Timing, clock, ratio_of, time_alternating
from jax_kdpr.evaluation.speed.torch_worker import AGREEMENT, COMPILED, EAGER, TorchWorker

MODES = {"torch": EAGER, "torch-compile": COMPILED}
WITHOUT_TWIN = "step, random"  # the E2E step without the gradient of the optics


def time_against(config: Config, wanted: Wanted, mode: str) -> list[Row]:
    """Times each case in turn with PyTorch's version of it.

    Args:
        config: Config of the student.
        wanted: What to time.
        mode: One of `MODES`.

    Raises:
        InputError: If the twin's numbers differ from ours.
    """
    rows = []
    limits = measure_limits()
    known = facts(config, wanted)
    with TorchWorker(threads=runtime.cpu_cores(), mode=MODES[mode]) as worker:
        known |= {"against": worker.describe(), "agreement": _agreement(config, wanted, worker)}
        for case in build(config, wanted):
            if case.name == WITHOUT_TWIN:
                continue
            ours, theirs = time_in_turn(case, worker, calls=wanted.calls, steps=case.units)
            rows.append(report.row(case, ours, limits, known) | theirs)
    return rows


def time_in_turn(
    case: Case, worker: TorchWorker | None, *, calls: int, steps: int
) -> tuple[Timing, dict[str, float]]:
    """Times a case, in turn with PyTorch's version if there is one.

    Args:
        case: Our case.
        worker: The PyTorch process; None to time our case alone.
        calls: Timed calls of each.
        steps: Batches or steps of PyTorch in a call.

    Returns:
        (our times, the fields of a row about PyTorch's); both of one batch or step.
    """
    clocks = [lambda: clock(case.call)]
    if worker is not None and case.name != WITHOUT_TWIN:
        clocks.append(lambda: worker.clock(case.name, steps))
    timing, *others = time_alternating(clocks, calls=calls)
    ours = timing.per(case.units)
    if worker is None or not others:
        return ours, {}
    theirs = others[0].per(steps)
    ratio, low, high = ratio_of(theirs, ours)
    row = {"torch_ms": round(1e3 * theirs.median, 3), "ratio": round(ratio, 3)}
    return ours, row | {"ratio_low": round(low, 3), "ratio_high": round(high, 3)}


def start(config: Config, wanted: Wanted, mode: str) -> TorchWorker:
    """Starts a PyTorch process with the systems of a config; the caller must close it.

    Raises:
        InputError: As in `time_against`.
    """
    worker = TorchWorker(threads=runtime.cpu_cores(), mode=MODES[mode])
    try:
        _agreement(config, wanted, worker)
    except InputError:
        worker.close()
        raise
    return worker


def _agreement(config: Config, wanted: Wanted, worker: TorchWorker) -> dict[str, float]:
    """Returns the twin's largest difference from each of our arrays, over our largest value.

    Raises:
        InputError: If one is above `AGREEMENT`.
    """
    # Both sides compute in float32 here, whatever is timed afterwards.
    shape = make_shape(config, wanted)
    exact = shape._replace(config=copy.deepcopy(config))
    exact.config.net.precision = "float32"
    size = config.data.size
    images = np.random.default_rng(0).random((config.train.batch_size, size, size, 1), np.float32)
    weights = student_weights(config)
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
            tf32=config.net.precision == "tf32",
            weights={name: float(value) for name, value in weights.items()},
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
