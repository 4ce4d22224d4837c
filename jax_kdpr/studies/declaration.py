"""What a study is: the grid of runs, and the sections of its report.

A study is a base config and, by name, entries that differ from it in a few options. Every entry is
trained once for each seed, in the run folder WORKDIR/NAME/seed-N. The studies of this package are
in `configs/studies/`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from jax_kdpr.config import checks, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import flatten, foreign_names
from jax_kdpr.core.registry import allow

LOGS = "logs"  # folder of the logs of runs on a cluster, in a study's folder
FOLDERS = ("report", LOGS)  # names with another use in a study's folder
# Options that an entry cannot change. Of data.* it can change data.train_images alone, because all
# runs are scored on the same images.
RESERVED = ("seed", "distill.teacher")


@dataclass(kw_only=True, slots=True)
class Entry:
    """One point of the grid."""

    label: str  # in tables and legends
    changes: dict[str, Any] = field(default_factory=dict)  # {dotted option: its value}
    teacher: str = ""  # the entry whose run of the same seed teaches this one
    longer: int = 1  # how many times the base's epochs


@dataclass(kw_only=True, slots=True)
class Section:
    """A section of a report: what all kinds of sections have."""

    title: str
    question: str
    entries: tuple[str, ...] = ()

    def reads(self) -> tuple[str, ...]:
        """Returns the entries that it reads."""
        return self.entries


@dataclass(kw_only=True, slots=True)
class Table(Section):
    """PSNR, rms and SSIM of entries, and the gain of each over a baseline."""

    baseline: str
    paper: dict[str, tuple[float, float]] = field(default_factory=dict)  # {entry: (PSNR, SSIM)}

    def reads(self) -> tuple[str, ...]:
        """Returns its entries and the baseline."""
        return tuple(dict.fromkeys([*self.entries, self.baseline]))


@dataclass(kw_only=True, slots=True)
class Sweep(Section):
    """PSNR against a number in which entries differ, with one line for each label."""

    axis: str
    lines: dict[str, dict[float, str]]  # {label: {value: entry}}, in place of `entries`
    reference: str = ""  # entry that is drawn as a horizontal line
    paper: str = ""  # what the paper found, in words

    def reads(self) -> tuple[str, ...]:
        """Returns the entries of all lines, and the reference."""
        names = [name for line in self.lines.values() for name in line.values()]
        return tuple(dict.fromkeys([*names, *filter(None, [self.reference])]))


@dataclass(kw_only=True, slots=True)
class Samples(Section):
    """The same test scenes as recovered by several entries (the first seed)."""


@dataclass(kw_only=True, slots=True)
class Curves(Section):
    """Validation PSNR and loss terms over the training."""


@dataclass(kw_only=True, slots=True)
class Masks(Section):
    """Trained masks and the histogram of their phases (the first seed)."""


@dataclass(kw_only=True, slots=True)
class Robustness(Section):
    """PSNR of trained systems under sensor noise that they may not have been trained with."""

    snr_db: tuple[float, ...]  # gaussian noise
    photons: tuple[float, ...]  # a shot, poisson noise
    images: int = 2000  # the first of the test images


@dataclass(kw_only=True, slots=True)
class Optics(Section):
    """Masks and filter without their network, and how strongly each loss pulled at the masks."""

    baseline: str


@dataclass(kw_only=True, slots=True)
class Costs(Section):
    """Training time, memory, and inference time of a batch."""

    paper: dict[str, tuple[float, float, float]]  # {entry: (training s, memory MB, inference ms)}


@dataclass(kw_only=True, slots=True)
class Front(Section):
    """PSNR against the time of a frame, and the entries that no other beats in both."""


@dataclass(kw_only=True, slots=True)
class Study:
    """A grid of runs and its report."""

    title: str
    base: Config
    entries: dict[str, Entry]
    sections: tuple[Section, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    refine: int = 0  # steps of error reduction after the network, which are then scored too


def entry_config(study: Study, name: str, *, seed: int, teacher: str = "") -> Config:
    """Returns the validated config of one run.

    Args:
        study: The study.
        name: The entry.
        seed: Seed of the run.
        teacher: Run folder of its teacher, if it has one.

    Raises:
        InputError: If an option does not exist, or the options do not fit each other.
    """
    entry = study.entries[name]
    known = set(schema.field_paths())
    for path in entry.changes:
        if path not in known:
            raise InputError(f"entry {name!r}: {schema.unknown_field(path)}")
        if path in RESERVED or (path.startswith("data.") and path != "data.train_images"):
            raise InputError(
                f"entry {name!r}: {path} is the same for all entries of a study; set it in the "
                "base config, the seeds in Study.seeds, a teacher in Entry.teacher"
            )
    changes = {**entry.changes, "seed": seed, "distill.teacher": teacher}
    try:
        config = schema.with_values(study.base, changes)
        config.train.epochs *= entry.longer
        schema.resolve_paths(config)
        allow(foreign_names(config).values())  # a study is the user's own Python
        checks.validate(config)
    except InputError as failure:
        raise InputError(f"entry {name!r}: {failure}") from failure
    return config


def teacher_entry(count: int, *, label: str = "", changes: dict[str, Any] | None = None) -> Entry:
    """Returns the entry of a teacher with `count` snapshots."""
    own: dict[str, Any] = {"regime": "teacher", "masks.snapshots": count}
    return Entry(label=label or f"teacher of {count}", changes=own | (changes or {}))


def student_entry(label: str, changes: dict[str, Any], *, teacher: str = "teacher-9") -> Entry:
    """Returns the entry of a student, with `teacher` as the entry of its teacher."""
    return Entry(label=label, changes={"regime": "student", **changes}, teacher=teacher)


def check(study: Study) -> None:
    """Checks a declaration as far as it can be without data or folders.

    Raises:
        InputError: In one line: where it is wrong, what was expected and found, and what to do.
    """
    if not study.seeds or len(set(study.seeds)) != len(study.seeds):
        raise InputError(f"seeds: expected one or more different integers, got {study.seeds}")
    if study.refine < 0:
        raise InputError(f"refine: expected a number of steps, at least 0, got {study.refine}")
    seen: dict[str | Config, str] = {}
    for name, entry in study.entries.items():
        if not re.fullmatch(r"[\w.-]+", name) or name in FOLDERS:
            raise InputError(
                f"entry {name!r}: names a folder; expected letters, digits, '-', '_' and '.', and "
                f"none of {', '.join(FOLDERS)}"
            )
        if entry.teacher and entry.teacher not in study.entries:
            raise InputError(f"entry {name!r}: no entry {entry.teacher!r} to be its teacher")
        # A student without a teacher, or a teacher without a student, is refused here too.
        config = entry_config(study, name, seed=study.seeds[0], teacher=entry.teacher)
        for shared, what in (
            (entry.label, f"have one label, {entry.label!r}"),
            (config, "are the same run; leave one out"),
        ):
            if (other := seen.setdefault(shared, name)) != name:
                raise InputError(f"entries {other!r} and {name!r}: {what}")
    tried: set[str] = set()
    for section in study.sections:
        if unknown := set(section.reads()) - set(study.entries):
            raise InputError(
                f"section {section.title!r}: no entry {min(unknown)!r}; "
                f"entries: {', '.join(study.entries)}"
            )
        if isinstance(section, Robustness):
            if twice := tried.intersection(section.entries):
                raise InputError(
                    f"entry {min(twice)!r}: stands in two robustness sections; give it to one"
                )
            tried.update(section.entries)


def training_order(study: Study) -> list[str]:
    """Returns the entries as declared, but each teacher before the first of its students.

    Raises:
        InputError: If entries teach each other in a circle.
    """
    order: dict[str, None] = {}
    for name in study.entries:
        chain = [name]
        while teacher := study.entries[chain[0]].teacher:
            if teacher in chain:
                raise InputError(f"entries teach each other: {' < '.join([teacher, *chain])}")
            chain.insert(0, teacher)
        order |= dict.fromkeys(chain)
    return list(order)


def difference_from_base(study: Study, name: str) -> str:
    """Returns what an entry changes, in the form of the command line."""
    entry, base = study.entries[name], flatten(study.base)
    said = [f"{path}={value}" for path, value in entry.changes.items() if base.get(path) != value]
    if entry.longer != 1:
        said.append(f"train.epochs={entry.longer * study.base.train.epochs}")
    return ", ".join(said)


def options_of_base(study: Study, *, said: tuple[str, ...]) -> str:
    """Returns the options of the base config that are not defaults, except those in `said`."""
    defaults = flatten(Config())
    return ", ".join(
        f"{path}={value}"
        for path, value in flatten(study.base).items()
        if value != defaults[path] and path not in said
    )
