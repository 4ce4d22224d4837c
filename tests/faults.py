"""Faults, kind by kind, against the commands as a user starts them, and what they cost.

    python tests/faults.py [KIND ...] [--full] [--folder DIR]

Prints one line of counts a kind and exits with 1 if anything was lost. Without --full every kind
runs in a short form, which tests/test_faults.py runs too. A kind is a function of `KINDS`.
"""

import argparse
import functools
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import commands

from jax_kdpr.config import schema
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.folder import CHECKPOINTS

EPOCHS = 6
STEPS = 4  # an epoch
CONFIG = f"""
from jax_kdpr.config.schema import Config

def get_config():
    config = Config()
    config.data.size, config.net.widths = 16, (8, 16)
    config.data.train_images = {16 * STEPS}
    config.data.validation_images = config.data.test_images = 32
    config.spectral.iterations = 5
    config.train.batch_size = config.train.eval_batch_size = 16
    config.train.epochs = {EPOCHS}
    return config
"""


class Tally:
    """What came of the faults of one kind: how often it held, in which way, and what did not."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.lost: list[str] = []

    def add(self, outcome: str, *, lost: bool = False) -> None:
        """Counts one fault; an outcome that is `lost` is listed."""
        if lost:
            self.lost.append(outcome)
        else:
            self.held[outcome] += 1

    def __str__(self) -> str:
        tried = self.held.total() + len(self.lost)
        outcomes = [f"{count} {outcome}" for outcome, count in sorted(self.held.items())]
        return f"{tried} tried: {', '.join([*outcomes, f'{len(self.lost)} lost'])}" + "".join(
            f"\n    lost: {outcome}" for outcome in self.lost
        )


def kills(folder: Path, *, full: bool) -> Tally:
    """SIGKILL at random times, half of them within a save: the run ends as the undisturbed one."""
    rng, tally = random.Random(0), Tally()
    left = 50 if full else 2
    while left:
        run = folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        planned = []
        while left and not finished(run):
            in_save = left % 2 == 0
            process = start(folder, "killed")
            if kill(process, run, delay=None if in_save else rng.uniform(0.0, 0.3)):
                planned.append("within a save" if in_save else "at a random time")
                left -= 1
        resumed = train(folder, "killed")
        same = resumed.returncode == 0 and record(run) == undisturbed()
        for when in planned:
            tally.add(when if same else f"{when}: {resumed.stderr[-500:]}", lost=not same)
    return tally


def kill(process: subprocess.Popen, run: Path, *, delay: float | None) -> bool:
    """Kills a training `delay` s after its next epoch, or in the midst of that epoch's save."""
    epochs = run_folder.epochs_done(run)
    while process.poll() is None:
        if delay is None and list((run / CHECKPOINTS).glob("*tmp*")):
            break
        if delay is not None and run_folder.epochs_done(run) > epochs:
            time.sleep(delay)
            break
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


NUMBERS = [
    *("-1", "0", "1", "2", "3.5", "1e-320", "1e39", "-1e39", "nan", "inf", str(2**31)),
    *("1" + 30 * "0", "9" * 5000, "532e-6", "200", "2*pi", "0x10", "1_000"),
]
TEXTS = [
    *("", "~", "(1,2)", "1,2,3", "1,2,3,4", "100000x100000", "0x0", "é", "a\nb"),
    *("None", "True", "[]"),
]
QUICKSTART = ["--config", str(Path(__file__).parents[1] / "configs" / "quickstart" / "e2e.py")]
# Of each command where it begins its work, and what it needs beside the fuzzed flags.
WORK = {
    "train": ("jax_kdpr.config.schema.load_data", [*QUICKSTART, "--workdir", "new"]),
    "evaluate": ("jax_kdpr.runs.folder.require_same_data", ["--workdir", "run"]),
    **{
        command: ("jax_kdpr.runs.run.load_run", ["--workdir", "run", *needed])
        for command, needed in {
            "solve": [],
            "tolerance": [],
            "export_mask": ["--format", "slm"],
            "simulate_bench": ["--output", "bench"],
        }.items()
    },
    "ambiguity": (
        "jax_kdpr.evaluation.uniqueness.comparison.make_subject",
        [*QUICKSTART, "--random"],
    ),
    **{
        command: (
            "jax_kdpr.lab.frames.reading.list_frames",
            ["--workdir", "run", "--input", "frames", *needed],
        )
        for command, needed in {"reconstruct": [], "calibrate": ["--output", "c.json"]}.items()
    },
    "benchmark": ("jax_kdpr.evaluation.speed.session.time_config", QUICKSTART),
    "geometry": (
        "jax_kdpr.optics.sampling.sampling_of",
        [
            *("--wavelength", "532e-9", "--focal_length", "0.2", "--mask_pitch", "8e-6"),
            *("--pixels", "96", "--camera_pixel", "3.45e-6"),
        ],
    ),
}


class Accepted(BaseException):
    """A command has begun its work."""


