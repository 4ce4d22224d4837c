"""The benchmark: what it counts, its rows, and PyTorch's agreement with ours."""

import json
import os
from pathlib import Path

import commands
import numpy as np
import pytest
from helpers import ROOT, rejection

from jax_kdpr.config.schema import Config, OptimOptions
from jax_kdpr.core.options import flatten
from jax_kdpr.evaluation.speed import cases, counts, torch_worker
from jax_kdpr.evaluation.speed.counts import Limits, Work
from jax_kdpr.evaluation.speed.timing import Timing, ratio_of, time_alternating
from jax_kdpr.optics.camera import Camera
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.spectral import SpectralOptions
from jax_kdpr.recovery.system import System

TINY = [
    "--config=configs/quickstart/student.py",
    "--config.data.size=16",
    "--config.net.widths=(8,16)",
    "--config.spectral.iterations=3",
    "--config.train.batch_size=2",
    "--teacher_snapshots=2",
    "--calls=2",
]


def run(folder: Path, *arguments) -> None:
    commands.run("benchmark", *TINY, *arguments, "--output", folder, cwd=ROOT, check=True)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Counts, by hand


def test_unet_work_by_hand():
    """Two widths at 4 x 4: five 3 x 3 convolutions less one, and the 1 x 1 head."""
    convolutions = [(16, 2, 8), (16, 8, 8), (4, 8, 16), (4, 16, 16), (16, 24, 8), (16, 8, 8)]
    work = counts.unet_work(size=4, widths=(8, 16), channels=1)
    assert work.flops == sum(18 * p * i * o for p, i, o in convolutions) + 2 * 16 * 8
    assert work.bytes == sum(4 * p * (i + o) for p, i, o in convolutions)


def test_spectral_work_counts_two_transforms_a_mask_and_two_for_the_filter():
    one = counts.spectral_work(size=8, snapshots=1, oversample=1, iterations=1)
    assert one.bytes == 4 * 16 * 64
    nine = counts.spectral_work(size=8, snapshots=9, oversample=1, iterations=25)
    assert nine.bytes == 25 * 20 * 16 * 64
    padded = counts.spectral_work(size=8, snapshots=1, oversample=2, iterations=1)
    assert padded.bytes == 2 * 16 * 256 + 2 * 16 * 64
    assert one.flops > 4 * counts.fft_work(64).flops == 4 * 5 * 64 * 6


def test_limit_is_the_slower_of_arithmetic_and_memory():
    limits = Limits(flops=100.0, bytes=10.0)
    assert [limits.seconds(work) for work in (Work(200.0, 1.0), Work(1.0, 50.0))] == [2.0, 5.0]
    limits = counts.measure_limits(seconds=0.05)  # those of a computer
    assert 1e8 < limits.flops < 1e15 and 1e8 < limits.bytes < 1e14


# Timing


def test_clocks_are_called_in_turn_after_their_warm_up():
    called = []
    clocks = [lambda name=name: called.append(name) or len(called) for name in "ab"]
    first, second = time_alternating(clocks, calls=3, warm_up=1)
    assert called == list("ab" + "ababab")
    assert first.seconds.tolist() == [3, 5, 7] and second.seconds.tolist() == [4, 6, 8]


def test_ratios_are_taken_call_by_call():
    slow, fast = Timing(np.array([2.0, 40.0, 6.0])), Timing(np.array([1.0, 10.0, 2.0]))
    assert ratio_of(slow, fast) == (3.0, 2.5, 3.5)
    assert slow.per(2).median == 3.0


# The command


INFERENCES = ("inference", "spectral initialisation", "spectral value and gradient")
NAMES = [
    *(f"{what}, {role}" for role in ("student", "teacher") for what in INFERENCES),
    *("U-Net", "U-Net value and gradient", "step, random", "step, e2e", "step, teacher"),
    *("step, student, live teacher", "step, student, cached targets"),
]
FRAMES = ["one frame, student", "one frame, Run.reconstruct"]  # neither is compiled apart


@pytest.mark.slow
def test_every_case_has_a_row_with_all_it_takes(tmp_path):
    run(tmp_path)
    rows = rows_of(tmp_path / "benchmark.jsonl")
    assert [row["case"] for row in rows] == NAMES + FRAMES
    for row in rows:
        assert row["calls"] == 2 and row["batch"] == 2 and row["teacher_snapshots"] == 2
        assert 0 < row["least_ms"] <= row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        known = ("memory_mb",) if row["case"] in NAMES else ()
        for positive in ("compile_seconds", *known, "gflop", "of_limit", "limit_gflops"):
            assert row[positive] > 0, (row["case"], positive)
        assert {"time", "commit", "versions", "devices"} <= set(row["provenance"])
    table = (tmp_path / "benchmark.md").read_text()
    assert all(name in table for name in NAMES + FRAMES) and "2 calls" in table


