"""Trials of what the paper leaves open: readings, loss weights, how one shot gets further.

Each function takes the base config of an E2E run at some scale (`presets.cpu`, `presets.paper`) and
returns a study; every trial changes one thing at a time.
"""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Curves, Entry, Study, Sweep, Table
from jax_kdpr.studies.grids import BALANCED, REFINE, teacher_entry

MASK_RATES = (5e-4, 2e-2, 1e-1)  # radians a step, at most about
CONSISTENCY = (0, 3, 10, 30)  # steps of error reduction
GUIDANCE = (0.001, 0.03, 0.3)  # 1 - alpha


def readings_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """The open readings of the paper, one changed at a time from the defaults, all E2E."""
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
        "inputs-abs-phase": Entry(
            label="network sees modulus and angle", changes={"net.inputs": "abs_phase"}
        ),
        "range-2pi": Entry(
            label="phase range 2 pi", changes={"scene.phase_range": 6.283185307179586}
        ),
        "amplitude": Entry(label="amplitude scene", changes={"scene.kind": "amplitude"}),
        "oversample-2": Entry(label="oversampling 2", changes={"masks.oversample": 2}),
        "iterations-50": Entry(label="T = 50", changes={"spectral.iterations": 50}),
        "gauge-mean": Entry(label="gauge: real mean", changes={"spectral.gauge": "mean"}),
        "implicit": Entry(
            label="implicit gradient, gauge: real mean",
            changes={"spectral.gradient": "implicit", "spectral.gauge": "mean"},
        ),
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


def weights_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """How much a teacher of nine should be listened to, and in which form."""
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "eq7": ("eq. 7, half CDP, half feature loss", {}),
        "balanced": (
            "log CDP and normalised feature loss, balanced, annealed",
            BALANCED,
        ),
        "estimate": (
            "spectral estimate and normalised feature loss, balanced, annealed",
            BALANCED | {"loss.cdp": "estimate"},
        ),
    }
    entries = {
        "e2e": Entry(label="E2E"),
        "teacher-9": teacher_entry(9),
    }
    lines: dict[str, dict[float, str]] = {}
    for form, (label, changes) in forms.items():
        for share in GUIDANCE:
            weights = {"loss.alpha": 1.0 - share, "loss.beta": share / 2}
            name = f"{form}-{share:g}"
            entries[name] = Entry(
                label=f"{form}, {share:g}",
                changes={"regime": "student", **changes, **weights},
                teacher="teacher-9",
            )
            lines.setdefault(label, {})[share] = name
    students = tuple(name for line in lines.values() for name in line.values())
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries,
        sections=(
            Sweep(
                title="Weight of the guiding losses",
                question="alpha = 1 - g, beta = sigma = g / 2: which g, and which form?",
                axis="share g of the guiding losses",
                lines=lines,
                reference="e2e",
                log_axis=True,
            ),
            Table(
                title="The same as a table",
                question="Gains over E2E of the same seed and length.",
                entries=("e2e", "teacher-9", *students),
                baseline="e2e",
            ),
        ),
    )


def shots_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """What closes the distance between one shot and nine, with one shot and one network pass."""
    lines: dict[str, dict[float, str]] = {"E2E": {}, "random masks": {}}
    entries: dict[str, Entry] = {}
    for regime, label in (("e2e", "E2E"), ("random", "random masks")):
        for steps in CONSISTENCY:
            name = f"{regime}-{steps}"
            changes: dict[str, Any] = {"regime": regime, "spectral.consistency_steps": steps}
            entries[name] = Entry(label=f"{label}, {steps} steps", changes=changes)
            lines[label][float(steps)] = name
    consistent = {"spectral.consistency_steps": 10}
    others = {
        "teacher-9": teacher_entry(9, label="teacher of 9, no steps"),
        "iterations-50": Entry(label="E2E, T = 50", changes={"spectral.iterations": 50}),
        "average": Entry(label="E2E, running mean of weights", changes={"optim.average": 0.99}),
        "oversampled": Entry(label="E2E, sensor pixels halved", changes={"masks.oversample": 2}),
        "oversampled-10": Entry(
            label="E2E, sensor pixels halved, 10 steps",
            changes={"masks.oversample": 2} | consistent,
        ),
        "average-10": Entry(
            label="E2E, running mean of weights, 10 steps",
            changes={"optim.average": 0.99} | consistent,
        ),
    }
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries | others,
        sections=(
            Sweep(
                title="Steps of error reduction before the network",
                question="How many steps of data consistency, and does the mask still matter?",
                axis="steps",
                lines=lines,
                reference="teacher-9",
            ),
            Table(
                title="One change at a time",
                question="One shot and one network pass, but for the teacher.",
                entries=("e2e-0", "e2e-10", *others),
                baseline="e2e-0",
            ),
            Curves(
                title="Training curves",
                question="Do they differ in speed, or in where they end?",
                entries=("e2e-0", "e2e-10", "e2e-30", "oversampled-10", "teacher-9"),
            ),
        ),
    )
