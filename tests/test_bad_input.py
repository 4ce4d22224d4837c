"""Bad input, as a user meets it: one line on stderr, exit code 2, and nothing on disk changed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from places import Outcome, Place, files, trained_place

from jax_kdpr.core import json_files
from jax_kdpr.data import fashion_mnist
from jax_kdpr.runs import folder as run_folder

TRAIN_FILE, TEST_FILE = fashion_mnist.FILES


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Place:
    return trained_place(tmp_path_factory.mktemp("trained"))


# Each row: what is prepared in a place, the command, and what its one line must say.

TINY = ("train", "--config", "tiny.py", "--workdir", "new")
STUDENT = (*TINY, "--config.regime=student", "--config.loss.alpha=0.9")
TAUGHT = (*STUDENT, "--config.distill.teacher=run")
FASHION = (
    *(*TINY, "--config.data.source=fashion_mnist", "--config.data.dir=fashion"),
    # Which it does not read.
    *("--config.data.validation_fraction=0.1", "--config.data.test_fraction=0.1"),
)


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


def notes_as(name):
    """Writes a file that somebody keeps in the folder that is given as --output."""

    def prepare(place):
        study_of_one(place)
        (place.folder / "notes").mkdir()
        (place.folder / "notes" / name).write_text("the only copy")

    return prepare


def changed_data(place):
    np.save(place.folder / "other.npy", 255 - np.load(place.stack))


def run_of_other_data(place):
    shutil.copytree(place.folder / "run", place.folder / "other")
    record = run_folder.read_run(place.folder / "other")
    record["digests"]["data"] = "f" * 64
    json_files.write_json(place.folder / "other" / "run.json", record)


def study_of_one(place):
    place.config(name="base.py")
    (place.folder / "study.py").write_text(
        "import runpy\n"
        "from jax_kdpr.studies.declaration import Entry, Study\n"
        "def get_config():\n"
        "    base = runpy.run_path('base.py')['get_config']()\n"
        "    entries = {'one': Entry(label='one', changes={'regime': 'e2e'})}\n"
        "    return Study(title='One', base=base, seeds=(0,), entries=entries, sections=())\n"
    )


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
    "a keyword that does not exist": (
        config_line("Config(siez=3)"),
        TINY,
        ["--config: ", "tiny.py, line ", "TypeError", "'siez'"],
    ),
    "an option as a flag": (nothing, (*TINY, "--epochs=5"), ["'epochs'", "--config.train.epochs"]),
    "a flag that is no number": (
        nothing,
        ("tolerance", "--workdir", "new", "--target=nan"),
        ["--target", "finite", "nan"],
    ),
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
    "path too long": (nothing, (*TINY[:-1], "x" * 300), ["xxx", "too long"]),
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
        ["distill.teacher", "nowhere'"],
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
    "rehearse with changed data": (
        changed_data,
        ("simulate_bench", "--workdir", "run", "--output", "new", "--data_dir", "other.npy"),
        ["run: its data have changed", "--data_dir"],
    ),
    **{
        f"{command} into a file": (
            nothing,
            (command, "--workdir", "run", "--output", "stack.npy/new"),
            ["--output", "'stack.npy/new'", "is a file"],
        )
        for command in ("evaluate", "tolerance", "solve", "ambiguity")
    },
    **{
        f"{command} over the notes of somebody": (
            notes_as(name),
            (command, *(options or ("--workdir", "run")), "--output", "notes"),
            ["--output", f"'notes/{name}'", f"says that {command} wrote it"],
        )
        for command, name, options in (
            ("evaluate", "comparison.md", ()),
            ("tolerance", "tolerance.png", ()),
            ("study", "section-1-masks.png", ("--config", "study.py", "--workdir", "study")),
        )
    },
    "study into a file": (
        study_of_one,
        ("study", "--config", "study.py", "--workdir", "stack.npy"),
        ["--workdir", "'stack.npy'", "is a file"],
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


def run_row(row, folder: Path, run: Path | None) -> tuple[Outcome, bool]:
    """Runs one row in a place of its own; returns (outcome, nothing on disk was changed)."""
    prepare, command, _ = row
    place = Place(folder)
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
            name: pool.submit(run_row, row, folder / str(i), run)
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
