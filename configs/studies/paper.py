"""The grid behind the paper's tables and figures, with its numbers (Tables 1 and 2, figure 3).

`configs/cpu/study.py` and `configs/paper/study.py` are this study at two scales.
"""

import copy
from typing import Any

from jax_kdpr.config import Config, presets
from jax_kdpr.core.options import flatten
from jax_kdpr.studies.declaration import (
    Costs,
    Curves,
    Entry,
    Masks,
    Robustness,
    Samples,
    Study,
    Sweep,
    Table,
    student_entry,
    teacher_entry,
)

# Table 1: PSNR (dB) and SSIM of the student, teacher of 9 snapshots.
TABLE_1 = {
    "e2e": (26.41, 0.910),
    "feature": (26.70, 0.912),
    "cdp": (26.94, 0.923),
    "student": (26.98, 0.915),
}
# Table 2: training (s), memory (MB), inference of a batch (ms), on an RTX 4090.
TABLE_2 = {"teacher-9": (23658.0, 5577.0, 76.0), "student": (26485.0, 6647.0, 32.0)}
FIGURE_3 = (
    "the student is better than E2E for every teacher, even of one snapshot, and levels off at "
    "26.95 to 27 dB; the largest teacher is not the best."
)
REFINE = 30  # steps of error reduction after the network, scored beside its own image
TRAINING_SNR = 20.0  # dB, of the entries that are trained with noise

CONSISTENT: dict[str, Any] = {"spectral.consistency_steps": presets.CONSISTENCY_STEPS}
GATED: dict[str, Any] = CONSISTENT | {"net.refine_steps": presets.REFINE_STEPS}
NOISY: dict[str, Any] = {"noise.kind": "gaussian", "noise.snr_db": TRAINING_SNR}


