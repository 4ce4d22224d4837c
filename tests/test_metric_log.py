"""Where metrics go beside metrics.jsonl."""

import importlib.util
import json
import os

import pytest
from helpers import rejection

from jax_kdpr.config.schema import Config
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs import metric_log
from jax_kdpr.runs.metric_log import MetricLog, require_loggers

HAS_WANDB = importlib.util.find_spec("wandb") is not None


def row(epoch: int) -> dict:
    return dict.fromkeys(run_folder.ROW, 1.5 * epoch) | {"epoch": epoch, "step": 6 * epoch}


def test_a_logger_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(metric_log.importlib.util, "find_spec", lambda _: None)
    require_loggers(tensorboard=False, wandb=False)
    assert "train.wandb: wandb is not installed; pip install -e '.[wandb]'" in rejection(
        lambda: require_loggers(tensorboard=False, wandb=True)
    )


@pytest.mark.skipif(
    not (HAS_WANDB or os.environ.get("KDPR_REQUIRE_WANDB")), reason="the extra `wandb`"
)
@pytest.mark.filterwarnings("default")  # of wandb's own
def test_weights_and_biases_get_every_row_and_the_config(tmp_path, monkeypatch):
    """With the package itself, which writes to the disk when it is told to be offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    workdir = tmp_path / "run"
    workdir.mkdir()
    run_folder.record_session(workdir, Config(), {"data": "d"})
    for step, rows in ((0, (row(1), row(2))), (6, (row(2),))):  # the second one is made again
        log = MetricLog(workdir, wandb=True)
        log.resume_at(step)
        for one in rows:
            log.append(one)
        log.close()
    assert [one["epoch"] for one in log.rows()] == [1, 2]
    written = sorted(workdir.glob("wandb/offline-run-*/*.wandb"))
    assert len(written) == 2
    assert len({path.stem for path in written}) == 1  # one run, that went on
    for path in written:
        content = path.read_bytes()
        assert b"validation_psnr" in content and b"mask_lr" in content
    assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[1])["step"] == 12
