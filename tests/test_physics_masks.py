"""Masks, their regularisers, and the encoding of images as fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jax_kdpr.optics.masks import (
    init_phases,
    range_penalty,
    smoothness_penalty,
    wrap_phases,
)
from jax_kdpr.optics.objects import (
    SceneOptions,
    field_image,
    image_beside,
    scene_field,
)

PI = np.pi


def test_initial_phases_are_independent_and_uniform_on_the_circle():
    phases = np.asarray(init_phases(jax.random.key(0), snapshots=3, height=40, width=30))
    assert phases.min() >= 0
    assert phases.max() < 2 * PI
    for mask in phases:
        assert stats.kstest(mask.ravel(), stats.uniform(0, 2 * PI).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(phases.reshape(3, -1)) - np.eye(3)).max() < 0.1


def test_wrapped_phases_lie_in_one_turn_and_are_the_same_masks():
    phases = jnp.asarray([[[-1e-9, 0.0, 2 * np.pi, 7.0, -0.5, 100.0]]], jnp.float32)
    wrapped = np.asarray(wrap_phases(phases))
    assert wrapped.min() >= 0 and wrapped.max() < np.float32(2 * np.pi)
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * np.asarray(phases)), atol=1e-5)


def test_range_penalty_is_the_mean_squared_distance_from_0_to_2_pi():
    inside = jnp.array([[[0.0, 1.0, 2 * PI]]])
    outside = jnp.array([[[-0.5, 1.0, 2 * PI + 2.0]]])
    np.testing.assert_allclose(range_penalty(inside), 0.0, atol=1e-12)
    np.testing.assert_allclose(range_penalty(outside), (0.25 + 4.0) / 3, rtol=1e-5)
    gradient = jax.grad(range_penalty)(outside)
    np.testing.assert_allclose(gradient, np.array([[[-1.0, 0.0, 4.0]]]) / 3, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(range_penalty)(inside), 0.0, atol=1e-6)


def test_smoothness_penalty_is_that_of_neighbours_in_one_mask_and_blind_to_whole_turns():
    mask = jnp.array([[[0.0, PI / 2], [PI, PI]]])  # steps: pi, pi / 2 down; pi / 2, 0 right
    np.testing.assert_allclose(smoothness_penalty(mask), (2 + 1 + 1 + 0) / (2 * 4), rtol=1e-6)
    rows, columns = np.mgrid[:3, :4]
    chequers = jnp.asarray(PI * ((rows + columns) % 2))[None]
    np.testing.assert_allclose(smoothness_penalty(chequers), 1.0, rtol=1e-6)
    ramp = jnp.asarray(np.linspace(0, 2.0, 5) + np.zeros((1, 3, 1)))
    expected = 12 * (1 - np.cos(0.5)) / (2 * (12 + 10))  # 12 pairs side by side, 10 on each other
    turns = 2 * PI * np.random.default_rng(1).integers(-2, 3, ramp.shape)
    for same in (ramp, jnp.concatenate([ramp, ramp + 1.0]), ramp + turns):
        np.testing.assert_allclose(smoothness_penalty(same), expected, rtol=1e-4)


GREYS = jnp.array([[0.0, 0.25], [0.5, 1.0]])[..., None]


def test_a_scene_is_the_field_that_its_kind_says():
    phases = np.array([[1, np.exp(0.25j * PI)], [1j, -1]])
    whole_turn = scene_field(GREYS, SceneOptions(kind="phase", phase_range=2 * PI))
    np.testing.assert_allclose(whole_turn, [[1, 1j], [-1, 1]], atol=1e-6)
    np.testing.assert_allclose(scene_field(GREYS, SceneOptions()), phases, atol=1e-6)
    np.testing.assert_array_equal(scene_field(GREYS, SceneOptions(kind="amplitude")), GREYS[..., 0])
    both = jnp.concatenate([GREYS, GREYS[::-1]], axis=-1)
    field = scene_field(both, SceneOptions(kind="complex", min_amplitude=0.2))
    np.testing.assert_allclose(field, [[0.6, 1.0], [0.2, 0.4]] * phases, atol=1e-6)


@pytest.mark.parametrize("kind", ["phase", "amplitude", "complex"])
@pytest.mark.parametrize("turns", [0.5, 0.75, 1.0, 3.0])
def test_an_exact_field_is_read_without_error(kind, turns):
    """Beside the truth at any range and global phase; alone where a range leaves some of a turn."""
    options = {"kind": kind, "phase_range": 2 * PI * turns, "min_amplitude": 0.3}
    scene = SceneOptions(**options)
    image = jnp.asarray(np.random.default_rng(2).uniform(0.01, 0.99, (6, 5, scene.channels)))
    field = scene_field(image, scene)
    np.testing.assert_allclose(image_beside(jnp.exp(1.1j) * field, image, scene), image, atol=1e-5)
    if turns < 1:
        np.testing.assert_allclose(field_image(field, scene), image, atol=1e-5)


def test_field_image_clips_small_errors_at_black_and_white_instead_of_wrapping():
    field = jnp.exp(1j * jnp.array([[-0.1, PI + 0.1]]))
    np.testing.assert_array_equal(
        field_image(field, SceneOptions(kind="phase"))[..., 0], [[0.0, 1.0]]
    )
    np.testing.assert_array_equal(field_image(3 * field, SceneOptions(kind="amplitude")), 1.0)


@pytest.mark.parametrize("turns", [0.5, 0.75, 1.5])
def test_beside_the_truth_what_is_read_has_the_wrapped_error(turns):
    rng = np.random.default_rng(3)
    r = 2 * PI * turns
    image = rng.uniform(size=(40, 40, 1))
    error = rng.normal(0, 0.8, (40, 40))
    field = np.exp(1j * (r * image[..., 0] + error))
    field *= np.exp(-1j * np.angle(np.vdot(np.exp(1j * r * image[..., 0]), field)))
    wrapped = np.angle(field * np.exp(-1j * r * image[..., 0]))
    read = image[..., 0] + wrapped / r
    # What a range leaves of a turn, halved, is clipped at either end.
    slack = max(2 * PI - r, 0) / 2 / r
    clipped = (read > -slack) & (read < 1 + slack)
    expected = np.where(clipped, np.clip(read, 0, 1), read)
    actual = image_beside(
        jnp.asarray(field), jnp.asarray(image), SceneOptions(kind="phase", phase_range=r)
    )
    np.testing.assert_allclose(actual[..., 0], expected, atol=1e-5)


def test_wrong_channels_and_unknown_kinds_raise():
    for kind, channels in (("phase", 2), ("amplitude", 2), ("complex", 1)):
        with pytest.raises(ValueError, match=f"image: a {kind} scene takes .* got {channels}"):
            scene_field(jnp.ones((2, 2, channels)), SceneOptions(kind=kind))
    for call, given in ((scene_field, GREYS), (field_image, jnp.ones((2, 2)) + 0j)):
        with pytest.raises(ValueError, match=r"scene: expected phase, .* got 'depth'"):
            call(given, SceneOptions(kind="depth"))
