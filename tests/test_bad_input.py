"""Bad input, as a user meets it: one line on stderr, exit code 2, and nothing on disk changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jax_kdpr import run_folder
from jax_kdpr.data import fashion_mnist
from jax_kdpr.data.sources import DATA_DIR_VARIABLE

TRAIN_FILE, TEST_FILE = fashion_mnist.FILES

CONFIG = """
from jax_kdpr.config import Config, Regime, Source

def get_config():
    config = Config()
    config.regime = Regime.TEACHER
    config.data.source = Source.IMAGES
    config.data.dir = {stack!r}
    config.data.size = 16
    config.data.validation_fraction = config.data.test_fraction = 0.25
    config.spectral.iterations = 2
    config.net.widths = (8, 16)
    config.train.epochs = 2
    config.train.batch_size = config.train.eval_batch_size = 16
    {line}
    return config
"""


class Outcome(NamedTuple):
    code: int
    output: str
    errors: list[str]


class Place:
    """A folder to run commands in, with a config file and a stack of 128 images."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.cache = folder, cache
        folder.mkdir(exist_ok=True)
        self.stack = folder / "stack.npy"
        rng = np.random.default_rng(0)
        np.save(self.stack, rng.integers(0, 256, (128, 16, 16), np.uint8))
        self.config()

    def config(self, line: str = "pass", name: str = "tiny.py") -> None:
        (self.folder / name).write_text(CONFIG.format(stack=str(self.stack), line=line))

    def run(self, command: str, *arguments: str) -> Outcome:
        # The four devices of conftest.py are for tests in this process; compiled programs are kept.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in (DATA_DIR_VARIABLE, "XLA_FLAGS")
        }
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(self.cache)}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        done = subprocess.run(
            [sys.executable, "-m", f"jax_kdpr.{command}", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.strip().splitlines())

    def train(self, *options: str, workdir: str = "run") -> Outcome:
        return self.run("train", "--config", "tiny.py", "--workdir", workdir, *options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Place:
    """A place whose folder `run` holds a teacher that was trained for two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    place = Place(folder / "place", folder / "cache")
    outcome = place.train()
    assert outcome.code == 0, outcome
    return place


def files(folder: Path) -> dict[str, str]:
    """Returns {path: digest} of everything below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


# Each row: what is prepared in a place, the command, and what its one line must say.

TINY = ("train", "--config", "tiny.py", "--workdir", "new")
STUDENT = (*TINY, "--config.regime=student", "--config.loss.alpha=0.9")
TAUGHT = (*STUDENT, "--config.distill.teacher=run")
FASHION = (*TINY, "--config.data.source=fashion_mnist", "--config.data.dir=fashion")


def nothing(place):
    pass


def config_line(line):
    return lambda place: place.config(line)


def fashion_files(**sizes):
    """Writes files of these sizes; the published ones have 26 and 4 MB."""

    def prepare(place):
        (place.folder / "fashion").mkdir()
        for name, size in zip((TRAIN_FILE, TEST_FILE), sizes.values(), strict=False):
            (place.folder / "fashion" / name).write_bytes(b"\x1f\x8b\x08" + bytes(size - 3))

    return prepare


def unreadable_image(place):
    (place.folder / "images").mkdir()
    (place.folder / "images" / "cell7.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))


def foreign_folder(place):
    (place.folder / "new").mkdir()
    (place.folder / "new" / "thesis.tex").write_text("the only copy")


def changed_data(place):
    np.save(place.folder / "other.npy", 255 - np.load(place.stack))


def run_of_other_data(place):
    shutil.copytree(place.folder / "run", place.folder / "other")
    record = run_folder.read_run(place.folder / "other")
    record["digests"]["data"] = "f" * 64
    run_folder.write_json(place.folder / "other" / "run.json", record)


def untrained_run(place):
    shutil.copytree(place.folder / "run", place.folder / "untrained")
    shutil.rmtree(place.folder / "untrained" / "checkpoints")


ROWS = {
    "unknown field": (nothing, (*TINY, "--config.data.siez=16"), ["data.siez", "data.size?"]),
    "misspelt in the file": (
        config_line("config.data.siez = 16"),
        TINY,
        ["siez", "did you mean data.size?"],
    ),
    "error in the file": (config_line("1 / 0"), TINY, ["--config", "ZeroDivisionError"]),
    "wrong type": (nothing, (*TINY, "--config.data.size=big"), ["data.size", "integer", "big"]),
    "wrong choice": (
        nothing,
        (*TINY, "--config.regime=techer"),
        ["regime", "teacher, e2e, random, student", "techer"],
    ),
    "missing config file": (
        nothing,
        ("train", "--config", "tinny.py", "--workdir", "new"),
        ["--config", "'tinny.py'"],
    ),
    "no config": (nothing, ("train", "--workdir", "new"), ["--config", "configs/"]),
    "no workdir": (nothing, TINY[:3], ["--workdir"]),
    "stray argument": (nothing, (*TINY, "new2"), ["'new2'"]),
    "missing data folder": (nothing, FASHION, ["data.dir", "fashion"]),
    "missing data file": (fashion_files(), FASHION, [TRAIN_FILE, "missing"]),
    "truncated data file": (
        fashion_files(train=26_000_000, test=4_000_000),
        FASHION,
        [TRAIN_FILE, "26,000,000 bytes", "cut short"],
    ),
    "wrong MD5": (
        fashion_files(train=26_421_880, test=4_422_102),
        FASHION,
        [TRAIN_FILE, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"],
    ),
    "unreadable image": (
        unreadable_image,
        (*TINY, "--config.data.dir=images"),
        ["images/cell7.png"],
    ),
    "size not divisible": (
        nothing,
        (*TINY, "--config.data.size=17"),
        ["data.size", "multiple of 2", "16 or 18"],
    ),
    "alpha + beta > 1": (
        nothing,
        (*TAUGHT, "--config.loss.beta=0.2"),
        ["alpha = 0.9", "beta = 0.2", "sigma"],
    ),
    "batch larger than the split": (
        nothing,
        (*TINY, "--config.train.batch_size=65"),
        ["train.batch_size", "64 training images", "65"],
    ),
    "more devices than there are": (
        nothing,
        (*TINY, "--config.train.devices=16"),  # a command makes 8 of a CPU at most
        ["train.devices", "device(s) of this machine", "16"],
    ),
    "foreign folder": (foreign_folder, TINY, ["--workdir", "'new'"]),
    "workdir below a file": (
        nothing,
        (*TINY[:-1], "stack.npy/new"),
        ["--workdir", "stack.npy"],
    ),
    "student without teacher": (nothing, STUDENT, ["distill.teacher", "RUN_DIR"]),
    "teacher missing": (
        nothing,
        (*STUDENT, "--config.distill.teacher=nowhere"),
        ["distill.teacher", "'nowhere'"],
    ),
    "evaluate no run": (foreign_folder, ("evaluate", "--workdir", "new"), ["'new'", "run.json"]),
}

# The same with a trained run in the place.
RUN_ROWS = {
    "teacher of another size": (
        nothing,
        (*TAUGHT, "--config.data.size=32"),
        ["distill.teacher", "data.size: 32 against 16"],
    ),
    "teacher of another U-Net": (
        nothing,
        (*TAUGHT, "--config.net.widths=(8,32)", "--config.net.norm=group"),
        [
            "net.widths: (8, 32) against (8, 16)",
            "net.norm: group against batch",
        ],
    ),
    "teacher of another scene": (
        nothing,
        (*TAUGHT, "--config.scene.kind=amplitude"),
        ["scene.kind: amplitude against phase"],
    ),
    "teacher not trained": (
        untrained_run,
        (*STUDENT, "--config.distill.teacher=untrained"),
        ["untrained", "checkpoint"],
    ),
    "workdir of another config": (
        nothing,
        (*TINY[:-1], "run", "--config.optim.mask_lr=0.5", "--config.masks.snapshots=2"),
        ["'run'", "optim.mask_lr: 0.5 against 0.0005", "masks.snapshots: 2 against 1"],
    ),
    "data changed under the run": (
        changed_data,
        (*TINY[:-1], "run", "--config.data.dir=other.npy"),
        ["'run'", "data digest"],
    ),
    "evaluate with changed data": (
        changed_data,
        ("evaluate", "--workdir", "run", "--data_dir", "other.npy"),
        ["run: its data have changed", "--data_dir"],
    ),
    "evaluate runs of different data": (
        run_of_other_data,
        ("evaluate", "--workdir", "run", "other"),
        ["run against other", "against ffffffff"],
    ),
    "evaluate a run without checkpoints": (
        untrained_run,
        ("evaluate", "--workdir", "untrained"),
        ["'untrained'", "checkpoint"],
    ),
}


def run_row(row, folder: Path, cache: Path, run: Path | None) -> tuple[Outcome, bool]:
    """Runs one row in a place of its own; returns (outcome, nothing on disk was changed)."""
    prepare, command, _ = row
    place = Place(folder, cache)
    if run:
        shutil.copytree(run, folder / "run")
    prepare(place)
    before = files(folder)
    outcome = place.run(*command)
    return outcome, files(folder) == before and not (folder / "new2").exists()


def run_rows(rows, folder: Path, run: Path | None):
    """Runs rows two at a time."""
    with ThreadPoolExecutor(2) as pool:
        futures = {
            name: pool.submit(run_row, row, folder / str(i), folder / "cache", run)
            for i, (name, row) in enumerate(rows.items())
        }
        return {name: future.result() for name, future in futures.items()}


def selected(request, rows):
    """Returns the rows whose tests are going to run."""
    ids = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    return {name: row for name, row in rows.items() if name in ids}


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    return run_rows(selected(request, ROWS), tmp_path_factory.mktemp("rows"), None)


@pytest.fixture(scope="module")
def run_outcomes(request, tmp_path_factory, trained):
    rows = selected(request, RUN_ROWS)
    return run_rows(rows, tmp_path_factory.mktemp("run_rows"), trained.folder / "run")


def check_row(outcome: Outcome, unchanged: bool, says: list[str]) -> None:
    assert outcome.code == 2, outcome
    assert len(outcome.errors) == 1, outcome.errors
    line = outcome.errors[0]
    assert line.startswith("error: ")
    assert [text for text in says if text not in line] == [], line
    assert unchanged


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(outcomes, name):
    check_row(*outcomes[name], ROWS[name][2])


@pytest.mark.parametrize("name", RUN_ROWS)
def test_bad_input_beside_a_run(run_outcomes, name):
    check_row(*run_outcomes[name], RUN_ROWS[name][2])


# Damaged checkpoints. The run has one after each epoch, at steps 4 and 8.


@pytest.fixture
def copied(trained, tmp_path) -> Place:
    place = Place(tmp_path / "place", trained.cache)
    shutil.copytree(trained.folder / "run", place.folder / "run")
    # The same data at the same path, so that the config file is the same one.
    shutil.copy(trained.folder / "tiny.py", place.folder / "tiny.py")
    return place


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)


def array_file(run: Path, step: int) -> Path:
    """Returns the largest file of a checkpoint: its arrays."""
    paths = (run / "checkpoints" / str(step)).rglob("*")
    return max(paths, key=lambda path: path.stat().st_size if path.is_file() else 0)


def validation_rows(run: Path) -> list[dict]:
    rows = run_folder.read_metrics(run)
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


def test_training_falls_back_to_the_checkpoint_before(trained, copied):
    run = copied.folder / "run"
    truncate(array_file(run, 8))
    outcome = copied.train()
    assert outcome.code == 0, outcome
    warnings = [line for line in outcome.errors if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "checkpoint 8" in warnings[0] and "falling back" in warnings[0]
    assert not [line for line in outcome.errors if "error" in line or "Traceback" in line]
    assert "at step 4 of 8" in outcome.output
    assert validation_rows(run) == validation_rows(trained.folder / "run")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "8"}


def test_a_damaged_score_does_not_stop_the_run(trained, copied):
    run = copied.folder / "run"
    truncate(run / "checkpoints" / "8" / "metrics" / "metrics")
    outcome = copied.train()
    assert outcome.code == 0, outcome
    assert any(line.startswith("warning: ") and "8" in line for line in outcome.errors)
    assert validation_rows(run) == validation_rows(trained.folder / "run")


def test_no_readable_checkpoint_is_one_line_and_starts_nothing_over(copied):
    run = copied.folder / "run"
    for step in (4, 8):
        truncate(array_file(run, step))
    before = files(run)
    outcome = copied.train()
    assert outcome.code == 2, outcome
    errors = [line for line in outcome.errors if not line.startswith("warning: ")]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ") and "checkpoints" in errors[0]
    # Neither the checkpoints nor the metrics: or the same command would train from scratch.
    assert {**files(run), "run.json": ""} == {**before, "run.json": ""}


@pytest.mark.parametrize("place_of_damage", ["arrays", "score"])
def test_evaluation_falls_back_from_a_damaged_best(copied, place_of_damage):
    run = copied.folder / "run"
    scores = {row["step"]: row["validation_psnr"] for row in run_folder.read_metrics(run)}
    best = max(scores, key=scores.get)
    score_file = run / "checkpoints" / str(best) / "metrics" / "metrics"
    flip(array_file(run, best) if place_of_damage == "arrays" else score_file)
    before = files(run)
    outcome = copied.run("evaluate", "--workdir", "run")
    assert outcome.code == 0, outcome
    warnings = [line for line in outcome.errors if line.startswith("warning: ")]
    if place_of_damage == "arrays":
        assert len(warnings) == 1 and f"checkpoint {best}" in warnings[0]
        used = json.loads((run / "metrics.json").read_text())["checkpoint_step"]
        assert used == ({4, 8} - {best}).pop()
    assert before.items() <= files(run).items()  # an evaluation only adds files
