"""Does a teacher's guidance (eq. 5 to 7) help its student? Through which loss, and at which weight?

The study also changes one thing at a time about the systems: the weights of Gamma (with binary
ones, no gradient of the task reaches the masks through y), the learning rates, the teacher's shots,
the scene, or the unit of y.
"""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import (
    Entry,
    Optics,
    Section,
    Study,
    Table,
    student_entry,
    teacher_entry,
)

BETAS = (5e-4, 2e-3, 5e-3, 1e-2, 2.5e-2)  # weights of the CDP loss alone
SIGMAS = (5e-4, 5e-3, 2e-2, 1e-1)  # weights of the feature loss alone
STRONG = {"cdp": 5e-3, "feature": 2e-2}  # pull the masks with a quarter of the task's gradient
BOTH = {"loss.alpha": 0.999, "loss.beta": 5e-4}
LOGGED: dict[str, Any] = {"train.log_gradients": True}
REFINE = 30  # steps of error reduction after the network, scored beside its own image
TEACHERS = (1, 4, 15)  # shots of further teachers, beside 9

BINARY: dict[str, tuple[str, dict[str, Any]]] = {
    "topk": ("brightest sixth", {"spectral.weights": "topk"}),
    "threshold": ("threshold", {"spectral.weights": "threshold"}),  # a share of 0.4 of the maximum
    "low": ("low threshold", {"spectral.weights": "threshold", "spectral.threshold": 0.9}),
}
SLOW: dict[str, Any] = {
    **{"optim.mask_lr": 5e-4, "optim.filter_lr": 5e-4, "optim.net_lr": 5e-4},
    "optim.schedule": "constant",
}


def guidance_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """Returns the study: one guiding loss at a time against E2E of the same seed.

    It does so for one reading of the paper after another.
    """
    entries = {"e2e": Entry(label="E2E"), "teacher-9": teacher_entry(9)}
    entries |= {f"cdp-{beta:g}": _cdp(beta) for beta in BETAS}
    entries |= {f"feature-{sigma:g}": _feature(sigma) for sigma in SIGMAS}
    sections: list[Section] = [
        Table(
            title="One loss at a time",
            question="At which weight does a teacher of nine shots help, through which loss?",
            entries=tuple(entries),
            baseline="e2e",
        ),
        Optics(
            title="One loss at a time: the optics alone",
            question="Do the masks get better, whatever the network makes of them?",
            entries=tuple(entries),
            baseline="e2e",
        ),
    ]
    readings = {**BINARY, "slow": ("constant rates of 0.0005", SLOW)}
    readings["amplitude"] = ("amplitude scenes", {"scene.kind": "amplitude"})
    for name, (label, changes) in readings.items():
        own = _systems(name, label, changes)
        entries |= own
        sections.append(
            Table(
                title=f"The same, {label}",
                question="All systems read the paper so: does its teacher help then?",
                entries=tuple(own),
                baseline=f"{name}-e2e",
            )
        )
        sections.append(
            Optics(
                title=f"The optics alone, {label}",
                question="Do the masks get better?",
                entries=tuple(own),
                baseline=f"{name}-e2e",
            )
        )
    by_count = {f"teacher-{n}": teacher_entry(n) for n in TEACHERS}
    by_count["student-9"] = student_entry("both losses, teacher of 9", BOTH)
    for n in TEACHERS:
        label = f"both losses, teacher of {n}"
        by_count[f"student-{n}"] = student_entry(label, BOTH, teacher=f"teacher-{n}")
    entries |= by_count
    sections.append(
        Table(
            title="Teachers of other numbers of shots",
            question="Both losses, at 0.0005 each: how many shots should a teacher have?",
            entries=tuple(by_count),
            baseline="e2e",
        )
    )
    divided: dict[str, Any] = {"noise.kind": "configs.studies.divided:by_maximum"}
    entries["divided-teacher-9"] = teacher_entry(
        9, label="teacher of 9, y divided by its maximum", changes=divided
    )
    entries["divided-cdp"] = student_entry(
        "CDP loss 0.2, y divided by its maximum",
        {"loss.alpha": 0.8, "loss.beta": 0.2} | divided,
        teacher="divided-teacher-9",
    )
    sections.append(
        Table(
            title="CDPs in units of their maximum",
            question=(
                "Eq. 5 weighs scenes otherwise, and is some 60 times smaller; nothing else depends "
                "on the unit, so that E2E is the same run."
            ),
            entries=("e2e", "divided-teacher-9", "divided-cdp"),
            baseline="e2e",
        )
    )
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries,
        sections=tuple(sections),
    )


def _cdp(beta: float, *, teacher: str = "teacher-9", **more: Any) -> Entry:
    changes: dict[str, Any] = {"loss.alpha": 1.0 - beta, "loss.beta": beta}
    logged = LOGGED if beta == STRONG["cdp"] else {}
    return student_entry(f"CDP loss {beta:g}", changes | logged | more, teacher=teacher)


def _feature(sigma: float, *, teacher: str = "teacher-9", **more: Any) -> Entry:
    changes: dict[str, Any] = {"loss.alpha": 1.0 - sigma}
    logged = LOGGED if sigma == STRONG["feature"] else {}
    return student_entry(f"feature loss {sigma:g}", changes | logged | more, teacher=teacher)


def _systems(name: str, label: str, changes: dict[str, Any]) -> dict[str, Entry]:
    """Returns E2E, a teacher of nine and its students, all with the same changes."""
    teacher = f"{name}-teacher-9"
    entries = {
        f"{name}-e2e": Entry(label="E2E", changes=changes),
        teacher: teacher_entry(9, changes=changes),
        f"{name}-cdp": _cdp(STRONG["cdp"], teacher=teacher, **changes),
        f"{name}-feature": _feature(STRONG["feature"], teacher=teacher, **changes),
        f"{name}-student": student_entry("both, 0.0005 each", BOTH | changes, teacher=teacher),
    }
    for entry in entries.values():
        entry.label += f", {label}"
    return entries