def paper_study(
    base: Config, *, title: str, teachers: tuple[int, ...] = (1, 4, 9), seeds: tuple[int, ...]
) -> Study:
    """Returns the study of tables 1 and 2 and figures 2 to 4.

    It also shows what closes the distance between one shot and nine.

    Args:
        base: Config of an E2E run at the wanted scale.
        title: Title of the report.
        teachers: Snapshots of the teachers; 1 is the E2E baseline itself. 9 must be among them.
        seeds: Seeds of every entry.
    """
    many = [count for count in teachers if count > 1]
    entries = {
        "random": Entry(label="random masks", changes={"regime": "random"}),
        "e2e": Entry(label="E2E"),
        **{f"teacher-{count}": teacher_entry(count) for count in many},
        # Eq. 7 as the paper has it.
        "feature": student_entry("feature loss", {"loss.alpha": 0.9995}),
        "cdp": student_entry("CDP loss", {"loss.alpha": 0.9995, "loss.beta": 0.0005}),
        "student": student_entry("both (the paper's student)", _eq7()),
        **{
            f"student-{count}": student_entry(
                f"student of {count}", _eq7(), teacher=_teacher_of(count)
            )
            for count in teachers
            if count != 9
        },
        # One shot, one network pass, more of the physics.
        "consistent": Entry(label="E2E, consistent", changes=CONSISTENT),
        "gated": Entry(label="E2E, gated", changes=GATED),
        "gated-longer": Entry(label="E2E, gated, twice the epochs", changes=GATED, longer=2),
        "recipe-teacher": teacher_entry(4, label="our recipe's teacher of 4", changes=GATED),
        "recipe": student_entry("our recipe", _recipe_changes(base), teacher="recipe-teacher"),
        # The same second training, without the teacher's shots.
        "restarted": student_entry("E2E, gated, restarted", _recipe_changes(base), teacher="gated"),
        # Trained with noise, to be tried under more and less of it.
        "e2e-noisy": Entry(label="E2E, trained at 20 dB", changes=NOISY),
        "consistent-noisy": Entry(
            label="E2E, consistent, trained at 20 dB", changes=CONSISTENT | NOISY
        ),
        "gated-noisy": Entry(label="E2E, gated, trained at 20 dB", changes=GATED | NOISY),
    }
    four = ("teacher-9", "random", "e2e", "student")
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        refine=REFINE,
        entries=entries,
        sections=(
            Table(
                title="The four systems",
                question="Does the order hold: random, E2E, student, teacher?",
                entries=("random", "e2e", "student", "teacher-9"),
                baseline="e2e",
                paper={name: TABLE_1[name] for name in ("e2e", "student")},
            ),
            Table(
                title="Table 1: the guiding losses",
                question="Eq. 7 as the paper has it, teacher of 9 snapshots: which loss helps?",
                entries=("e2e", "feature", "cdp", "student"),
                baseline="e2e",
                paper=TABLE_1,
            ),
            Sweep(
                title="Figure 2: the teacher against its snapshots",
                question="How much better does the object become known with more shots?",
                axis="snapshots of the teacher",
                lines={"teacher": {float(n): _teacher_of(n) for n in teachers}},
                paper="rises with the number of snapshots (a plot without numbers).",
            ),
            Sweep(
                title="Figure 3: the student against its teacher's snapshots",
                question="How many snapshots should a teacher have?",
                axis="snapshots of the teacher",
                lines={
                    "student": {float(n): "student" if n == 9 else f"student-{n}" for n in teachers}
                },
                reference="e2e",
                paper=FIGURE_3,
            ),
            Table(
                title="From one shot towards nine",
                question=(
                    "Still one shot and one network pass. Consistent: "
                    f"{presets.CONSISTENCY_STEPS} steps of error reduction between spectral "
                    f"estimate and network. Gated: {presets.REFINE_STEPS} more after the network, "
                    "followed as far as its gate lets them."
                ),
                entries=("e2e", "consistent", "gated", "recipe", "teacher-9", "recipe-teacher"),
                baseline="e2e",
            ),
            Table(
                title="What the gate adds",
                question="The same steps before the network, with gated ones after it and without.",
                entries=("consistent", "gated"),
                baseline="consistent",
            ),
            Table(
                title="Past nine shots",
                question="One shot, with data consistency, against nine shots without.",
                entries=("teacher-9", "consistent", "gated", "recipe"),
                baseline="teacher-9",
            ),
            Table(
                title="Our recipe",
                question=(
                    "Gated, and all from a gated teacher: against E2E of the same kind, with as "
                    "many steps as the student, and with as many as both."
                ),
                entries=("gated", "gated-longer", "recipe"),
                baseline="gated",
            ),
            Table(
                title="Our recipe against E2E of twice the steps",
                question=(
                    "The same, with as many steps in all. Restarted: a student of the gated E2E, "
                    "so that its training has two parts as well, but one shot in both."
                ),
                entries=("gated-longer", "restarted", "recipe"),
                baseline="gated-longer",
            ),
            Table(
                title="What the teacher's shots add",
                question="From a teacher of four shots, against one of a single shot.",
                entries=("restarted", "recipe"),
                baseline="restarted",
            ),
            Samples(
                title="Figure 4: samples",
                question="The first test scenes, PSNR and SSIM below each; first seed.",
                entries=(*four, "consistent", "gated", "recipe"),
            ),
            Curves(
                title="Training curves",
                question="Has the training converged, and which losses are left?",
                entries=(*four, "consistent", "gated", "recipe"),
            ),
            Masks(
                title="Masks",
                question="What do the masks look like, and are all phases used? First seed.",
                entries=(*four, "consistent", "gated", "recipe"),
            ),
            Robustness(
                title="Robustness to noise",
                question="How do networks trained without noise, and with, stand it?",
                entries=(
                    *("e2e", "student", "e2e-noisy", "consistent", "consistent-noisy"),
                    *("gated", "gated-noisy"),
                ),
                snr_db=(0.0, 10.0, 20.0, 30.0, 40.0),
                photons=(1e4, 1e5, 1e6, 1e7, 1e8),
            ),
            Costs(
                title="Table 2: costs",
                question="What do training and inference take?",
                entries=("e2e", "teacher-9", "student", "consistent", "gated"),
                paper=TABLE_2,
            ),
        ),
    )


def _recipe_changes(base: Config) -> dict[str, Any]:
    """Returns the changes that turn an E2E run into the student of `presets.recipe`."""
    student = copy.deepcopy(base)
    student.regime = "student"
    before, after = flatten(base), flatten(presets.recipe(student))
    return {path: value for path, value in after.items() if value != before[path]}


def _teacher_of(count: int) -> str:
    """Returns the entry of a teacher; with one snapshot it is the E2E baseline itself."""
    return "e2e" if count == 1 else f"teacher-{count}"


def _eq7() -> dict[str, Any]:
    """Returns the loss weights of `presets.student`."""
    chosen = flatten(presets.student(Config()))
    return {path: chosen[path] for path in ("loss.alpha", "loss.beta")}
