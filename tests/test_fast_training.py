"""Faster ways of training that must be the same training: cached targets and scans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import image_config, rejection, student_config, tiny_config

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, runtime
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints
from jax_kdpr.training import loop
from jax_kdpr.training.setup import Training, prepare
from jax_kdpr.training.steps import Epoch, compile_steps
from jax_kdpr.training.teacher import Teacher, changing_targets


def rows_of(workdir):
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in run_folder.read_metrics(workdir)
    ]


def assert_close_rows(one, other, *, decibel=0.02):
    """Two trainings of one run, equal to rounding."""
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a["train_total"], b["train_total"], rtol=2e-3)
        np.testing.assert_allclose(a["validation_psnr"], b["validation_psnr"], atol=decibel)


# Cached targets


def teacher_of(run: Training) -> Teacher:
    assert run.teacher is not None
    return run.teacher


def losses_of(run, steps=3):
    """The loss of the first steps and the terms of the last."""
    epoch = Epoch(
        images=run.dataset.train(0),
        order=jnp.arange(run.dataset.train_size),
        key=run.keys.steps,
        weights=run.weights,
        guide=teacher_of(run).guide(run.config, run.dataset, batch_size=run.eval_batch_size),
    )
    program, state = compile_steps(run.train_step), jax.tree.map(jnp.array, run.start)
    totals = []
    for _ in range(steps):
        state, (loss,) = program(state, epoch)
        totals.append(float(loss))
    return totals, state.totals


@pytest.mark.slow
def test_cached_targets_give_the_losses_of_a_live_teacher(image_folder, teacher, tmp_path):
    live, cached = (
        prepare(
            student_config(image_folder, teacher, distill__targets=mode, train__devices=1),
            tmp_path / mode,
        )
        for mode in ("live", "auto")
    )
    assert teacher_of(cached).cached and not teacher_of(live).cached
    (live_losses, live_terms), (cached_losses, cached_terms) = losses_of(live), losses_of(cached)
    np.testing.assert_allclose(cached_losses, live_losses, rtol=1e-4)
    for name in ("cdp", "feature"):
        assert live_terms[name] > 0
        np.testing.assert_allclose(cached_terms[name], live_terms[name], rtol=1e-4)


@pytest.mark.slow
def test_targets_are_live_where_they_change_or_do_not_fit(
    image_folder, teacher, tmp_path, monkeypatch
):
    config = student_config(image_folder, teacher)
    monkeypatch.setattr(runtime, "device_memory", lambda: 1000)
    monkeypatch.setattr(runtime, "require_memory", lambda *_: None)
    assert not teacher_of(prepare(config, tmp_path)).cached
    config.distill.targets = "cached"
    assert "a quarter of the device's memory" in rejection(prepare, config, tmp_path)
    monkeypatch.undo()
    assert teacher_of(prepare(config, tmp_path)).cached
    run = run_folder.read_run(teacher)
    run["config"]["noise"]["kind"] = "gaussian"
    json_files.write_json(teacher / "run.json", run)
    try:
        assert "gaussian noise is new in every step" in rejection(prepare, config, tmp_path)
        config.distill.targets = "auto"
        assert not teacher_of(prepare(config, tmp_path)).cached
    finally:
        run["config"]["noise"]["kind"] = "none"
        json_files.write_json(teacher / "run.json", run)


@pytest.mark.slow
def test_procedural_scenes_cannot_be_cached(tmp_path):
    teacher = tiny_config(train__epochs=1)
    teacher.regime = "teacher"
    loop.train(teacher, tmp_path / "teacher")
    config = tiny_config(distill__teacher=str(tmp_path / "teacher"), distill__targets="cached")
    config.regime, config.loss.alpha = "student", 0.9
    assert "new images every epoch" in rejection(prepare, config, tmp_path / "student")
    config.distill.targets = "auto"
    assert not teacher_of(prepare(config, tmp_path / "student")).cached


def test_the_targets_of_a_teacher_on_a_moving_bench_are_not_cached():
    teacher = Config()
    assert changing_targets(image_config("images"), teacher) == []
    teacher.jitter.shift = 0.1
    (reason,) = changing_targets(image_config("images"), teacher)
    assert "jitter" in reason


# Several steps in one call


@pytest.mark.slow
def test_scanned_training_is_stepped_training(tmp_path):
    for steps in (1, 3):  # an epoch is four steps: one call of three and one of one
        config = tiny_config(train__scan_steps=steps, train__devices=1)
        loop.train(config, tmp_path / str(steps))
    assert_close_rows(rows_of(tmp_path / "1"), rows_of(tmp_path / "3"))


@pytest.mark.slow
def test_scanned_losses_come_step_by_step(tmp_path):
    run = prepare(tiny_config(train__devices=1), tmp_path)
    epoch = loop._epoch_inputs(run, 0, None)

    def losses(length):
        program, state = compile_steps(run.train_step, length=length), run.start
        state = jax.tree.map(jnp.array, state)
        made = []
        for _ in range(4 // length):
            state, part = program(state, epoch)
            made += part.tolist()
        return made, int(state.step)

    stepped, scanned = losses(1), losses(4)
    np.testing.assert_allclose(scanned[0], stepped[0], rtol=1e-4)
    assert scanned[1] == stepped[1] == 4


def test_checkpoints_made_again_replace_later_ones(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": jnp.full(3, step)}, {}, score=1.0)
        with pytest.raises(RuntimeError, match="there is a later one"):
            checkpoints.save(0, {"x": jnp.zeros(3)}, {}, score=1.0)
        checkpoints.discard_after(2)
        checkpoints.save(3, {"x": jnp.full(3, 7)}, {}, score=1.0)
        restored = checkpoints.restore_latest({"x": jnp.zeros(3, int)})
        assert restored.step == 3 and restored.tree["x"][0] == 7


def test_any_number_of_devices_gets_an_evaluation_batch_that_fits(tmp_path):
    config = tiny_config(train__batch_size=15, train__devices=3, train__eval_batch_size=0)
    assert prepare(config, tmp_path).eval_batch_size % 3 == 0


# Arithmetic of the network


@pytest.mark.slow
def test_bfloat16_network_keeps_weights_physics_and_outputs_in_float32(tmp_path):
    config = tiny_config(net__precision="bfloat16", train__devices=1)
    run = prepare(config, tmp_path)
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(run.start.params))
    images = draw_scenes(jax.random.key(0), count=4, size=16)[..., None] / 1.0
    output, _ = run.system.apply(run.start.params, run.start.state, images, jax.random.key(1))
    assert output.estimate.dtype == jnp.complex64
    assert output.image.dtype == output.bottleneck.dtype == jnp.float32
    reduced = loop.train(config, tmp_path / "bfloat16")
    full = loop.train(tiny_config(train__devices=1), tmp_path / "float32")
    assert abs(reduced["validation_psnr"] - full["validation_psnr"]) < 0.5


# What the machine decides


def test_a_cpu_steps_singly_on_every_core_that_divides_the_batch():
    assert runtime.choose_scan_steps(0, 100) == 1
    assert runtime.choose_eval_batch(0, size=96, features=32) == 128
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
