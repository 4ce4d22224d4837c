"""Faster ways of training that must be the same training: scans, arithmetic, what a machine has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from jax_kdpr.core import runtime
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.training import loop
from jax_kdpr.training.setup import prepare
from jax_kdpr.training.steps import Epoch


@pytest.mark.slow
def test_scanned_training_is_stepped_training(tmp_path):
    rows = []
    for steps in (1, 3):  # an epoch is four steps: one call of three and one of one
        config = tiny_config(train__scan_steps=steps, train__devices=1, train__epochs=2)
        loop.train(config, tmp_path / str(steps))
        rows.append(run_folder.read_metrics(tmp_path / str(steps)))
    for stepped, scanned in zip(*rows, strict=True):
        assert stepped["step"] == scanned["step"]
        np.testing.assert_allclose(scanned["train_total"], stepped["train_total"], rtol=2e-3)
        np.testing.assert_allclose(
            scanned["validation_psnr"], stepped["validation_psnr"], atol=0.02
        )


@pytest.mark.slow
def test_bfloat16_network_keeps_weights_physics_and_outputs_in_float32(tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        run = prepare(tiny_config(net__precision=precision, train__devices=1), tmp_path)
        images = jnp.zeros((4, 16, 16, 1))
        output, _ = jax.eval_shape(run.system.apply, *run.start.variables, images, run.keys.steps)
        assert output.estimate.dtype == jnp.complex64
        assert output.image.dtype == output.bottleneck.dtype == jnp.float32
        order = jnp.arange(run.dataset.train_size)
        epoch = Epoch(run.dataset.train(0), order, run.keys.steps, run.weights)
        state, step = run.start, run.train_steps(1)
        for _ in range(len(order) // run.config.train.batch_size):
            state, _ = step(state, epoch)
        assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(state.params))
        losses.append(float(state.totals["total"]))
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert losses[0] != losses[1]


def test_a_cpu_steps_singly_on_every_core_that_divides_the_batch():
    assert runtime.choose_scan_steps(0, 100) == 1
    assert runtime.choose_eval_batch(0, size=96, features=32) == 128
    assert runtime.choose_eval_batch(0, size=96, features=32, devices=3) == 129
    assert runtime.choose_devices(0, 64, 128) == 4  # of the tests' four
    assert runtime.choose_devices(0, 6, 128) == 2
    assert runtime.choose_devices(3, 64) == 3


def test_a_gpu_takes_large_batches_and_whole_chunks(monkeypatch):
    monkeypatch.setattr(runtime, "on_cpu", lambda: False)
    assert runtime.choose_devices(0, 64, 1024) == 1
    assert runtime.choose_scan_steps(0, 468) == 52  # divides the paper's epoch
    assert runtime.choose_scan_steps(0, 10) == 10
    assert runtime.choose_scan_steps(0, 467) == 64  # a prime number of steps
    assert runtime.choose_scan_steps(7, 468) == 7
    assert runtime.choose_eval_batch(0, size=96, features=32) == 512
    assert runtime.choose_eval_batch(0, size=16, features=8) == 1024
    assert runtime.choose_eval_batch(0, size=32768, features=64) == 1
    assert runtime.choose_eval_batch(50, size=96, features=32) == 50


def test_device_memory_is_that_of_the_machine():
    assert 2**28 < runtime.device_memory() < 2**45
