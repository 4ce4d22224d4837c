"""Damaged checkpoints: training and evaluation go on from what is whole."""

import shutil
from pathlib import Path

import pytest
from helpers import rejection, tiny_config
from places import files

from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop

# Orbax leaves the event loop of a read that failed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)


def part(run: Path, step: int, name: str) -> Path:
    """Returns the file of a checkpoint's score, or the largest one: its arrays."""
    folder = run / "checkpoints" / str(step)
    if name == "score":
        return folder / "metrics" / "metrics"
    return max(folder.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


@pytest.fixture
def copied(recorded, tmp_path) -> Path:
    """A run that has a checkpoint after each epoch, at steps 4 and 8."""
    return Path(shutil.copytree(recorded / "e2e", tmp_path / "run"))


@pytest.mark.parametrize("name", ["arrays", "score"])
def test_evaluation_falls_back_from_a_damaged_best(copied, name, capsys):
    config = run_folder.read_config(copied)
    best = restore(copied, config).step
    flip(part(copied, best, name))
    before = files(copied)
    found, said = restore(copied, config).step, capsys.readouterr().err
    if name == "arrays":
        assert found == ({4, 8} - {best}).pop()
        assert said.count("warning: ") == 1 and f"checkpoint {best} " in said
    assert files(copied) == before


@pytest.mark.slow
def test_no_readable_checkpoint_is_one_line_and_starts_nothing_over(copied):
    for step in (4, 8):
        truncate(part(copied, step, "arrays"))
    before = files(copied)
    assert "checkpoints" in rejection(loop.train, run_folder.read_config(copied), copied)
    # Neither the checkpoints nor the metrics: or the same command would train from scratch.
    kept = files(copied)
    assert {**kept, "run.json": "", "run.lock": ""} == {**before, "run.json": "", "run.lock": ""}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    loop.train(tiny_config(train__epochs=2), workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arrays", "score"])
def test_training_falls_back_to_the_checkpoint_before(trained, tmp_path, name, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    truncate(part(run, 8, name))
    loop.train(tiny_config(train__epochs=2), run)
    said = [line for line in capsys.readouterr().err.splitlines() if " 8 " in line]
    assert said and all(line.startswith("warning: ") for line in said)
    assert name == "score" or (len(said) == 1 and "checkpoint 8 " in said[0])
    one, other = (
        [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]
        for rows in (run_folder.read_metrics(run), run_folder.read_metrics(trained))
    )
    assert one == other
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "8"}
