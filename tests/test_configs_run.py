"""The shipped configs as processes: the paper's shapes at batch 2, and TensorBoard's files."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import run

from jax_kdpr.config.schema import Config
from jax_kdpr.core.options import describe
from jax_kdpr.runs import folder as run_folder

ROOT = Path(__file__).parent.parent
ONE_STEP = [
    "--config.train.batch_size=2",
    "--config.train.eval_batch_size=2",
    "--config.train.epochs=1",
    "--config.data.train_images=2",
    "--config.data.validation_images=2",
    "--config.data.test_images=2",
]


def train(config: str, workdir: Path, *overrides: str) -> subprocess.CompletedProcess:
    # Procedural scenes stand in for Fashion-MNIST where its files are not at hand.
    stand_in = [] if os.environ.get("KDPR_DATA_DIR") else ["--config.data.source=scenes"]
    given = ("--config", config, "--workdir", workdir, *ONE_STEP, *stand_in, *overrides)
    return run("train", *given, cwd=ROOT, check=True)


@pytest.mark.slow
def test_one_step_of_the_papers_student_with_its_teacher(tmp_path):
    train("configs/paper/teacher.py", tmp_path / "teacher")
    done = train(
        "configs/paper/student.py",
        tmp_path / "student",
        f"--config.distill.teacher={tmp_path / 'teacher'}",
    )
    assert "96 x 96 pixels" in done.stdout
    (row,) = run_folder.read_metrics(tmp_path / "student")
    assert row["step"] == 1 and row["train_cdp"] > 0 and row["train_feature"] > 0
    recorded = run_folder.read_run(tmp_path / "student")
    assert len(recorded["digests"]["teacher"]) == 64
    assert recorded["config"]["distill"]["teacher"] == str(tmp_path / "teacher")


@pytest.mark.slow
def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    train(
        "configs/quickstart/random.py",
        tmp_path,
        "--config.train.tensorboard=True",
        "--config.data.source=scenes",
        "--config.data.size=16",
        "--config.net.widths=8,16",
    )
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert b"validation_psnr" in events.read_bytes()


def test_help_lists_flags_and_every_option_with_its_meaning_and_choices():
    shown = run("train", "--help")
    assert shown.returncode == 0
    assert "--workdir" in shown.stdout and "optim.mask_lr = 0.0005" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100
    words = " ".join(shown.stdout.split())
    for options in describe(Config()).values():
        for path, option in options.items():
            assert option.says and f"{path} = " in words and option.says in words, path
            assert not option.choices or f"one of {', '.join(option.choices)}" in words, path
    assert "scene.phase_range = 3.14159 phase of a white pixel; in (0, 1000] radians" in words