@pytest.mark.slow
def test_compile_only_times_nothing_and_tells_the_memory(tmp_path):
    run(tmp_path, "--compile_only", "--only=inference, student")
    (row,) = rows_of(tmp_path / "memory.jsonl")
    assert row["memory_mb"] > 0 and "median_ms" not in row


@pytest.mark.slow
def test_a_sweep_has_a_row_for_each_value_and_a_plot(tmp_path):
    run(tmp_path, "--sweep=snapshots=1,2", "--sweep=batch=4")
    # One sweep does not reach into the next.
    after = rows_of(tmp_path / "sweep-batch.jsonl")
    assert {(row["snapshots"], row["batch"]) for row in after} == {(1, 4)}
    rows = [(row["snapshots"], row["case"]) for row in rows_of(tmp_path / "sweep-snapshots.jsonl")]
    assert sorted(rows) == sorted((value, case) for value in (1, 2) for case in cases.SWEPT)
    assert "ms per snapshots" in (tmp_path / "sweep-snapshots.md").read_text()
    assert (tmp_path / "sweep-snapshots.png").stat().st_size > 5000


def test_the_twin_is_the_system_of_the_papers_configs_and_refuses_others():
    config = Config()
    assert torch_worker.TWIN.keys() <= flatten(config).keys()
    torch_worker.require_twin(flatten(config))
    config.noise.kind = "poisson"
    message = rejection(torch_worker.require_twin, flatten(config))
    assert "noise.kind" in message and "poisson" in message


# PyTorch


def require_torch():
    if os.environ.get("KDPR_REQUIRE_TORCH"):
        import torch  # noqa: F401
    else:
        pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.slow
def test_pytorch_gives_the_same_numbers_and_is_timed_beside(tmp_path):
    require_torch()
    run(tmp_path, "--against=torch", "--only=inference")
    rows = rows_of(tmp_path / "against-torch.jsonl")
    assert [row["case"] for row in rows] == ["inference, student", "inference, teacher"]
    agreement = rows[0]["agreement"]
    assert len(agreement) == 6 and max(agreement.values()) < torch_worker.AGREEMENT
    for row in rows:
        assert row["torch_ms"] > 0 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_pytorch_steps_descend_the_same_loss():
    """Two systems that start alike lose alike, step after step."""
    require_torch()
    import jax
    import jax.numpy as jnp
    import torch

    from jax_kdpr.evaluation.speed import torch_twin
    from jax_kdpr.training.state import init_train_state, make_optimizer
    from jax_kdpr.training.steps import Epoch, compile_steps, make_train_step
    from jax_kdpr.training.targets import make_teach

    size, widths, parts = 16, (8, 16), ("phases", "filter", "net")
    options = {"spectral": SpectralOptions(iterations=5), "net": NetOptions(widths=widths)}
    student, teacher = (System(Camera(size=size), snapshots=k, **options) for k in (1, 2))
    variables, guide = (s.init(jax.random.key(i)) for i, s in enumerate((student, teacher)))
    images = np.random.default_rng(0).random((4, size, size, 1), np.float32)
    twins = [
        torch_twin.System(*v, widths=widths, phase_range=np.pi, iterations=5)
        for v in (variables, guide)
    ]
    weights = {"task": 0.6, "mask": 0.1, "cdp": 0.1, "feature": 0.3}
    rates = dict.fromkeys(parts, 1e-3)
    their_step = torch_twin.make_step(twins[0].train(), weights=weights, rates=rates)
    targets = torch_twin.teach(twins[1].eval(), torch.from_numpy(images))
    ours = make_teach(teacher)(guide, jnp.asarray(images), jax.random.key(0))
    np.testing.assert_allclose(ours.cdp, targets[0].numpy(), atol=1e-5)

    optim = OptimOptions(mask_lr=1e-3, filter_lr=1e-3, net_lr=1e-3, schedule="constant")
    optimizer = make_optimizer(optim, total_steps=3)
    step = compile_steps(make_train_step(student, optimizer, trained=parts, batch_size=4))
    state = init_train_state(*variables, optimizer, trained=parts)
    epoch = Epoch(jnp.asarray(images[..., 0]), jnp.arange(4), jax.random.key(0), weights, ours)
    for _ in range(3):
        theirs = float(their_step(torch.from_numpy(images), targets))
        state, (loss,) = step(state, epoch)
        np.testing.assert_allclose(loss, theirs, rtol=1e-3)
