"""The files of a run folder other than checkpoints: run.json and metrics.jsonl.

run.json says what the run is: its resolved config, the digests of its data and its teacher, and
for each session that worked on it the time, commit, package versions and devices.
"""

import copy
import fcntl
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_kdpr.config import checks
from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, options, whole_files
from jax_kdpr.core.errors import InputError, InUseError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.versions import versions
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.optics.beam import Plane

RUN_FILE = "run.json"
PARENT = "adapted"  # among the digests: the checkpoint that an adaptation began with
LOCK_FILE = "run.lock"
METRICS_FILE = "metrics.jsonl"
# Copies of what the optics were read from, by the section of the config that names the original.
# `evaluate` writes a masks.npy of its own: the trained ones.
COPIES = {section: f"given_{section}.npy" for section in ("masks", "illumination", "aberrations")}
SESSION = {
    **{"time": str, "commit": str, "devices": [str], "versions": {"jax": str}},
    **{"cpu": Maybe(str), "cpu_count": int | None},
}
RUN = {
    "config": dict,
    "digests": {"data": str} | dict.fromkeys(("held_back", "teacher", *COPIES), Maybe(str)),
    "sample": Maybe([float]),
    "sessions": [SESSION],
}
OF_WHAT = {"data": " (of the images and their split)"}
SAME = 0.02  # of means of blocks of scenes in [0, 1]: far above what rounding changes in them
RESTORE = "restore it from a copy"
DRAWN = (
    "the scenes, which this version of jax_kdpr or JAX draws otherwise (run.json says which made "
    "the run)"
)
ROW = {
    **{"epoch": int, "step": int},
    **dict.fromkeys(("train_total", "train_task", "train_mask"), float),
    **dict.fromkeys(("train_seconds", "seconds"), float),
    # Of an epoch that was validated.
    **dict.fromkeys(("validation_psnr", "validation_psnr_pooled", "validation_ssim"), Maybe(float)),
}  # what is read of a row of metrics.jsonl


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
    """Returns the config that a run folder was made with, its files of optics the folder's copies.

    Raises:
        InputError: As `read_run`, and if it would not pass as the config of a new run.
    """
    values = read_run(workdir)["config"]
    try:
        config = config_lib.from_dict(values)
        if config.regime == "teacher" and "draws" not in values.get("distill", {}):
            config.distill.draws = "shared"  # as before there was a choice
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
    """Returns the config of a run that may go on in `workdir`: with its copies of lost files."""
    config = copy.deepcopy(config)
    for section, name in COPIES.items():
        file = getattr(config, section).file
        is_lost = file and not Path(split_dataset(file)[0]).exists()
        if is_lost and (workdir / RUN_FILE).exists() and (workdir / name).exists():
            getattr(config, section).file = str(workdir / name)
    return config


def require_planes(workdir: Path, planes: Mapping[str, Plane]) -> None:
    """Refuses copies that are not what the run was trained with.

    Raises:
        InputError: Names the file.
    """
    digests = read_run(workdir)["digests"] if planes else {}
    for section, plane in planes.items():
        if digests.get(section) != plane.digest:
            raise InputError(
                f"{workdir / COPIES[section]}: is not what the run was trained with; {RESTORE}"
            )


def require_same_data(workdirs: Sequence[Path], config: Config | None = None) -> None:
    """Refuses runs that one report must not hold: of other data or scenes, or of another split.

    Args:
        workdirs: Their run folders.
        config: Whose size and scenes they must share; None for the first one's.

    Raises:
        InputError: If one differs, or is no run.
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


def check_workdir(
    workdir: Path, config: Config, digests: dict[str, str], sample: tuple[float, ...] = ()
) -> None:
    """Refuses a folder that is not this run's to write in; an empty or new one is fine.

    Args:
        workdir: The folder.
        config: The config of the run that wants it.
        digests: Of what the run depends on beside its config: "data", "teacher".
        sample: Of its data (`Dataset.sample`).

    Raises:
        InputError: If the folder holds other files, or a run of another config, data or teacher;
            names what differs.
    """
    whole_files.require_writable("--workdir", workdir)
    if not (workdir / RUN_FILE).exists():
        if workdir.exists() and _foreign_files(workdir):
            raise InputError(
                f"--workdir: {str(workdir)!r} is neither empty nor a run folder; give another one"
            )
        return
    recorded = read_run(workdir)
    differing = [] if draws_alike(recorded, sample) else [DRAWN]
    differing += config_lib.differences(config, read_config(workdir))
    known = recorded["digests"]
    others = [name for name, value in digests.items() if known.get(name) != value]
    if "data" in others:  # of which what is held back is a part
        others = [name for name in others if name != "held_back"]
    differing += [
        f"{name} digest{OF_WHAT.get(name, '')}: {digests[name][:12]} against "
        f"{known.get(name, 'none')[:12]}"
        for name in others
    ]
    if differing:
        raise InputError(
            f"--workdir: {str(workdir)!r} belongs to another run; differing (yours against its): "
            f"{'; '.join(differing)}; give another --workdir, or the same config and data"
        )


def _foreign_files(workdir: Path) -> list[Path]:
    """Files that are not what a session killed before it wrote run.json leaves behind."""
    return [
        path
        for path in workdir.iterdir()
        if path.name != LOCK_FILE and not whole_files.is_temporary(path, of=RUN_FILE)
    ]


@contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the folder for this process, making it if need be.

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
    """Returns whether scenes that are drawn anew are those of run.json, as far as it tells."""
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
    """Writes run.json and what its optics were read from, or adds this session.

    Call `check_workdir` first.

    Args:
        workdir: The folder.
        config: The config of the run.
        digests: As of `check_workdir`.
        sample: As of `check_workdir`.
        planes: What was read, by the section of the config that named the file.
    """
    path = workdir / RUN_FILE
    record = {"config": config_lib.to_dict(config), "digests": digests, "sample": sample}
    record = read_run(workdir) if path.exists() else {**record, "sessions": []}
    record["sessions"].append(provenance())
    json_files.write_json(path, record)
    for section, plane in (planes or {}).items():
        kept = workdir / COPIES[section]
        if not kept.exists():
            whole_files.write_whole(kept, lambda file, plane=plane: np.save(file, plane.values))


def provenance() -> dict[str, Any]:
    """Returns what a number needs beside it: time, commit, versions and devices."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu": _processor(),
        "cpu_count": os.cpu_count(),
    }


def _processor() -> str:
    """Returns the name of the processor, as far as the system tells it."""
    with suppress(OSError):  # which tells it so on Linux alone
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if named:
            return named[1]
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Returns the commit of the source tree, "+" appended if it was changed.

    Outside git, as in a folder that launch/pack_for_gpu.sh made, KDPR_COMMIT says it; else "". A
    repository that this file lies in without being part of it, as in the .venv of a project, says
    nothing of it.
    """

    def git(*command: str) -> str:
        words = ["git", "-C", str(Path(__file__).parent), *command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("KDPR_COMMIT", "")


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, one per epoch; damaged lines are left out, and named.

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


@cache  # once a process: it is read often
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
