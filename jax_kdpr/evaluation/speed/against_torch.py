"""The system timed in turn with its PyTorch twin, once both have been seen to compute the same."""

import copy

import jax
import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.evaluation.speed import report
from jax_kdpr.evaluation.speed.counts import measure_limits
from jax_kdpr.evaluation.speed.report import Row
from jax_kdpr.evaluation.speed.session import Wanted, build, facts, make_shape, student_weights
from jax_kdpr.evaluation.speed.timing import clock, ratio_of, time_alternating
from jax_kdpr.evaluation.speed.torch_worker import AGREEMENT, COMPILED, EAGER, TorchWorker

MODES = {"torch": EAGER, "torch-compile": COMPILED}


def time_against(config: Config, wanted: Wanted, mode: str) -> list[Row]:
    """Times ours and PyTorch's of each case in turn.

    Args:
        config: Of the student.
        wanted: What to time.
        mode: One of `MODES`.

    Raises:
        InputError: If the twin's numbers are others than ours.
    """
    rows = []
    limits = measure_limits()
    known = facts(config, wanted)
    with TorchWorker(threads=runtime.cpu_cores(), mode=MODES[mode]) as worker:
        known |= {"against": worker.describe(), "agreement": _agreement(config, wanted, worker)}
        for case in build(config, wanted):
            if case.name == "step, random":
                continue  # the E2E step less the gradient of the optics; the twin has none
            ours, theirs = time_alternating(
                [
                    lambda case=case: clock(case.call),
                    lambda case=case: worker.clock(case.name, case.units),
                ],
                calls=wanted.calls,
            )
            ours, theirs = ours.per(case.units), theirs.per(case.units)
            ratio, low, high = ratio_of(theirs, ours)
            row = report.row(case, ours, limits, known)
            row |= {"torch_ms": round(1e3 * theirs.median, 3), "ratio": round(ratio, 3)}
            rows.append(row | {"ratio_low": round(low, 3), "ratio_high": round(high, 3)})
    return rows


def _agreement(config: Config, wanted: Wanted, worker: TorchWorker) -> dict[str, float]:
    """Largest difference of the twin's numbers from ours, relative to the largest of ours.

    Raises:
        InputError: If one is above `AGREEMENT`.
    """
    # In float32 on both sides, whatever is timed afterwards.
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
