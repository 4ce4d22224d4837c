"""Run folders in one small file, and what goes on from one."""

import json

import numpy as np
import pytest
from helpers import assert_equal_trees, rejection

from jax_kdpr.config.schema import Config, to_dict
from jax_kdpr.core import json_files
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs import reduced
from jax_kdpr.runs.checkpoint import Checkpoints, steps


def newest(workdir):
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.arrays(max(steps(workdir)))


@pytest.fixture
def workdir(tmp_path):
    """A run of two epochs whose second one has just ended."""
    rng = np.random.default_rng(0)
    config = Config()
    config.train.epochs = 2
    folder = tmp_path / "run"
    folder.mkdir()
    run_folder.record_session(folder, config, {"data": "d"})
    row = dict.fromkeys(run_folder.ROW, 1.0) | {"epoch": 2, "step": 6}
    (folder / run_folder.METRICS_FILE).write_text(json.dumps(row) + "\n")
    tree = {
        "step": np.int32(6),
        "params": {"phases": rng.normal(size=(2, 8, 8)), "net": rng.normal(size=(3, 3, 2, 4))},
        "opt_state": {"mu": rng.normal(size=(2, 8, 8)), "count": np.int32(6)},
    }
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(6, tree, to_dict(config), score=1.0)
    return folder


def test_all_comes_back_to_the_bit_but_the_optimiser_which_starts_anew(workdir, tmp_path):
    file, other = tmp_path / "run.tar.gz", tmp_path / "other"
    reduced.pack(workdir, file)
    reduced.unpack(file, other, epochs=5)
    before, after = newest(workdir), newest(other)
    optimiser = {name: 0 * values for name, values in before.items() if "opt_state" in name}
    assert len(optimiser) == 2
    assert_equal_trees(before | optimiser, after)
    assert {name: v.dtype for name, v in after.items()} == {n: v.dtype for n, v in before.items()}
    phases = np.load(other / reduced.MASKS_FILE)
    np.testing.assert_allclose(phases, before["params.phases"] % (2 * np.pi), rtol=1e-6)
    assert run_folder.read_config(other).train.epochs == 5
    assert run_folder.read_metrics(other) == run_folder.read_metrics(workdir)
    with Checkpoints(other) as checkpoints:
        assert checkpoints.restore_best({"step": np.int32(0)}).step == 6
    # Once reduced, always the same: a student may be told again who its teacher is.
    reduced.pack(other, file)
    reduced.unpack(file, workdir)
    assert_equal_trees(newest(workdir), after)


def test_a_run_is_not_made_shorter_nor_are_rates_forgotten(workdir, tmp_path):
    file = tmp_path / "run.tar.gz"
    reduced.pack(workdir, file)
    assert "at least its 2 epochs" in rejection(reduced.unpack, file, workdir, epochs=1)
    record = run_folder.read_run(workdir)
    record["config"]["optim"]["schedule"] = "cosine"
    json_files.write_json(workdir / run_folder.RUN_FILE, record)
    assert "schedule" in rejection(reduced.pack, workdir, file)
