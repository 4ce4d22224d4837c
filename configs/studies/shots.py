"""What closes the distance between one shot and nine, with one shot and one network pass."""

from typing import Any

from jax_kdpr.config import Config, presets
from jax_kdpr.studies.declaration import Curves, Entry, Study, Sweep, Table, teacher_entry

CONSISTENCY = (0, 3, 10, 30)  # steps of error reduction
REFINE = 30  # steps of error reduction after the network, scored beside its own image
CONSISTENT: dict[str, Any] = {"spectral.consistency_steps": presets.CONSISTENCY_STEPS}
GATED: dict[str, Any] = CONSISTENT | {"net.refine_steps": presets.REFINE_STEPS}
NOISY: dict[str, Any] = {"noise.kind": "gaussian", "noise.snr_db": 20.0}


def shots_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """Returns the study: one shot with error reduction and other changes, and a teacher of nine."""
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
