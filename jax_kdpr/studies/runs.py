"""The runs that a study plans, and how far each has come in its folder."""

from pathlib import Path
from typing import NamedTuple

from jax_kdpr import config as config_lib
from jax_kdpr import run_folder
from jax_kdpr.config import Config
from jax_kdpr.errors import InputError
from jax_kdpr.scoring import SCORES_FILE
from jax_kdpr.studies.declaration import Robustness, Study, entry_config, training_order

ROBUSTNESS_FILE = "robustness.json"


class PlannedRun(NamedTuple):
    """One training of a study."""

    entry: str
    seed: int
    config: Config
    workdir: Path
    teacher: "PlannedRun | None"
    robustness: Robustness | None  # noise it is to be tried with afterwards

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.entry}, seed {self.seed}"

    @property
    def epochs_done(self) -> int:
        """Epochs that it has finished."""
        return run_folder.epochs_done(self.workdir)

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.epochs_done >= self.config.train.epochs

    @property
    def is_done(self) -> bool:
        """Whether it is trained, scored, and tried under the noise that the report wants."""
        wanted = [SCORES_FILE] + [ROBUSTNESS_FILE] * (self.robustness is not None)
        return self.is_trained and all((self.workdir / name).exists() for name in wanted)

    @property
    def state(self) -> str:
        """In words: done, trained, "epoch 3 of 10", or new."""
        if self.is_done:
            return "done"
        if self.is_trained:
            return "trained, not scored"
        return f"epoch {self.epochs_done} of {self.config.train.epochs}" if self.started else "new"

    @property
    def started(self) -> bool:
        """Whether its folder holds a run."""
        return (self.workdir / run_folder.RUN_FILE).exists()


def plan(study: Study, workdir: Path, *, only: tuple[str, ...] = ()) -> list[PlannedRun]:
    """Returns the runs of a study in the order of training: seed by seed, teachers first.

    Args:
        study: The study.
        workdir: Folder that holds, or is to hold, their run folders.
        only: Entries to run, with the teachers they need; default all.

    Raises:
        InputError: If an entry does not exist or its options do not fit, or a folder holds the run
            of another config.
    """
    for name in only:
        if name not in study.entries:
            raise InputError(f"--only: no entry {name!r}; entries: {', '.join(study.entries)}")
    wanted = set(only or study.entries)
    for name in reversed(training_order(study)):
        if name in wanted:
            wanted |= {study.entries[name].teacher} - {""}

    under_noise = {
        name: section
        for section in study.sections
        if isinstance(section, Robustness)
        for name in section.entries
    }
    runs: dict[tuple[str, int], PlannedRun] = {}
    for seed in study.seeds:
        for name in training_order(study):
            if name not in wanted:
                continue
            teacher = runs.get((study.entries[name].teacher, seed))
            folder = str(teacher.workdir) if teacher else ""
            run = PlannedRun(
                entry=name,
                seed=seed,
                config=entry_config(study, name, seed=seed, teacher=folder),
                workdir=workdir / name / f"seed-{seed}",
                teacher=teacher,
                robustness=under_noise.get(name),
            )
            _require_own(run)
            runs[name, seed] = run
    return list(runs.values())


def _require_own(run: PlannedRun) -> None:
    """A folder that another declaration filled must not count as done."""
    if not run.started:
        return
    differing = config_lib.differences(run.config, run_folder.read_config(run.workdir))
    if differing:
        raise InputError(
            f"--workdir: {str(run.workdir)!r} holds another run; differing (the study's against "
            f"its): {'; '.join(differing)}; give another --workdir, or remove that folder"
        )
