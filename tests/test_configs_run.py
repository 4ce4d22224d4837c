"""The shipped configs at their own size, with two images: the paper's shapes, and its data."""

import importlib.util
import os

import pytest
from commands import run
from helpers import ROOT

from jax_kdpr.config.schema import Config
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.programs import trace_step

pytestmark = pytest.mark.slow
COUNTS = {
    **{"train.batch_size": 2, "train.eval_batch_size": 2, "train.epochs": 1},
    **{"data.train_images": 2, "data.validation_images": 2, "data.test_images": 2},
    "spectral.iterations": 2,
}


def shipped(name: str) -> Config:
    spec = importlib.util.spec_from_file_location("shipped_config", ROOT / "configs" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_one_step_of_the_papers_run_as_a_process(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    options = [f"--config.{name}={value}" for name, value in COUNTS.items()]
    # Procedural scenes stand in for Fashion-MNIST where its files are not at hand.
    options += [] if os.environ.get("KDPR_DATA_DIR") else ["--config.data.source=scenes"]
    given = ("--config", "configs/paper/e2e.py", "--workdir", tmp_path, *options)
    done = run("train", *given, "--config.train.tensorboard=True", cwd=ROOT, check=True)
    assert "96 x 96 pixels" in done.stdout
    (row,) = run_folder.read_metrics(tmp_path)
    assert row["step"] == 1 and row["train_task"] > 0
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert b"validation_psnr" in events.read_bytes()


def test_the_step_of_the_papers_student_takes_what_its_teacher_gives():
    student, teacher = (shipped(f"paper/{regime}.py") for regime in ("student", "teacher"))
    student.train.batch_size = 2
    assert "tensor<2x96x96" in trace_step(student, teacher).lowered.as_text()
