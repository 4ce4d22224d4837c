"""The step: what is trained, what is not, and what a teacher adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same

from jax_kdpr.config.schema import Config, OptimOptions
from jax_kdpr.core.sharding import make_mesh, replicate
from jax_kdpr.data.batches import over_batches
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.optics.camera import Camera
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.spectral import SpectralOptions
from jax_kdpr.recovery.system import System
from jax_kdpr.training.setup import trained_parts
from jax_kdpr.training.state import init_train_state, make_optimizer
from jax_kdpr.training.steps import Epoch, compile_steps, make_train_step
from jax_kdpr.training.targets import make_teach


def system_of(*, norm: str = "batch", mesh=None) -> System:
    net, spectral = NetOptions(widths=(8, 16), norm=norm), SpectralOptions(iterations=5)
    return System(Camera(size=16, mesh=mesh), spectral=spectral, net=net)


@functools.cache
def make_step(regime: str, norm: str, mesh, average: float, teach=None):
    """Returns (compiled step, its system, its optimizer); tests of the same step share it."""
    system = system_of(norm=norm, mesh=mesh)
    rates = {"mask_lr": 2e-2, "filter_lr": 1e-3, "net_lr": 2e-3}
    optimizer = make_optimizer(OptimOptions(**rates, schedule="constant"), total_steps=100)
    step = make_train_step(
        system,
        optimizer,
        trained=trained_parts(Config(regime=regime)),
        batch_size=16,
        teach=teach,
        average=average,
    )
    return compile_steps(step), system, optimizer


def trainer(regime="e2e", *, norm="batch", teacher=None, weights=None, mesh=None, average=0.0):
    """Returns (step(train_state) on a fixed set of images, initial train state, compiled step)."""
    teach = teacher and make_teach(teacher[0])
    step, system, optimizer = make_step(regime, norm, mesh, average, teach)
    state = init_train_state(
        *system.init(jax.random.key(0)),
        optimizer,
        trained=trained_parts(Config(regime=regime)),
        keep_average=average > 0,
    )
    epoch = Epoch(
        images=replicate(draw_scenes(jax.random.key(1), count=32, size=16), mesh),
        order=replicate(jnp.arange(32), mesh),
        key=jax.random.key(2),
        weights=weights or {"task": 1.0, "mask": 0.1, "cdp": 0.0, "feature": 0.0},
        guide=teacher and teacher[1],
    )

    def one_step(train_state):
        train_state, (loss,) = step(train_state, epoch)
        return train_state, loss

    return one_step, replicate(state, mesh), step


def copied(tree):
    """Arrays that stay when a step takes those of the tree over."""
    return jax.tree.map(np.array, tree)


@pytest.mark.slow
def test_the_loss_falls_on_32_images():
    step, state, _ = trainer()
    losses = []
    for _ in range(60):
        state, loss = step(state)
        losses.append(float(loss))
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_one_device_equals_four_and_either_traces_its_step_once():
    one, state_one, program = trainer()
    four, state_four, sharded = trainer(mesh=make_mesh(4))
    for _ in range(2):
        state_one, loss_one = one(state_one)
        state_four, loss_four = four(state_four)
    assert program._cache_size() == sharded._cache_size() == 1
    np.testing.assert_allclose(loss_one, loss_four, rtol=1e-4)
    # Adam turns a gradient near zero, whose sign is rounding, into a whole step: hence the median.
    apart = np.abs(np.asarray(state_one.params["phases"]) - np.asarray(state_four.params["phases"]))
    assert np.median(apart) < 1e-4


@pytest.mark.parametrize("regime", ["random", "e2e"])
def test_a_regime_trains_its_parts_and_never_the_start(regime):
    step, state, _ = trainer(regime)
    params, start = copied(state.params), np.array(state.state["start"])
    for _ in range(2):
        state, _ = step(state)
    for part, before in params.items():
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(state.params[part]), strict=True)
        assert all(same(*pair) for pair in pairs) == (
            part not in trained_parts(Config(regime=regime))
        ), part
    assert same(state.state["start"], start)


def test_the_running_mean_is_that_of_what_was_trained():
    step, state, _ = trainer(average=0.25)
    plain_step, plain, _ = trainer()
    expected = copied((plain.params, plain.state))
    for number in range(4):
        state, _ = step(state)
        plain, _ = plain_step(plain)
        decay = min(0.25, (1 + number) / (10 + number))
        latest = copied((plain.params, plain.state))
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, latest)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.variables,
        expected,
    )
    # The training itself does not see it.
    np.testing.assert_allclose(state.params["phases"], plain.params["phases"], atol=1e-6)
    assert plain.variables[0] is plain.params


def test_first_mask_step_is_the_mask_learning_rate():
    """Adam's first step has the size of the rate: each part got its own."""
    step, state, _ = trainer(weights={"task": 1.0, "mask": 0.0, "cdp": 0.0, "feature": 0.0})
    before = np.array(state.params["phases"])
    state, _ = step(state)
    moved = np.abs(np.asarray(state.params["phases"]) - before)
    np.testing.assert_allclose(np.median(moved), 2e-2, rtol=1e-2)


def test_totals_hold_the_mean_over_the_epoch():
    step, state, _ = trainer()
    losses = []
    for _ in range(4):  # two epochs of two steps
        state, loss = step(state)
        losses.append(float(loss))
    np.testing.assert_allclose(state.totals["total"], sum(losses[2:]), rtol=1e-6)


def test_distillation_losses_vanish_when_the_student_is_the_teacher():
    """Same masks, same network, no statistics of a batch: nothing is left to learn from."""
    system = system_of(norm="none")
    weights = {"task": 0.0, "mask": 0.0, "cdp": 0.5, "feature": 0.5}
    teacher = (system, system.init(jax.random.key(0)))
    step, state, _ = trainer(norm="none", teacher=teacher, weights=weights)
    state, loss = step(state)
    assert loss < 1e-10 and state.totals["task"] > 0.0


def test_over_batches_counts_every_item_once():
    doubled = over_batches(lambda i, _: 2 * i, 10, batch_size=4, key=jax.random.key(0))
    np.testing.assert_array_equal(doubled, 2 * np.arange(10))
