"""Trials of what the paper leaves open: readings, what a teacher can give, more from one shot.

Each function takes the base config of an E2E run at some scale (`presets.cpu`, `presets.paper`) and
returns a study; every trial changes one thing at a time.
"""

from typing import Any

from jax_kdpr.config.schema import Config
from jax_kdpr.studies.declaration import Curves, Entry, Masks, Study, Sweep, Table
from jax_kdpr.studies.grids import CONSISTENT, GATED, NOISY, REFINE, student_entry, teacher_entry

MASK_RATES = (5e-4, 2e-2, 1e-1)  # radians a step, at most about
CONSISTENCY = (0, 3, 10, 30)  # steps of error reduction
SHARES = (0.001, 0.05)  # of the guiding losses: that of `presets.student`, and one that hurts


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


def distillation_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """What a teacher of nine can give: how much to listen to it, and where to start.

    `share` is what the guiding losses weigh together: alpha = 1 - share, half of it for each.
    """
    guided = {
        f"eq7-{share:g}": student_entry(
            f"eq. 7, share {share:g}", {"loss.alpha": 1.0 - share, "loss.beta": share / 2}
        )
        for share in SHARES
    }
    everything: dict[str, Any] = {"distill.start": "all"}
    started = {
        "started-optics": student_entry(
            "mask and filter from the teacher", {"distill.start": "optics"}
        ),
        "started-network": student_entry("network from the teacher", {"distill.start": "network"}),
        "started": student_entry("all from the teacher", everything),
    }
    # The same second training, without the teacher's shots.
    started["restarted"] = student_entry("all from E2E: restarted", everything, teacher="e2e")
    taught = [name for name, entry in started.items() if entry.changes["distill.start"] == "all"]
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries={
            "e2e": Entry(label="E2E"),
            "e2e-longer": Entry(label="E2E, twice the epochs", longer=2),
            "teacher-9": teacher_entry(9),
            **guided,
            **started,
        },
        sections=(
            Table(
                title="Guided by a teacher's losses",
                question="At which weight do the guiding losses help?",
                entries=("e2e", *guided),
                baseline="e2e",
            ),
            Table(
                title="Started from a teacher",
                question="Students of the same teacher, all trained for as many steps as E2E.",
                entries=("e2e", "teacher-9", *started),
                baseline="e2e",
            ),
            Table(
                title="The same against E2E that was trained for twice the steps",
                question=(
                    "A student that takes over a trained network has had the teacher's steps too. "
                    "This E2E has had as many in all."
                ),
                entries=("e2e-longer", "e2e", *taught),
                baseline="e2e-longer",
            ),
            Table(
                title="What the teacher's shots add",
                question="From a teacher of nine shots, against one of a single shot.",
                entries=("restarted", "started"),
                baseline="restarted",
            ),
            Curves(
                title="Training curves",
                question="Do they differ in speed, or in where they end?",
                entries=("e2e", "e2e-longer", "teacher-9", *taught),
            ),
        ),
    )


def shots_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """What closes the distance between one shot and nine, with one shot and one network pass."""
    lines: dict[str, dict[float, str]] = {"E2E": {}, "random masks": {}}
    entries: dict[str, Entry] = {}
    for regime, label, counts in (
        ("e2e", "E2E", CONSISTENCY),
        ("random", "random masks", CONSISTENCY[::2]),
    ):
        for steps in counts:
            name = f"{regime}-{steps}"
            changes: dict[str, Any] = {"regime": regime, "spectral.consistency_steps": steps}
            entries[name] = Entry(label=f"{label}, {steps} steps", changes=changes)
            lines[label][float(steps)] = name
    others = {
        "teacher-9": teacher_entry(9, label="teacher of 9, no steps"),
        "oversampled-10": Entry(
            label="10 steps, sensor pixels halved", changes=CONSISTENT | {"masks.oversample": 2}
        ),
        "average-10": Entry(
            label="10 steps, running mean of weights", changes=CONSISTENT | {"optim.average": 0.99}
        ),
        "gated-10": Entry(label="10 steps, and 10 gated ones after the network", changes=GATED),
    }
    under_noise = {
        "noisy-10": Entry(label="20 dB: 10 steps", changes=CONSISTENT | NOISY),
        "noisy-gated-10": Entry(label="20 dB: 10 steps, and 10 gated ones", changes=GATED | NOISY),
    }
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries | others | under_noise,
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
                entries=("e2e-10", "e2e-0", *others),
                baseline="e2e-10",
            ),
            Table(
                title="At an SNR of 20 dB, in training and test",
                question="Do steps after the network still help where they fit noise too?",
                entries=tuple(under_noise),
                baseline="noisy-10",
            ),
            Curves(
                title="Training curves",
                question="Do they differ in speed, or in where they end?",
                entries=("e2e-0", "e2e-10", "e2e-30", "gated-10", "oversampled-10", "teacher-9"),
            ),
        ),
    )


def bench_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """What the limits of devices cost a mask that was trained with them, each alone."""
    limits: dict[str, tuple[str, dict[str, Any]]] = {
        "levels-4": ("4 levels (2 bit)", {"device.levels": 4}),
        "levels-2": ("2 levels (1 bit)", {"device.levels": 2}),
        "range": ("phases up to 1.6 pi", {"device.phase_range": 5.026548245743669}),
        "superpixel-2": ("features of 2 x 2 pixels", {"device.superpixel": 2}),
        "crosstalk": ("crosstalk of 0.5 pixels", {"device.crosstalk": 0.5}),
        "zero-order": ("5 % of the light not modulated", {"device.zero_order": 0.05}),
        "camera": (
            "12-bit camera, 1e5 photons",
            {"noise.kind": "camera", "noise.photons": 1e5, "noise.full_well": 3e3},
        ),
    }
    entries = {
        "e2e": Entry(label="ideal device, no errors"),
        **{name: Entry(label=label, changes=changes) for name, (label, changes) in limits.items()},
    }
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        entries=entries,
        sections=(
            Table(
                title="Limits of the devices",
                question="What is lost when masks and network are trained with the limit?",
                entries=tuple(entries),
                baseline="e2e",
            ),
            Masks(
                title="Masks",
                question="How do the masks use what the device can do?",
                entries=("e2e", "levels-4", "range", "superpixel-2", "crosstalk"),
            ),
        ),
    )
