"""How long the runs of a study will take: counted arithmetic over a measured rate.

The rate is that of the runs already finished in this folder; before the first, a share of what a
matrix product reaches on this device.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.evaluation.speed.counts import measure_limits, measure_work, spectral_work, unet_work
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.training.losses import guides, loss_weights

# On two cores of an AMD EPYC an operation of the FFTs took as long as five of the convolutions.
FFT_COST = 5.0
# Of a matrix product's rate, over whole runs of `configs/cpu` on the same machine.
EFFICIENCY = 0.35


class ImageCounts(NamedTuple):
    """Images of a data set's splits."""

    train: int
    validation: int
    test: int


def run_operations(config: Config, teacher: Config | None, images: ImageCounts) -> float:
    """Returns the operations of one training with its validations and test, FFTs at their cost.

    A gradient counts twice its forward pass; a teacher's targets count as made once.
    """
    optics, network = _pass_operations(config)
    gradient = network * 3 + (optics if config.regime == "random" else optics * 3)
    per_epoch = gradient * images.train + (optics + network) * images.validation
    total = per_epoch * config.train.epochs + (optics + network) * images.test
    if teacher is not None and guides(loss_weights(config)):
        total += sum(_pass_operations(teacher)) * images.train
    return total


def measured_rate(runs: list[PlannedRun], operations: list[float]) -> float | None:
    """Returns operations a second of the finished runs; None if there is none."""
    done = [(run, count) for run, count in zip(runs, operations, strict=True) if run.is_trained]
    seconds = sum(training_seconds(run_folder.read_metrics(run.workdir)) for run, _ in done)
    return sum(count for _, count in done) / seconds if seconds else None


def training_seconds(rows: list[dict[str, Any]], *, timed: str = "seconds") -> float:
    """Returns how long a training took, from its rows of metrics.

    An epoch that was interrupted says only how long its rest took, or its validation alone: it
    counts as the median epoch.

    Args:
        rows: One an epoch.
        timed: "seconds", or "train_seconds" to leave validation out.
    """
    seconds = [row[timed] for row in rows]
    if not seconds:
        return 0.0
    # The lower one of two: the first epoch may have compiled.
    median = np.quantile(seconds, 0.5, method="lower")
    return float(np.sum(np.maximum(seconds, median)))


def expected_rate() -> float:
    """Returns operations a second that this device can be expected to do."""
    return EFFICIENCY * measure_limits(seconds=0.5).flops


def remaining_share(run: PlannedRun) -> float:
    """Returns how much of a run is still to be done, 0 to 1."""
    return 0.0 if run.is_done else max(0.0, 1.0 - run.epochs_done / run.config.train.epochs)


def _pass_operations(config: Config) -> tuple[float, float]:
    """Of one scene, forward: (optics, network)."""
    shape = {
        "size": config.data.size,
        "snapshots": config.masks.snapshots,
        "oversample": config.masks.oversample,
    }
    # A step of error reduction is one iteration without the filter.
    consistency = config.spectral.consistency_steps + config.net.refine_steps
    iterations = config.spectral.iterations + consistency
    optics = spectral_work(**shape, iterations=iterations) + measure_work(**shape)
    network = unet_work(
        size=config.data.size,
        widths=config.net.widths,
        channels=config.scene.channels,
    )
    return FFT_COST * optics.flops, network.flops
