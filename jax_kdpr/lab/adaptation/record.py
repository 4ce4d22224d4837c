"""Records what an adaptation has learned from, object by object, and what it has gained."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.types import Intensities
from jax_kdpr.core.whole_files import write_whole
from jax_kdpr.data.batches import over_batches
from jax_kdpr.lab.adaptation.objects import BATCH, Objects, recover_objects
from jax_kdpr.lab.frames.calibration import Calibration, Reading, write_calibration
from jax_kdpr.lab.frames.measured import Measured, Setup
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.optics.beam import Plane
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.runs.run import Run
from jax_kdpr.training.lessons import Lessons

RECORD_FILE, OBJECTS_FILE, CALIBRATION_FILE = "adaptation.json", "objects.npy", "calibration.json"
DOUBTFUL = 0.1  # misfit; on a bench that is known, only noise is left
FEWEST = 8  # objects, and at least one of them held back


class Taught(NamedTuple):
    """All objects of an adaptation."""

    names: list[str]
    intensity: Intensities  # through the run's own masks
    digest: str  # of all shots
    shots: int
    found: Objects | None  # as recovered; None if each has only the run's own shots

    @property
    def usable(self) -> np.ndarray:
        """Numbers of the objects that are not left out."""
        return np.arange(len(self.names)) if self.found is None else self.found.usable

    def split(self, share: float) -> tuple[Lessons, Lessons]:
        """Returns the lessons to learn from, and the share of them that is held back."""
        order = np.random.default_rng(0).permutation(self.usable)
        count = max(1, round(share * len(order)))
        lessons = Lessons(self.intensity, self.found and self.found.images)
        return lessons.take(jnp.asarray(order[count:])), lessons.take(jnp.asarray(order[:count]))

    def in_words(self, learned: int, held_back: int) -> str:
        """Returns a line on the objects."""
        usable = set(self.usable.tolist())
        left_out = [name for n, name in enumerate(self.names) if n not in usable]
        how = "by itself"
        if self.found is not None:
            how = f"from {self.shots} shots of each (median misfit {self.found.typical:.3f})"
        return (
            f"{len(self.names)} objects, {how}: {learned} to learn from, {held_back} held "
            f"back, {len(left_out)} left out{': ' * bool(left_out)}{', '.join(left_out)}"
        )

    def doubt(self) -> str:
        """Returns a warning if the shots are explained badly; else ""."""
        if self.found is None or self.found.typical < DOUBTFUL:
            return ""
        return (
            f"the shots are explained to {self.found.typical:.2f} only: what they say of the "
            "objects is as good as the bench is known; give --blank and --fit, or calibrate --fit"
        )


def doubt_of_one_shot(taught: Taught, rows: list[dict[str, Any]]) -> str:
    """Returns a warning if the system learned from single shots and still explains them badly.

    On a wrong bench the misfit falls as the system learns wrong objects that explain the shots.
    """
    misfit = max(rows, key=lambda row: row[SCORE]).get("validation_misfit", 0.0)
    if taught.found is not None or misfit < DOUBTFUL:
        return ""
    return (
        f"the shots are explained to {misfit:.2f} only, so the bench is not the one of the model, "
        "and single shots teach the wrong objects there (docs/guides/adapt.md): do not use this "
        "run; take nine shots of each object, or calibrate --fit first"
    )


def require_enough(count: int, share: float) -> None:
    """Refuses too few objects.

    Raises:
        InputError: If there are fewer than `FEWEST`, or too many of them are held back.
    """
    if count < FEWEST or count - round(share * count) < 1:
        raise InputError(
            f"--input: expected at least {FEWEST} objects, some to learn from and some to hold "
            f"back, got {count}; some fifty are wanted for a gain"
        )


def teach(run: Run, many: Run, measured: list[Measured]) -> Taught:
    """Recovers the objects that an adaptation learns from.

    Args:
        run: The run that learns; the first shots of each object are taken through its masks.
        many: The same optics with the masks of all shots.
        measured: All shots of each object.

    Raises:
        InputError: As `recover_objects`, or if too few objects are left.
    """
    names = [one.name for one in measured]
    intensity = np.stack([one.intensity for one in measured])
    digest = Plane.of(intensity).digest
    seen = jnp.asarray(intensity[:, : run.snapshots])
    if many.snapshots == run.snapshots:
        return Taught(names, seen, digest, run.snapshots, None)
    recover = make_recover(run)
    first = over_batches(
        lambda indices, _: recover(seen[indices]).image,
        len(seen),
        batch_size=min(BATCH, len(seen)),
    )
    found = recover_objects(many, jnp.asarray(intensity), first)
    if (left := len(found.usable)) < FEWEST:
        raise InputError(
            f"--input: {left} of {len(names)} objects explain their shots, expected at least "
            f"{FEWEST}; look at the misfits, and take the frames anew"
        )
    return Taught(names, seen, digest, many.snapshots, found)


def write_record(
    folder: Path, taught: Taught, rows: list[dict[str, Any]], given: dict[str, Any]
) -> str:
    """Writes adaptation.json and objects.npy into a run folder; returns what was gained, in words.

    Args:
        folder: Folder of the new run.
        taught: What the run has learned from.
        rows: Rows of its metrics; that of the first epoch is of the run as it was.
        given: What the adaptation was asked for.
    """
    rows = sorted(rows, key=lambda row: row["epoch"])
    best = max(rows, key=lambda row: row[SCORE])
    kept = [name for name in rows[0] if name.startswith("validation")]
    found = taught.found
    if found is None:
        kept.remove(SCORE)  # is the misfit, in dB
    usable = set(taught.usable.tolist())
    rows_of = [
        {"name": name, "used": number in usable}
        | ({} if found is None else {"misfit": float(found.misfit[number])})
        for number, name in enumerate(taught.names)
    ]
    record = {
        **given,
        "supervision": "none, one shot" if found is None else f"{taught.shots} shots",
        "misfit_limit": 0.0 if found is None else found.limit,
        "before": {name: rows[0][name] for name in kept},
        "after": {name: best[name] for name in kept},
        "best_epoch": best["epoch"],
        "objects": rows_of,
        "provenance": provenance(),
    }
    json_files.write_json(folder / RECORD_FILE, record)
    if found is not None:
        images = np.asarray(found.images)
        write_whole(folder / OBJECTS_FILE, lambda file: np.save(file, images))
    what, unit = ("validation_misfit", "") if found is None else (SCORE, " dB")
    against = "misfit of" if found is None else f"against what {taught.shots} shots say of"
    said = f"{against} the objects held back: {rows[0][what]:.3f}{unit} before, "
    if best["epoch"] == 0:
        return f"{said}and nothing that was learned betters it: the system is as it was"
    return f"{said}{best[what]:.3f}{unit} after round {best['epoch']}"


def write_own_calibration(folder: Path, given: Calibration, setup: Setup) -> None:
    """Writes the calibration of the new run, without the optics, which are in the run already.

    It says how the frames were read that were learned from.
    """
    own = given._replace(optics=None, errors=None, reading=Reading.of(setup))
    if setup.counts_per_unit is not None:
        own = own._replace(counts_per_unit=setup.counts_per_unit)
    write_calibration(folder / CALIBRATION_FILE, own)
