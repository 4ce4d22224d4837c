"""The files of a run folder other than checkpoints: run.json and metrics.jsonl.

run.json says what the run is: its resolved config, the digests of its data and its teacher, and
for each session that worked on it the time, commit, package versions and devices.
"""

import copy
import fcntl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jax_kdpr.config import checks, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, options, whole_files
from jax_kdpr.core.errors import InputError, InUseError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.registry import sources_of
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.optics.beam import Plane

RUN_FILE = "run.json"
PARENT = "adapted"  # name of the digest of the checkpoint that an adaptation began with
LOCK_FILE = "run.lock"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"  # folder that `runs.checkpoint` writes
LOGS = ("tensorboard", "wandb")  # folders
# Copies of the files of the optics, by the section of the config that names the original. (The
# trained masks are in masks.npy, which `evaluate` writes.)
COPIES = {section: f"given_{section}.npy" for section in ("masks", "illumination", "aberrations")}
SESSION = {
    **{"time": str, "commit": str, "devices": [str], "versions": {"jax": str}},
    **{"cpu": Maybe(str), "cpu_count": int | None},
    "code": Maybe({str: str}),  # `registry.sources_of`
}
RUN = {
    "config": dict,
    "digests": {"data": str} | dict.fromkeys(("held_back", "teacher", *COPIES), Maybe(str)),
    "sample": Maybe([float]),
    "sessions": [SESSION],
}
# What a session may have written before its first step.
BEGINS = (RUN_FILE, METRICS_FILE, CHECKPOINTS, *COPIES.values(), *LOGS)
OF_WHAT = {"data": " (of the images and their split)"}
SAME = 0.02  # tolerance of block means of scenes in [0, 1]; rounding changes them far less
RESTORE = "restore it from a copy"
DRAWN = (
    "the scenes, which this version of jax_kdpr or JAX draws otherwise (run.json says which made "
    "the run)"
)
ROW = {
    **{"epoch": int, "step": int},
    **dict.fromkeys(("train_total", "train_task", "train_mask"), float),
    **dict.fromkeys(("train_seconds", "seconds"), float),
    # Only in rows of epochs that were validated.
    **dict.fromkeys(("validation_psnr", "validation_psnr_pooled", "validation_ssim"), Maybe(float)),
}  # what this package reads from a row of metrics.jsonl


def read_run(workdir: Path) -> dict[str, Any]:
    """Reads run.json.

    Raises:
        InputError: If the folder holds no run, or run.json cannot be read.
    """
    path = workdir / RUN_FILE
    if not path.exists():
        raise InputError(
            f"{str(workdir)!r} is no run folder (no {RUN_FILE}); give the --workdir of a "
            "jax_kdpr.train run"
        )
    return json_files.read_json(path, RUN, remedy=RESTORE)


def read_config(workdir: Path) -> Config:
    """Returns the config of a run folder, with the folder's copies of the files of its optics.

    Raises:
        InputError: As in `read_run`, or if the config would not be valid for a new run.
    """
    values = read_run(workdir)["config"]
    try:
        config = schema.from_dict(values)
        if config.regime == "teacher" and "draws" not in values.get("distill", {}):
            config.distill.draws = "shared"  # before this option existed
        _take_copies(config, workdir)
        checks.validate(config)
    except InputError as failure:
        raise InputError(f"{workdir / RUN_FILE}: {failure}") from failure
    return config


def _take_copies(config: Config, workdir: Path) -> None:
    for section, name in COPIES.items():
        if getattr(config, section).file:
            if not (workdir / name).is_file():
                raise InputError(f"{section}.file: its copy {name!r} is missing here; {RESTORE}")
            getattr(config, section).file = str(workdir / name)


def with_copies(config: Config, workdir: Path) -> Config:
    """Returns a config in which copies in `workdir`, if any, replace files that are lost."""
    config = copy.deepcopy(config)
    for section, name in COPIES.items():
        file = getattr(config, section).file
        is_lost = file and not Path(split_dataset(file)[0]).exists()
        if is_lost and (workdir / RUN_FILE).exists() and (workdir / name).exists():
            getattr(config, section).file = str(workdir / name)
    return config


