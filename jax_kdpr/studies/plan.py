"""The runs that a study plans, and how far each has come in its folder."""

from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.evaluation.alone import OPTICS, OPTICS_FILE
from jax_kdpr.evaluation.scores import RECOVERED, REFINED
from jax_kdpr.evaluation.scoring import SCORES, SCORES_FILE, noise_levels
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import read_planes
from jax_kdpr.studies.declaration import Optics, Robustness, Study, entry_config, training_order

ROBUSTNESS_FILE = "robustness.json"
UNDER_NOISE = {str: {str: {str: float}}}
ROBUSTNESS = {"checkpoint": str, "scores": UNDER_NOISE, "rms": UNDER_NOISE}


class PlannedRun(NamedTuple):
    """One training of a study."""

    entry: str
    seed: int
    config: Config
    workdir: Path
    teacher: "PlannedRun | None"
    robustness: Robustness | None  # noise under which it is to be scored too
    refinement: Refinement  # after the network, to be scored too
    alone: bool = False  # whether its optics are judged without the network too

    @property
    def name(self) -> str:
        """The run's name in messages."""
        return f"{self.entry}, seed {self.seed}"

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left, and the last one's checkpoint is there.

        A process that is killed between the two leaves a row of metrics without its checkpoint.
        """
        rows = run_folder.read_metrics(self.workdir)
        return (
            bool(rows)
            and rows[-1]["epoch"] >= self.config.train.epochs
            and rows[-1]["step"] in checkpoint.steps(self.workdir)
        )

    @property
    def scores(self) -> dict[str, Any] | None:
        """Contents of metrics.json for the fully trained run; None if missing or out of date."""
        path = self.workdir / SCORES_FILE
        if not self.is_trained or not path.exists():
            return None
        found = json_files.read_json(path, SCORES)
        made = Refinement(found["refine"], found["refine_with"], found["refine_tv"])
        is_current = (found["epochs"], made) == (self.config.train.epochs, self.refinement)
        return found if is_current else None

    @property
    def noisy_scores(self) -> dict[str, Any] | None:
        """Scores in robustness.json of this checkpoint under the wanted noise; None if missing."""
        path, scores = self.workdir / ROBUSTNESS_FILE, self.scores
        if self.robustness is None or scores is None or not path.exists():
            return None
        found = json_files.read_json(path, ROBUSTNESS)
        wanted = self.noise_conditions(scores)
        if any(found.get(name) != value for name, value in wanted.items()):
            return None
        levels = noise_levels(self.robustness.snr_db, self.robustness.photons)
        numbers = {kind: {f"{one:g}": float for one in of} for kind, of in levels.items()}
        answers = (RECOVERED, REFINED)[: 1 + bool(self.refinement.steps)]
        whole = dict.fromkeys(answers, numbers)
        try:
            json_files.check_shape(found, {"scores": whole, "rms": whole})
        except ValueError:  # a number is missing
            return None
        return {name: found[name] for name in ("scores", "rms")}

    @property
    def optics_scores(self) -> dict[str, Any] | None:
        """Contents of optics.json for this checkpoint; None if missing or not wanted."""
        path, scores = self.workdir / OPTICS_FILE, self.scores
        if not self.alone or scores is None or not path.exists():
            return None
        found = json_files.read_json(path, OPTICS)
        return found if found["checkpoint"] == scores["checkpoint_digest"] else None

    def noise_conditions(self, scores: dict[str, Any]) -> dict[str, Any]:
        """Returns the conditions of scores under noise, as they are written beside the scores."""
        noise = self.robustness
        return {
            "checkpoint": scores["checkpoint_digest"],
            "snr_db": list(noise.snr_db) if noise else [],
            "photons": list(noise.photons) if noise else [],
            "images": noise.images if noise else 0,
            "refine": self.refinement.steps,
        }

    @property
    def is_done(self) -> bool:
        """Whether it is trained, and has all the scores that the report needs."""
        return (
            self.scores is not None
            and (self.robustness is None or self.noisy_scores is not None)
            and (not self.alone or self.optics_scores is not None)
        )

    @property
    def state(self) -> str:
        """State in words, such as "done" or "epoch 3 of 10"."""
        if self.is_done:
            return "done"
        if self.is_trained:
            return "trained, not all scored"
        if not self.started:
            return "new"
        return f"epoch {run_folder.epochs_done(self.workdir)} of {self.config.train.epochs}"

    @property
    def started(self) -> bool:
        """Whether its folder holds a run that has saved anything."""
        return run_folder.has_begun(self.workdir)


def plan(study: Study, workdir: Path) -> list[PlannedRun]:
    """Returns the runs of a study in the order of training: seed by seed, teachers first.

    Args:
        study: The study.
        workdir: Folder that holds, or is to hold, their run folders.

    Raises:
        InputError: If the options of an entry do not fit, or a folder holds the run of another
            config, of other data or of another teacher.
    """
    under_noise = {
        name: section
        for section in study.sections
        if isinstance(section, Robustness)
        for name in section.entries
    }
    alone = {name for s in study.sections if isinstance(s, Optics) for name in s.reads()}
    runs: dict[tuple[str, int], PlannedRun] = {}
    for seed in study.seeds:
        for name in training_order(study):
            teacher = runs.get((study.entries[name].teacher, seed))
            folder = str(teacher.workdir) if teacher else ""
            run = PlannedRun(
                entry=name,
                seed=seed,
                config=entry_config(study, name, seed=seed, teacher=folder),
                workdir=workdir / name / f"seed-{seed}",
                teacher=teacher,
                robustness=under_noise.get(name),
                refinement=Refinement(study.refine),
                alone=name in alone,
            )
            _require_own(run)
            runs[name, seed] = run
    _require_one_data_set(list(runs.values()))
    return list(runs.values())


def only_these(runs: list[PlannedRun], entries: list[str]) -> list[PlannedRun]:
    """Returns the runs of some entries and of the teachers they need; all runs if none is given.

    Raises:
        InputError: If an entry does not exist.
    """
    known = list(dict.fromkeys(run.entry for run in runs))
    if unknown := set(entries).difference(known):
        raise InputError(f"--only: no entry {min(unknown)!r}; entries: {', '.join(known)}")
    wanted: set[str] = set()
    for run in runs:
        needed = run if run.entry in (entries or known) else None
        while needed is not None:
            wanted.add(needed.name)
            needed = needed.teacher
    return [run for run in runs if run.name in wanted]


def _require_own(run: PlannedRun) -> None:
    """Refuses a folder that another declaration or teacher filled: it must not count as done."""
    if not run.started:
        return
    recorded = run_folder.read_run(run.workdir)
    differing = schema.differences(run.config, run_folder.read_config(run.workdir))
    differing += [
        f"{section}.file: what it holds"
        for section, plane in read_planes(run.config).items()
        if recorded["digests"].get(section) != plane.digest
    ]
    taught_by = recorded["digests"].get("teacher")
    teacher = run.teacher.scores if run.teacher else None
    if teacher is not None and taught_by != teacher["checkpoint_digest"]:
        differing.append(
            f"teacher digest: {teacher['checkpoint_digest'][:12]} against {str(taught_by)[:12]}"
        )
    if differing:
        raise InputError(
            f"--workdir: {str(run.workdir)!r} holds another run; differing (the study's against "
            f"its): {'; '.join(differing)}; give another --workdir, or remove that folder"
        )


def _require_one_data_set(runs: list[PlannedRun]) -> None:
    """Refuses runs of different held-back images: their scores must not stand in one table."""
    held_back: dict[str, PlannedRun] = {}
    for run in runs:
        if run.started:
            digest = run_folder.read_run(run.workdir)["digests"].get("held_back", "")
            held_back.setdefault(digest, run)
    if len(held_back) > 1:
        one, other, *_ = held_back.values()
        raise InputError(
            f"--workdir: {str(one.workdir)!r} and {str(other.workdir)!r} have other validation or "
            "test images; their data changed in between: give another --workdir"
        )
