"""A student and its teacher: where it starts, and whether its targets are made once for all."""

import contextlib
import shutil

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import image_config, rejection, same, student_config, tiny_config

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.sharding import make_mesh, replicate
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import restore
from jax_kdpr.training import targets
from jax_kdpr.training.setup import Training, prepare
from jax_kdpr.training.steps import Epoch
from jax_kdpr.training.teacher import Teacher, changing_targets


def teacher_of(run: Training) -> Teacher:
    assert run.teacher is not None
    return run.teacher


def losses_of(run: Training, steps=3):
    """The loss of the first steps and the terms of the last."""
    epoch = Epoch(
        images=run.dataset.train(0),
        order=jnp.arange(run.dataset.train_size),
        key=run.keys.steps,
        weights=run.weights,
        guide=teacher_of(run).guide(run.config, run.dataset, batch_size=run.eval_batch_size),
    )
    program, state = run.train_steps(1), run.start
    totals = []
    for _ in range(steps):
        state, (loss,) = program(state, epoch)
        totals.append(float(loss))
    return totals, state.totals


@pytest.mark.slow
@pytest.mark.parametrize("start", ["optics", "network"])
def test_a_student_starts_with_what_it_takes_over(start, image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start=start, train__devices=1)
    config.seed = 5  # another random start than the teacher's
    run = prepare(config, tmp_path / "run")
    params, state = restore(teacher, run_folder.read_config(teacher)).variables
    assert same(run.start.params["phases"], params["phases"][:1]) == (start == "optics")
    assert same(run.start.params["filter"], params["filter"]) == (start == "optics")
    networks = [(p["net"], s["net"]) for p, s in (run.start.variables, (params, state))]
    kept = jax.tree.map(same, *networks)
    assert jax.tree.all(kept) == (start == "network")
    assert same(run.start.state["start"], state["start"]) == (start == "network")


@pytest.mark.slow
def test_cached_targets_give_the_losses_of_a_live_teacher(image_folder, teacher, tmp_path):
    """Who is not touched by the steps of a student that started as it."""
    options = {"distill__start": "all", "train__devices": 1}
    live, cached = (
        prepare(
            student_config(image_folder, teacher, distill__targets=mode, **options),
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


@pytest.mark.parametrize("devices", [1, 2])
def test_cached_targets_are_written_where_they_stay(devices, monkeypatch):
    """In one place on each device; the last of three batches is filled up."""
    images = np.random.default_rng(0).integers(0, 256, (11, 16, 16), dtype=np.uint8)
    places = set()

    class Bar:
        def update(self, _: int) -> None:
            for array in jax.live_arrays():
                if array.shape == (11, 16, 16, 1):
                    places.update(addresses(array))

    def addresses(array: jax.Array) -> list[int]:
        return [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]

    def teach(variables, batch, key):
        params, _ = variables
        return targets.Targets(cdp=params["factor"] * batch[..., 0], feature=batch)

    monkeypatch.setattr(targets, "progress", lambda **_: contextlib.nullcontext(Bar()))
    mesh = make_mesh(devices)
    given = replicate((({"factor": jnp.float32(2.0)}, {}), jnp.asarray(images)), mesh)
    made = targets.cache_targets(teach, *given, size=16, channels=1, batch_size=4, mesh=mesh)
    np.testing.assert_allclose(made.cdp, 2 * (images / 255), rtol=1e-6)
    np.testing.assert_allclose(made.feature[..., 0], images / 255, rtol=1e-6)
    assert len(places) == devices and places == set(addresses(made.feature))
    assert all(shard.data.shape == made.cdp.shape for shard in made.cdp.addressable_shards)


@pytest.mark.slow
def test_a_student_whose_teacher_weighs_nothing_is_an_e2e_run(image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start="all", train__devices=1)
    config.loss.alpha, config.loss.beta = 1.0, 0.0
    run = prepare(config, tmp_path / "run")
    assert teacher_of(run).guide(config, run.dataset, batch_size=1) is None
    (loss,), terms = losses_of(run, steps=1)
    assert terms["cdp"] == terms["feature"] == 0
    np.testing.assert_allclose(loss, terms["task"] + config.loss.rho * terms["mask"], rtol=1e-5)


def test_targets_that_change_are_not_cached():
    images, scenes = image_config("images"), tiny_config()
    noisy, moving = Config(), Config()
    noisy.noise.kind, moving.jitter.shift = "gaussian", 0.1
    assert changing_targets(images, Config()) == []
    for config, theirs, said in (
        (images, noisy, "gaussian noise is new in every step"),
        (images, moving, "jitter"),
        (scenes, Config(), "new images every epoch"),
    ):
        (reason,) = changing_targets(config, theirs)
        assert said in reason


@pytest.mark.slow
def test_targets_are_live_where_they_do_not_fit(image_folder, teacher, tmp_path, monkeypatch):
    config = student_config(image_folder, teacher)
    assert teacher_of(prepare(config, tmp_path)).cached
    config.data.memory = 1.0
    monkeypatch.setattr(runtime, "device_memory", lambda: 1000)
    monkeypatch.setattr(runtime, "require_memory", lambda *_: None)
    assert not teacher_of(prepare(config, tmp_path)).cached
    config.distill.targets = "cached"
    assert "a quarter of the device's memory" in rejection(prepare, config, tmp_path)


def recorded_student(teacher) -> Config:
    config = golden.config_of("student")
    config.distill.teacher = str(teacher)
    return config


def test_a_start_that_does_not_fit_is_refused(designed, tmp_path):
    config = recorded_student(designed)
    config.distill.start, config.masks.snapshots, config.spectral.filter_size = "optics", 4, 3
    message = rejection(prepare, config, tmp_path / "run")
    assert "masks.snapshots: 4 of 3" in message and "filter_size: 3 against 5" in message
    config.distill.start = "network"
    config.spectral.consistency_steps = 3
    assert "consistency_steps: 3 against 0" in rejection(prepare, config, tmp_path / "run")


def test_a_teacher_of_another_split_or_unfinished_is_refused(designed, tmp_path):
    """Its training may have seen what the student is scored on; its checkpoint may still change."""
    config = recorded_student(designed)
    config.data.seed += 1
    assert "other validation or test images" in rejection(prepare, config, tmp_path / "student")
    config.data.seed -= 1
    config.data.train_images = 48  # fewer of the same: the held-back images are what counts
    assert prepare(config, tmp_path / "student").teacher is not None
    config.distill.teacher = str(shutil.copytree(designed, tmp_path / "teacher"))
    (tmp_path / "teacher/metrics.jsonl").unlink()
    assert "finished 0 of 2 epochs" in rejection(prepare, config, tmp_path / "student")