def require_planes(workdir: Path, planes: Mapping[str, Plane]) -> None:
    """Refuses files of the optics that are not those of the training.

    Raises:
        InputError: If a file differs; the message names it.
    """
    digests = read_run(workdir)["digests"] if planes else {}
    for section, plane in planes.items():
        if digests.get(section) != plane.digest:
            raise InputError(
                f"{workdir / COPIES[section]}: is not what the run was trained with; {RESTORE}"
            )


def require_same_data(workdirs: Sequence[Path], config: Config | None = None) -> None:
    """Refuses to put runs with different data, splits or scenes into one report.

    Args:
        workdirs: Their run folders.
        config: Its size and scene options must agree with the runs'; None takes the first run's.

    Raises:
        InputError: If a run differs, or a folder holds no run.
    """
    records = [read_run(workdir) for workdir in workdirs]
    configs = [read_config(workdir) for workdir in workdirs]
    for workdir, other, record in zip(workdirs, configs, records, strict=True):
        differing = options.differences(config or configs[0], other, only=("data.size", "scene."))
        digests = [one["digests"]["data"] for one in (records[0], record)]
        if digests[0] != digests[1]:
            shown = " against ".join(digest[:8] for digest in digests)
            differing.append(f"data or split: digest {shown}")
        if differing:
            raise InputError(
                f"--workdir: one report holds runs of the same data and scene; "
                f"{'--config' if config else workdirs[0]} against {workdir}: "
                f"{'; '.join(differing)}; give them apart"
            )


def has_begun(workdir: Path) -> bool:
    """Returns whether a folder holds a run that has anything to lose: a step, a row, another file.

    It does not read run.json.
    """
    if not (workdir / RUN_FILE).exists():
        return False
    rows = workdir / METRICS_FILE
    return (
        any((workdir / CHECKPOINTS).glob("*"))
        or (rows.exists() and rows.stat().st_size > 0)
        or bool(_foreign_files(workdir, BEGINS))
    )


def check_workdir(
    workdir: Path, config: Config, digests: dict[str, str], sample: tuple[float, ...] = ()
) -> None:
    """Refuses a folder that does not belong to this run.

    An empty or new folder is accepted, and one of a run that has saved nothing yet, whose config
    was perhaps the mistake for which it was stopped.

    Args:
        workdir: The folder.
        config: The config of the run.
        digests: Digests of what the run depends on besides its config: "data", "teacher".
        sample: `Dataset.sample` of its data.

    Raises:
        InputError: If the folder holds other files, or a run of another config, data or teacher;
            the message names what differs.
    """
    whole_files.require_writable("--workdir", workdir)
    if not (workdir / RUN_FILE).exists():
        foreign = _foreign_files(workdir) if workdir.exists() else []
        if foreign:
            raise InputError(
                f"--workdir: {str(workdir)!r} is neither empty nor a run folder (it holds "
                f"{foreign[0].name!r}); give another one"
            )
        return
    recorded = read_run(workdir)  # which refuses what is not ours
    if not has_begun(workdir):
        return
    differing = [] if draws_alike(recorded, sample) else [DRAWN]
    differing += schema.differences(config, read_config(workdir))
    known = recorded["digests"]
    others = [name for name, value in digests.items() if known.get(name) != value]
    if "data" in others:  # which includes the data that are held back
        others = [name for name in others if name != "held_back"]
    differing += [
        f"{name} digest{OF_WHAT.get(name, '')}: {digests[name][:12]} against "
        f"{known.get(name, 'none')[:12]}"
        for name in others
    ]
    if differing:
        done = epochs_done(workdir)
        files = [] if done else [repr(path.name) for path in _foreign_files(workdir, BEGINS)]
        raise InputError(
            f"--workdir: {str(workdir)!r} belongs to another run (it holds "
            f"{', '.join([f'{done} epochs', *files[:1]])}); differing (yours against its): "
            f"{'; '.join(differing)}; give another --workdir, or the same config and data"
        )


