"""Checkpoints in odd places, beside other processes, and with scores that do not agree."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints

LIKE = {"x": jnp.zeros(3), "y": {"z": jnp.zeros((4, 4))}}


def save(workdir: Path, scores: dict[int, float]) -> None:
    """Writes a checkpoint a step, whose arrays hold the step, as a training does."""
    with Checkpoints(workdir) as checkpoints:
        for step, score in scores.items():
            row = dict.fromkeys(run_folder.ROW, 1) | {"step": step, "validation_psnr": score}
            run_folder.append_metrics(workdir, row)
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


@pytest.mark.parametrize("read_only", [True, False])
def test_arrays_that_were_left_unmerged_are_merged(tmp_path, monkeypatch, read_only):
    workdir = tmp_path / "run[1]"
    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoint, "_plain_path", lambda _, folder: folder.resolve())
        save(workdir, {1: 20.0})
    assert not list(workdir.rglob("state/manifest.ocdbt"))
    shutil.move(workdir, tmp_path / "moved")
    with Checkpoints(tmp_path / "moved", read_only=read_only) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore_best(LIKE).tree["x"], np.ones(3))


def test_arrays_beside_the_state_do_not_fill_the_memory(tmp_path, capsys):
    save(tmp_path, {1: 20.0})
    with Checkpoints(tmp_path) as checkpoints:
        run_folder.append_metrics(tmp_path, {"step": 2, "validation_psnr": 30.0})
        checkpoints.save(2, {**LIKE, "more": np.zeros(3_000_000, np.float32)}, {}, score=30.0)
    assert best(tmp_path) == 1.0
    assert "declares 12,000,076 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["of another step", "none"])
def test_a_flipped_score_that_no_row_tells_does_not_count(tmp_path, capsys, row):
    save(tmp_path, {1: 20.0, 2: 10.0})
    written, log = tmp_path / "checkpoints/2/metrics/metrics", tmp_path / run_folder.METRICS_FILE
    written.write_text(json.dumps(json.loads(written.read_text()) | {"validation_psnr": 90.0}))
    log.write_text(log.read_text().splitlines(keepends=True)[0] if row != "none" else "")
    assert best(tmp_path) == 1.0
    assert "checkpoint 2" in (said := capsys.readouterr().err) and "it does not count" in said
    written.write_text(json.dumps({"validation_psnr": 90.0}))  # of an earlier version
    assert best(tmp_path) == 2.0


@pytest.mark.parametrize("wrong", ["checkpoint", "log", "digest", "log of an earlier version"])
def test_a_flipped_bit_in_a_score_does_not_choose(tmp_path, capsys, wrong):
    save(tmp_path, {1: 20.0, 2: 10.0})
    written = tmp_path / "checkpoints/1/metrics/metrics"
    log = tmp_path / run_folder.METRICS_FILE
    values = json.loads(written.read_text())
    if wrong == "checkpoint":
        written.write_text(json.dumps(values | {"validation_psnr": 2.0}))
    elif wrong == "digest":
        written.write_text(json.dumps(values | {"digest": "0" + values["digest"][1:]}))
    else:
        log.write_text(log.read_text().replace("20.0", "2.0"))
    if wrong == "log of an earlier version":
        written.write_text(json.dumps({"validation_psnr": 20.0}))
    # Without a digest nothing tells which is right: the log counts, and a warning says so.
    assert best(tmp_path) == (2.0 if "earlier" in wrong else 1.0)
    warnings = capsys.readouterr().err.splitlines()
    if wrong == "digest":
        assert not warnings  # both copies of the score agree
        return
    place = f"step 1 in {log} " if wrong == "log" else f"checkpoint 1 in {tmp_path}"
    assert warnings[0].startswith(f"warning: the score of {place}") and "damaged" in warnings[0]


def test_a_checkpoint_that_a_training_removes_meanwhile_is_not_damaged(
    tmp_path, monkeypatch, capsys
):
    save(tmp_path, {1: 20.0, 2: 10.0})
    monkeypatch.setattr(checkpoint, "REMOVAL_SECONDS", 0.0)
    read = Checkpoints._read

    def read_late(self, step, like):
        if step == 1:
            save(tmp_path, {3: 30.0, 4: 10.0})  # a better one: the first is removed
            assert not (tmp_path / "checkpoints/1").exists()
        return read(self, step, like)

    monkeypatch.setattr(Checkpoints, "_read", read_late)
    assert best(tmp_path) == 3.0
    assert capsys.readouterr().err == ""
