"""The grids that the paper's tables and figures want, and those of what it leaves open.

Each function takes the base config of one scale (`presets.cpu`, `presets.paper`) and returns the
study of that scale. The paper's numbers are those of its Tables 1 and 2 and figure 3.
"""

from typing import Any

from jax_kdpr import presets
from jax_kdpr.config import Config
from jax_kdpr.config_fields import flatten
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
TRAINING_SNR = 20.0  # dB, of the entries that are trained with noise


def paper_study(
    base: Config, *, title: str, teachers: tuple[int, ...] = (1, 4, 9), seeds: tuple[int, ...]
) -> Study:
    """Tables 1 and 2, figures 2 to 4, and what closes the distance between one shot and nine.

    Args:
        base: Config of an E2E run at the wanted scale.
        title: Of the report.
        teachers: Snapshots of the teachers; 1 is the E2E baseline itself. 9 must be among them.
        seeds: Seeds of every entry.
    """
    many = [count for count in teachers if count > 1]
    entries = {
        "random": Entry(label="random masks", changes={"regime": "random"}),
        "e2e": Entry(label="E2E"),
        **{f"teacher-{count}": _teacher(count) for count in many},
        # Eq. 7 as the paper has it.
        "feature": _student("feature loss", {"loss.alpha": 0.9995}),
        "cdp": _student("CDP loss", {"loss.alpha": 0.9995, "loss.beta": 0.0005}),
        "student": _student("both (the paper's student)", _eq7()),
        "student-strong": _student(
            "both, guidance 50 times stronger", {"loss.alpha": 0.95, "loss.beta": 0.025}
        ),
        # What we tried beside it.
        "balanced": _student("both, balanced and annealed", _BALANCED),
        "started-optics": _student("mask and filter from the teacher", {"distill.start": "optics"}),
        "started-network": _student("network from the teacher", {"distill.start": "network"}),
        "recipe": _student("all from the teacher (our recipe)", _RECIPE),
        "recipe-guided": _student("all from the teacher, and balanced", _RECIPE | _BALANCED),
        "e2e-longer": Entry(
            label="E2E, twice the epochs", changes={"train.epochs": 2 * base.train.epochs}
        ),
        **{
            f"student-{count}": _student(f"student of {count}", _eq7(), teacher=_teacher_of(count))
            for count in teachers
            if count != 9
        },
        # One shot, one network pass, more of the physics.
        "consistent": Entry(label="E2E, consistent", changes=_CONSISTENT),
        "consistent-teacher": _teacher(4, label="teacher of 4, consistent", changes=_CONSISTENT),
        "consistent-recipe": _student(
            "our recipe, consistent", _RECIPE | _CONSISTENT, teacher="consistent-teacher"
        ),
        "oversampled": Entry(label="E2E, sensor pixels halved", changes={"masks.oversample": 2}),
        # Trained with noise, to be tried under more and less of it.
        "e2e-noisy": Entry(label="E2E, trained at 20 dB", changes=_NOISY),
        "consistent-noisy": Entry(
            label="E2E, consistent, trained at 20 dB", changes=_CONSISTENT | _NOISY
        ),
    }
    four = ("teacher-9", "random", "e2e", "student")
    return Study(
        title=title,
        base=base,
        seeds=seeds,
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
                entries=("e2e", "feature", "cdp", "student", "student-strong"),
                baseline="e2e",
                paper=TABLE_1,
            ),
            Table(
                title="What makes a teacher useful",
                question=(
                    "Students of the same teacher and the same number of steps as E2E, but for the "
                    "last row: E2E given as many steps as teacher and student have together."
                ),
                entries=(
                    *("e2e", "student", "balanced", "started-optics", "started-network"),
                    *("recipe", "recipe-guided", "e2e-longer"),
                ),
                baseline="e2e",
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
                    "estimate and network. Sensor pixels halved: the object plane zero-padded to "
                    "twice its size."
                ),
                entries=(
                    *("e2e", "oversampled", "consistent", "consistent-recipe"),
                    *("teacher-9", "consistent-teacher"),
                ),
                baseline="e2e",
            ),
            Samples(
                title="Figure 4: samples",
                question="The first test scenes, PSNR and SSIM below each; first seed.",
                entries=(*four, "recipe", "consistent"),
            ),
            Curves(
                title="Training curves",
                question="Has the training converged, and which losses are left?",
                entries=(*four, "recipe", "consistent", "consistent-recipe"),
            ),
            Masks(
                title="Masks",
                question="What do the masks look like, and are all phases used? First seed.",
                entries=(*four, "recipe", "consistent"),
            ),
            Robustness(
                title="Robustness to noise",
                question="How do networks trained without noise, and with, stand it?",
                entries=("e2e", "student", "recipe", "e2e-noisy", "consistent", "consistent-noisy"),
                snr_db=(0.0, 10.0, 20.0, 30.0, 40.0),
                photons=(1e4, 1e5, 1e6, 1e7, 1e8),
            ),
            Costs(
                title="Table 2: costs",
                question="What do training and inference take?",
                entries=("e2e", "teacher-9", "student", "consistent"),
                paper=TABLE_2,
            ),
        ),
    )


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
        "mask-lr-low": Entry(label="mask rate 5e-4", changes={"optim.mask_lr": 5e-4}),
        "mask-lr-high": Entry(label="mask rate 1e-1", changes={"optim.mask_lr": 0.1}),
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
                entries=("e2e", "weights-topk", "mask-lr-low", "mask-lr-high", "oversample-2"),
            ),
        ),
    )


_CONSISTENT: dict[str, Any] = {"spectral.consistency_steps": presets.CONSISTENCY_STEPS}
_NOISY: dict[str, Any] = {"noise.kind": "gaussian", "noise.snr_db": TRAINING_SNR}
_BALANCED: dict[str, Any] = {
    "loss.alpha": 0.8,
    "loss.beta": 0.1,
    "loss.balance": "task",
    "loss.anneal": "linear",
    "loss.cdp": "log",
    "loss.feature": "normalised",
}
_RECIPE: dict[str, Any] = {"distill.start": "all"}


def _teacher(count: int, *, label: str = "", changes: dict[str, Any] | None = None) -> Entry:
    own: dict[str, Any] = {"regime": "teacher", "masks.snapshots": count}
    return Entry(label=label or f"teacher of {count}", changes=own | (changes or {}))


def _student(label: str, changes: dict[str, Any], *, teacher: str = "teacher-9") -> Entry:
    return Entry(label=label, changes={"regime": "student", **changes}, teacher=teacher)


def _teacher_of(count: int) -> str:
    """A teacher of one snapshot is the E2E baseline itself."""
    return "e2e" if count == 1 else f"teacher-{count}"


def _eq7() -> dict[str, Any]:
    """The weights of `presets.student`."""
    chosen = flatten(presets.student(Config()))
    return {path: chosen[path] for path in ("loss.alpha", "loss.beta")}