def _foreign_files(workdir: Path, known: Sequence[str] = ()) -> list[Path]:
    """Returns all files but known ones, the lock, and what a killed session left of run.json."""
    return [
        path
        for path in sorted(workdir.iterdir())
        if path.name not in (LOCK_FILE, *known) and not whole_files.is_temporary(path, of=RUN_FILE)
    ]


@contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Locks the folder for this process, and creates it if necessary.

    Raises:
        InUseError: If another process is training in it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with whole_files.open_in_place(workdir / LOCK_FILE) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise InUseError(
                f"--workdir: another process is training in {str(workdir)!r}; wait or stop it"
            ) from held
        except OSError as refused:  # as Lustre and NFS may
            print(
                f"warning: {str(workdir)!r} cannot be locked ({refused.strerror}); see to it that "
                "no other process trains in it",
                file=sys.stderr,
            )
        yield


def in_use(workdir: Path) -> bool:
    """Returns whether a process is training in the folder."""
    if not (workdir / LOCK_FILE).exists():
        return False
    try:
        with lock(workdir):
            return False
    except InUseError:
        return True


def draws_alike(record: dict[str, Any], sample: tuple[float, ...]) -> bool:
    """Returns whether the sample of newly drawn scenes agrees with run.json, if that has one."""
    known = record.get("sample", [])
    return not known or (
        len(known) == len(sample) and np.allclose(known, sample, rtol=0, atol=SAME)
    )


def record_session(
    workdir: Path,
    config: Config,
    digests: dict[str, str],
    sample: tuple[float, ...] = (),
    planes: Mapping[str, Plane] | None = None,
) -> None:
    """Writes run.json and copies of the files of the optics, or adds this session.

    Call `check_workdir` first.

    Args:
        workdir: The folder.
        config: The config of the run.
        digests: As in `check_workdir`.
        sample: As in `check_workdir`.
        planes: Contents of these files, by the section of the config that names the file.
    """
    path = workdir / RUN_FILE
    goes_on = has_begun(workdir)
    record = {"config": schema.to_dict(config), "digests": digests, "sample": sample}
    record = read_run(workdir) if goes_on else {**record, "sessions": []}
    if goes_on:
        warn_of_code(workdir, config)
    code = sources_of(options.foreign_names(config).values())
    record["sessions"].append(provenance() | ({"code": code} if code else {}))
    json_files.write_json(path, record)
    for section, plane in (planes or {}).items():
        kept = workdir / COPIES[section]
        if not (goes_on and kept.exists()):
            whole_files.write_whole(kept, lambda file, plane=plane: np.save(file, plane.values))


def warn_of_code(workdir: Path, config: Config) -> None:
    """Warns on stderr if code of the user's own has changed since a run was trained with it."""
    code = sources_of(options.foreign_names(config).values())
    sessions = [one.get("code", {}) for one in read_run(workdir)["sessions"]] if code else []
    changed = [
        name for name, now in code.items() if any(one.get(name, now) != now for one in sessions)
    ]
    if changed:
        print(
            f"warning: {', '.join(changed)} has changed since {str(workdir)!r} was trained with it",
            file=sys.stderr,
        )


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, one per epoch; leaves out and reports damaged lines.

    Raises:
        InputError: If it cannot be read at all.
    """
    path = workdir / METRICS_FILE
    try:
        lines = whole_files.read_bytes(path).splitlines() if path.exists() else []
    except OSError as failure:
        raise InputError(f"{path}: cannot be read ({failure}); {RESTORE}") from failure
    rows, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json_files.parse(line, ROW))
        except ValueError:
            damaged.append(str(number))
    if damaged:
        _warn_of_damage(path, ", ".join(damaged))
    return rows


@cache  # once per process, since the file is read often
def _warn_of_damage(path: Path, lines: str) -> None:
    print(
        f"warning: {path}: damaged in line {lines}, which is left out; the same jax_kdpr.train "
        "command makes the last epoch's row again",
        file=sys.stderr,
    )


def epochs_done(workdir: Path) -> int:
    """Returns how many epochs a run has finished."""
    rows = read_metrics(workdir)
    return rows[-1]["epoch"] if rows else 0
