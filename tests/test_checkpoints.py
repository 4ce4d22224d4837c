"""Checkpoints in odd places, beside other processes, and damaged ones."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import rejection, tiny_config
from places import files

from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints
from jax_kdpr.runs.metric_log import MetricLog
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop

# Orbax leaves the event loop of a read that failed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LIKE = {"x": jnp.zeros(3), "y": {"z": jnp.zeros((4, 4))}}


def save(workdir: Path, scores: dict[int, float], *, unknown: tuple[int, ...] = ()) -> None:
    """Writes a checkpoint a step, whose arrays hold the step, as a training does.

    Of the steps `unknown` a signal has cut validation off: they are saved again with their score.
    """
    with Checkpoints(workdir) as checkpoints:
        for step, score in scores.items():
            if step in unknown:
                tree = {"x": jnp.full(3, float(step)), "y": {"z": jnp.eye(4)}}
                checkpoints.save(step, tree, {})
            row = dict.fromkeys(run_folder.ROW, 1) | {"step": step, "validation_psnr": score}
            MetricLog(workdir).append(row)
            tree = {"x": jnp.full(3, float(step)), "y": {"z": jnp.eye(4)}}
            checkpoints.save(step, tree, {}, score=score)


def best(workdir: Path) -> float:
    with Checkpoints(workdir, read_only=True) as checkpoints:
        tree = checkpoints.restore_best(LIKE).tree
    np.testing.assert_array_equal(tree["y"]["z"], np.eye(4))
    return float(tree["x"][0])


@pytest.mark.parametrize("name", ["run[1]", "[", "a*", "a?", "a\\b", "a%20b#c", "gs:", "\udcff"])
def test_any_path_will_do(tmp_path, name):
    save(tmp_path / name, {1: 20.0, 2: 10.0})
    assert best(tmp_path / name) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_score_that_came_after_its_checkpoint_counts(tmp_path):
    save(tmp_path, {4: 40.0, 8: 10.0, 12: 9.0, 16: 8.0}, unknown=(4,))
    assert best(tmp_path) == 4.0


@pytest.mark.parametrize("damage", ["bit", "digest"])
@pytest.mark.parametrize("has_row", [True, False])
def test_a_damaged_score_is_that_of_its_row_or_does_not_count(tmp_path, damage, has_row):
    save(tmp_path, {1: 20.0, 2: 10.0})
    written, log = tmp_path / "checkpoints/1/metrics/metrics", tmp_path / run_folder.METRICS_FILE
    values = json.loads(written.read_text())
    written.write_text(
        {
            "bit": json.dumps(values | {"validation_psnr": 2.0}),
            "digest": json.dumps(values | {"digest": "0" + values["digest"][1:]}),
        }[damage]
    )
    if not has_row:
        log.unlink()
    assert best(tmp_path) == (1.0 if has_row or "earlier" in damage else 2.0)


def test_a_checkpoint_that_a_training_removes_meanwhile_is_not_damaged(
    tmp_path, monkeypatch, capsys
):
    save(tmp_path, {1: 20.0, 2: 10.0})
    monkeypatch.setattr(checkpoint, "REMOVAL_SECONDS", 0.0)
    read = Checkpoints._read

    def read_late(self, step):
        if step == 1:
            save(tmp_path, {3: 30.0, 4: 10.0})  # a better one: the first is removed
            assert not (tmp_path / "checkpoints/1").exists()
        return read(self, step)

    monkeypatch.setattr(Checkpoints, "_read", read_late)
    assert best(tmp_path) == 3.0
    assert capsys.readouterr().err == ""


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


def test_evaluation_falls_back_from_a_damaged_best(copied, capsys):
    config = run_folder.read_config(copied)
    best = restore(copied, config).step
    flip(part(copied, best, "arrays"))
    before = files(copied)
    assert restore(copied, config).step == ({4, 8} - {best}).pop()
    said = capsys.readouterr().err
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
