"""What each loss pulls at, and that teacher and student begin apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same

from jax_kdpr.config import presets
from jax_kdpr.config.schema import Config
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.folder import read_metrics
from jax_kdpr.runs.run import run_keys, training_keys
from jax_kdpr.training.gradients import make_report
from jax_kdpr.training.loop import train
from jax_kdpr.training.losses import TERMS, Objective
from jax_kdpr.training.state import init_train_state, make_optimizer
from jax_kdpr.training.steps import Epoch
from jax_kdpr.training.targets import Targets

PARTS = ("phases", "filter", "net")


def tiny(regime: str = "e2e") -> Config:
    config = presets.quickstart()
    config.regime = regime
    config.data.size, config.net.widths = 16, (4, 8)
    config.data.train_images, config.data.validation_images = 32, 16
    config.data.test_images = 16
    config.spectral.iterations, config.train.epochs, config.train.batch_size = 3, 2, 8
    return config


def test_they_are_those_of_each_weighted_term_alone():
    config = tiny()
    system = build_system(config)
    params, state = system.init(jax.random.key(0))
    params["phases"] = params["phases"] + 3.0  # some beyond [0, 2 pi], or nothing pulls them back
    images = jax.random.uniform(jax.random.key(1), (8, 16, 16, 1))
    optimizer = make_optimizer(config.optim, total_steps=4)
    start = init_train_state(params, state, optimizer, trained=PARTS, keep_average=False)
    output, _ = system.apply(params, state, images[:4], jax.random.key(2), train=True)
    shapes = jnp.mean(output.intensity, axis=1).shape, output.bottleneck.shape
    rng = np.random.default_rng(0)
    said = Targets(*[jnp.asarray(rng.normal(size=(8, *s[1:])), jnp.float32) for s in shapes])
    weights = {"task": 2.0, "mask": 0.3, "cdp": 0.5, "feature": 0.0}
    epoch = Epoch(images[..., 0], jnp.arange(8), jax.random.key(3), weights, said)
    made = make_report(system, trained=PARTS, batch_size=4, objective=Objective())(start, epoch)
    found = {name: float(value) for name, value in made.items()}

    def terms(params):
        """By the equations, on the first four images; without noise no key counts."""
        output, _ = system.apply(params, state, images[:4], jax.random.key(0), train=True)
        below, above = (
            jnp.minimum(params["phases"], 0),
            jnp.maximum(params["phases"] - 2 * np.pi, 0),
        )
        return {
            "task": 2.0 * jnp.mean((output.image - images[:4]) ** 2),
            "mask": 0.3 * jnp.mean(below**2 + above**2),
            "cdp": 0.5 * jnp.mean((jnp.mean(output.intensity, axis=1) - said.cdp[:4]) ** 2),
        }

    gradients = {name: jax.grad(lambda p, n=name: terms(p)[n])(params) for name in terms(params)}
    flat = {
        (name, part): np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree[part])])
        for name, tree in gradients.items()
        for part in PARTS
    }
    for (name, part), own in flat.items():
        size, task = np.linalg.norm(own), flat["task", part]
        np.testing.assert_allclose(found[f"gradient_{name}_{part}"], size, rtol=1e-3, atol=1e-7)
        if name != "task" and size:
            cosine = own @ task / size / np.linalg.norm(task)
            np.testing.assert_allclose(found[f"cosine_{name}_{part}"], cosine, atol=1e-3)
    assert found["gradient_feature_net"] == found["cosine_feature_net"] == 0.0
    assert found["gradient_mask_phases"] > 0 and found["gradient_mask_net"] == 0.0


@pytest.mark.slow
def test_they_are_logged_if_asked_for_and_change_nothing(tmp_path):
    config = tiny()
    train(config, tmp_path / "plain")
    config.train.log_gradients = True
    train(config, tmp_path / "logged")
    plain, logged = (read_metrics(tmp_path / name) for name in ("plain", "logged"))
    names = {f"gradient_{term}_{part}" for term in TERMS for part in PARTS}
    for before, after in zip(plain, logged, strict=True):
        assert names <= set(after) and not names & set(before)
        assert before["validation_psnr"] == after["validation_psnr"]


def test_a_teacher_begins_with_draws_of_its_own_and_is_scored_as_the_others():
    student, teacher = tiny("student"), tiny("teacher")
    own, keys = training_keys(teacher), training_keys(student)
    assert same(*map(jax.random.key_data, (own.evaluation, keys.evaluation)))
    for name in ("init", "order", "steps"):
        pair = getattr(own, name), getattr(keys, name)
        assert not same(*map(jax.random.key_data, pair))
    teacher.distill.draws = "shared"
    assert all(
        same(*map(jax.random.key_data, pair))
        for pair in zip(training_keys(teacher), run_keys(teacher.seed), strict=True)
    )
