"""Checkpoints in odd places, beside other processes, and with scores that do not agree."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints
from jax_kdpr.runs.metric_log import MetricLog

LIKE = {"x": jnp.zeros(3), "y": {"z": jnp.zeros((4, 4))}}


def save(workdir: Path, scores: dict[int, float]) -> None:
    """Writes a checkpoint a step, whose arrays hold the step, as a training does."""
    with Checkpoints(workdir) as checkpoints:
        for step, score in scores.items():
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


@pytest.mark.parametrize("damage", ["bit", "digest", "of an earlier version"])
@pytest.mark.parametrize("has_row", [True, False])
def test_a_damaged_score_is_that_of_its_row_or_does_not_count(tmp_path, damage, has_row):
    save(tmp_path, {1: 20.0, 2: 10.0})
    written, log = tmp_path / "checkpoints/1/metrics/metrics", tmp_path / run_folder.METRICS_FILE
    values = json.loads(written.read_text())
    written.write_text(
        {
            "bit": json.dumps(values | {"validation_psnr": 2.0}),
            "digest": json.dumps(values | {"digest": "0" + values["digest"][1:]}),
            "of an earlier version": json.dumps({"validation_psnr": 20.0}),
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
