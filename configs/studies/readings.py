"""The open readings of the paper, one changed at a time, for `configs/cpu` and `configs/paper`."""

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Curves, Entry, Study, Table

MASK_RATES = (5e-4, 2e-2, 1e-1)  # radians a step, at most about
REFINE = 30  # steps of error reduction after the network, scored beside its own image


def readings_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """Returns the study: E2E with one reading of the paper at a time changed from the default."""
    weights = "weights of Gamma: "
    entries = {
        "e2e": Entry(label="defaults"),
        "weights-intensity": Entry(
            label=weights + "intensity", changes={"spectral.weights": "intensity"}
        ),
        "weights-topk": Entry(
            label=weights + "brightest sixth", changes={"spectral.weights": "topk"}
        ),
        "weights-threshold": Entry(
            label=weights + "threshold, p = 0.9",
            changes={"spectral.weights": "threshold", "spectral.threshold": 0.9},
        ),
        "filter-3": Entry(label="filter 3 x 3", changes={"spectral.filter_size": 3}),
        "filter-9": Entry(
            label="filter 9 x 9, sigma 2",
            changes={"spectral.filter_size": 9, "spectral.filter_sigma": 2.0},
        ),
        "norm-group": Entry(label="group norm", changes={"net.norm": "group"}),
        **{
            f"mask-lr-{rate:g}": Entry(label=f"mask rate {rate:g}", changes={"optim.mask_lr": rate})
            for rate in MASK_RATES
            if rate != base.optim.mask_lr
        },
        "range-2pi": Entry(
            label="phase range 2 pi", changes={"scene.phase_range": 6.283185307179586}
        ),
        "amplitude": Entry(label="amplitude scene", changes={"scene.kind": "amplitude"}),
        "oversample-2": Entry(label="oversampling 2", changes={"masks.oversample": 2}),
        "iterations-50": Entry(label="T = 50", changes={"spectral.iterations": 50}),
        "gauge-mean": Entry(label="gauge: real mean", changes={"spectral.gauge": "mean"}),
    }
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries,
        sections=(
            Table(
                title="Open readings of the paper",
                question=(
                    "One option changed at a time. The paper's E2E baseline reaches 26.41 dB / "
                    "0.910 at 96 x 96, 30,000 images and 120 epochs."
                ),
                entries=tuple(entries),
                baseline="e2e",
            ),
            Curves(
                title="Training curves",
                question="Do the readings differ in speed, or in where they end?",
                entries=("e2e", "weights-topk", "norm-group", "mask-lr-0.1", "oversample-2"),
            ),
        ),
    )
