"""Bad input, as a user meets it: one line on stderr, exit code 2, and nothing on disk changed.

What a config file or an option can have wrong is in test_cli.py.
"""

import runpy
import shlex
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
from places import Place, files

from jax_kdpr.core import json_files
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.training import loop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run folder of a teacher that was trained on the images of a place."""
    place = Place(tmp_path_factory.mktemp("trained"))
    config = runpy.run_path(str(place.folder / "tiny.py"))["get_config"]()
    loop.train(config, place.folder / "run")
    return place.folder / "run"


def unreadable_image(place):
    (place.folder / "images").mkdir()
    (place.folder / "images" / "cell7.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))


def kept_file(name):
    """Writes a file that somebody keeps where a command is to write."""

    def prepare(place):
        (place.folder / name).parent.mkdir()
        (place.folder / name).write_text("the only copy")

    return prepare


def changed_data(place):
    np.save(place.folder / "other.npy", 255 - np.load(place.stack))


def run_of_other_data(place):
    shutil.copytree(place.folder / "run", place.folder / "other")
    record = run_folder.read_run(place.folder / "other")
    record["digests"]["data"] = "f" * 64
    json_files.write_json(place.folder / "other" / "run.json", record)


def untrained_run(place):
    shutil.copytree(place.folder / "run", place.folder / "untrained")
    shutil.rmtree(place.folder / "untrained" / "checkpoints")


NEW = "train --config tiny.py --workdir new"
OVER = "train --config tiny.py --workdir run"
STUDENT = f"{NEW} --config.regime=student --config.loss.alpha=0.9 --config.distill.teacher"
STUDIED = "study --config study.py --workdir new"
TIMED = "benchmark --config tiny.py --output new"

# The command, what its one line must name, and what is prepared before.
ROWS = [
    (f"{NEW} new2", "'new2'"),
    (f"train --config tiny.py --workdir {300 * 'x'}", "xxx", "too long"),
    (f"{NEW} --config.data.dir=images", "images/cell7.png", unreadable_image),
    (f"{NEW} --config.train.batch_size=65", "train.batch_size", "64 training", "65"),
    # A command makes 8 devices of a CPU at most.
    (f"{NEW} --config.train.devices=16", "train.devices", "16"),
    (NEW, "--workdir", "'new'", kept_file("new/thesis.tex")),
    (f"{NEW[:-3]}stack.npy/new", "--workdir", "stack.npy"),
    (f"{STUDENT}=nowhere", "distill.teacher", "nowhere'"),
    (f"{STUDENT}=run --config.data.size=32", "distill.teacher", "data.size: 32 against 16"),
    (
        f"{STUDENT}=run '--config.net.widths=(8,32)' --config.net.norm=group",
        *("net.widths: (8, 32) against (8, 16)", "net.norm: group against batch"),
    ),
    (f"{STUDENT}=run --config.scene.kind=amplitude", "scene.kind: amplitude against phase"),
    (f"{STUDENT}=untrained", "untrained", "checkpoint", untrained_run),
    (
        f"{OVER} --config.optim.mask_lr=0.5 --config.masks.snapshots=2",
        *("'run'", "optim.mask_lr: 0.5 against 0.0005", "masks.snapshots: 2 against 1"),
    ),
    (f"{OVER} --config.data.dir=other.npy", "'run'", "data digest", changed_data),
    ("evaluate --workdir new", "'new'", "run.json", kept_file("new/thesis.tex")),
    ("evaluate --workdir run --data_dir other.npy", "run: its data", "--data_dir", changed_data),
    ("evaluate --workdir run other", "run against other", "ffffffff", run_of_other_data),
    ("evaluate --workdir untrained", "'untrained'", "checkpoint", untrained_run),
    (
        "evaluate --workdir run --output notes",
        *("--output", "'notes/comparison.md'", kept_file("notes/comparison.md")),
    ),
    (
        "simulate_bench --workdir run --output new --data_dir other.npy",
        *("run: its data", "--data_dir", changed_data),
    ),
    *(
        (f"{command} --workdir run --output stack.npy/new", "--output", "'stack.npy/new'")
        for command in ("evaluate", "tolerance", "solve", "ambiguity")
    ),
    (
        "tolerance --workdir run --output notes",
        *("--output", "'notes/tolerance.png'", kept_file("notes/tolerance.png")),
    ),
    ("solve --workdir run --output new --solver=raar,newton", "--solver", "newton"),
    ("solve --workdir run --output new --steps=0", "--steps", "0"),
    ("solve --workdir run --output new --restarts=3", "--restarts"),
    ("solve --workdir run --output new --support=x.png", "--support"),
    (f"{TIMED} --sweep=snapshot=1,2", "--sweep", "snapshot"),
    (f"{TIMED} --sweep=size=16,x", "--sweep", "x"),
    (f"{TIMED} --sweep=size=17", "data.size", "17"),
    (f"{TIMED} --against=tensorflow", "--against", "tensorflow"),
    (f"{TIMED} --against=torch --config.net.norm=group", "net.norm", "group"),
    (f"{TIMED} --only=stp", "--only", "'stp'"),
    ("study --config study.py", "--workdir"),
    (f"{STUDIED} extra", "'extra'"),
    (f"{STUDIED} --only=nobody", "--only", "'nobody'", "random"),
    (f"{STUDIED} --compile", "--compile", "--dry_run"),
    (f"{STUDIED} --report_only", "no finished run"),
    (f"{STUDIED} --config.base.data.dir=nowhere", "nowhere"),
    (f"{STUDIED[:-3]}stack.npy", "--workdir", "'stack.npy'"),
    (
        f"{STUDIED} --output notes",
        *("--output", "'notes/section-1-masks.png'", kept_file("notes/section-1-masks.png")),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_bad_input(row, tmp_path, request):
    command, *words = row
    place = Place(tmp_path)
    prepare = words.pop() if callable(words[-1]) else lambda _: None
    if "run" in command or prepare is untrained_run:
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "run")
    prepare(place)
    before = files(tmp_path)
    line = commands.refusal(*shlex.split(command), cwd=tmp_path)
    assert [word for word in words if word not in line] == [], line
    assert files(tmp_path) == before and not (tmp_path / "new2").exists()