def options(folder: Path, *, full: bool) -> Tally:
    """One or two fuzzed flags or options of every command: accepted, or one line and code 2."""
    tally = Tally()
    train(folder, "run", "--config.train.epochs=1").check_returncode()
    for command, (work, needed) in WORK.items():
        rng, names = random.Random(command), flag_names(command)
        for _ in range(1000 // len(WORK) + 1 if full else 10):
            chosen = rng.sample(names, rng.choice((1, 1, 2)))
            given = [f"--{name}={rng.choice(3 * NUMBERS + TEXTS)}" for name in chosen]
            what, held = f"{command} {' '.join(one[:60] for one in given)}", "one line"
            try:
                commands.import_flags(command)
                with mock.patch(work, side_effect=Accepted):
                    commands.refusal(command, *needed, *given, cwd=folder)
            except Accepted:
                held = "accepted"
            except Exception as failure:
                tally.add(f"{what}: {failure!r:.500}", lost=True)
                continue
            tally.add(held)
    return tally


def flag_names(command: str) -> list[str]:
    """Returns the flags of a command, and twice those of its config's options."""
    text = (commands.PACKAGE / f"{command}.py").read_text()
    for shared in re.findall(r"\b(?:bench|camera|mask|placement|refine)_flags\b", text):
        text += (commands.PACKAGE / "interface" / f"{shared}.py").read_text()
    names = sorted(set(re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", text)))
    if "define_config" in text:
        names += 2 * [f"config.{path}" for path in schema.field_paths()]
    return names


def signals(folder: Path, *, full: bool) -> Tally:
    """A signal at a random time of the first seconds: it ends the run, and is never passed over."""
    rng, tally = random.Random(1), Tally()
    for number in range(24 if full else 2):
        process = start(
            folder,
            f"signalled-{number}",
            "--config.train.epochs=100000",
            # An empty one: compiling, which calls Python from C++, takes the longer.
            JAX_COMPILATION_CACHE_DIR=str(folder / f"cache-{number}"),
        )
        time.sleep(rng.uniform(0.0, 16.0) if full else 2.0 + 4.0 * number)
        sent = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
        process.send_signal(sent)
        try:
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
        during = "while it trained" if "compiling" in output else "before"
        if "saved" in errors:
            during = "saved"
        # Before the package is read Python answers alone: by -number, or 1 and what it was at.
        python_alone = sent == signal.SIGINT and errors.startswith("Fatal Python error: init_")
        answered = python_alone or process.returncode in (128 + sent, -sent)
        what = f"{during}, exit code {process.returncode} after {sent.name}: {errors[-300:]}"
        tally.add(during if answered else what, lost=not answered)
    return tally


def full_disk(folder: Path, *, full: bool) -> Tally:
    """A disk without room or inodes: one line, and with room again the run ends as a whole one."""
    tally = Tally()
    limits = [f"size={kilobytes}k" for kilobytes in (100, 300, 500, 700)]
    limits += [f"nr_inodes={count}" for count in (20, 60, 100)]
    for limit in limits if full else limits[2:3]:
        disk = folder / "disk"
        disk.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", disk]).returncode:
            tally.add("not tried: mounting needs root")
            continue
        try:
            stopped = train(folder, "disk/run")
            subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=10000", disk], check=True)
            resumed = train(folder, "disk/run")
            lines = [line for line in stopped.stderr.splitlines() if line.startswith("error: ")]
            said = len(lines) == 1 and "Traceback" not in stopped.stderr
            same = resumed.returncode == 0 and record(disk / "run") == undisturbed()
            held = stopped.returncode == 1 and said and same
            what = f"{limit}: {stopped.returncode}, {stopped.stderr[-500:]}{resumed.stderr[-500:]}"
            tally.add("one line, then the same run" if held else what, lost=not held)
        finally:
            subprocess.run(["umount", disk], check=True)
    return tally


KINDS: dict[str, Callable[..., Tally]] = {
    "kills": kills,
    "signals": signals,
    "full-disk": full_disk,
    "options": options,
}


def arguments(folder: Path, run: str) -> list[str]:
    """Returns what makes `train` train `folder`/`run`."""
    (folder / "tiny.py").write_text(CONFIG)
    return [f"--config={folder / 'tiny.py'}", f"--workdir={folder / run}"]


def start(folder: Path, run: str, *options: str, **variables: str) -> subprocess.Popen[str]:
    """Starts a training without waiting for its end."""
    return subprocess.Popen(
        [sys.executable, "-m", "jax_kdpr.train", *arguments(folder, run), *options],
        env=commands.user_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, run: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Trains to the end."""
    return commands.run("train", *arguments(folder, run), *options)


@functools.cache
def undisturbed() -> list[dict]:
    """Returns the record of a run that nothing befell."""
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), "whole").check_returncode()
        return record(Path(folder) / "whole")


def finished(run: Path) -> bool:
    """Whether a run has all its epochs."""
    return run_folder.epochs_done(run) == EPOCHS


def record(run: Path) -> list[dict]:
    """Returns the rows of a run without what its machine adds: equal for equal bits."""
    rows = run_folder.read_metrics(run)
    added = ("seconds", "device_peak")
    return [{k: v for k, v in row.items() if not any(a in k for a in added)} for row in rows]


def main() -> int:
    """Runs the kinds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--full", action="store_true", help="the counts of a release")
    parser.add_argument("--folder", type=Path, help="folder to work in; default a temporary one")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}; kinds: {', '.join(KINDS)}")
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    lost = 0
    for name in options.kinds or KINDS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            tally = KINDS[name](Path(folder), full=options.full)
        print(f"{name}: {tally}", flush=True)
        lost += len(tally.lost)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
