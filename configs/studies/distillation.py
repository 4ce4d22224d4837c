"""What a teacher can give its student: guiding losses, at some weight, and a start."""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Curves, Entry, Study, Table, student_entry, teacher_entry

SHARES = (0.001, 0.05)  # of the guiding losses: as in `presets.student`, and one that does harm
REFINE = 30  # steps of error reduction after the network, scored beside its own image


def distillation_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """Returns the study of a teacher of nine: how much it should guide, and where to start.

    A share is the weight of both guiding losses together: alpha = 1 - share, and each has a half.
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
    # This is the same second training, without the teacher's shots.
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
