"""Losses of eq. 3 to 7 and image quality, against hand-computed cases and other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jax_kdpr.config.schema import Config
from jax_kdpr.core import metrics
from jax_kdpr.optics.phase import align_global_phase
from jax_kdpr.recovery.system import Output
from jax_kdpr.training import losses
from jax_kdpr.training.targets import targets_of

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(4, 24, 20, 2))
NOISY = np.clip(IMAGES + RNG.normal(size=IMAGES.shape) * [0.02, 0.1], 0, 1)


@pytest.mark.parametrize(
    ("alpha", "beta", "sigma"), [(0.6, 0.3, 0.1), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.3, 0.0)]
)
def test_feature_weight_is_what_remains(alpha, beta, sigma):
    config = Config(regime="student")
    config.loss.alpha, config.loss.beta = alpha, beta
    weights = losses.loss_weights(config)
    assert (weights["task"], weights["mask"], weights["cdp"]) == (alpha, 1e-3, beta)
    np.testing.assert_allclose(weights["feature"], sigma, atol=1e-12)
    assert (weights["feature"] == 0) == (sigma == 0)  # 1 - 0.7 - 0.3 is 5.6e-17 in floating point
    config.regime = "e2e"
    assert losses.loss_weights(config) | {"cdp": 0.0, "feature": 0.0} == losses.loss_weights(config)


def test_terms_are_what_their_equations_say_and_total_is_their_weighted_sum():
    draw = lambda *shape: jnp.asarray(RNG.uniform(size=shape), jnp.float32)  # noqa: E731
    images, phases = draw(2, 4, 4, 1), draw(3, 4, 4)
    student, teacher = (
        Output(draw(2, k, 6, 5), draw(2, 4, 4) + 0j, draw(2), draw(2, 4, 4, 1), draw(2, 3, 2, 8))
        for k in (1, 3)
    )
    seen = losses.Seen(
        images, student, phases, losses.Objective(penalty=jnp.max), targets_of(teacher)
    )
    weights = {"task": 0.5, "mask": 0.1, "cdp": 0.3, "feature": 0.2}
    terms = losses.evaluate_terms(seen, weights)
    by_hand = {
        "task": oracles.task_loss(student.image, images),
        "mask": float(np.max(phases)),
        "cdp": oracles.cdp_loss(student.intensity, teacher.intensity),
        "feature": oracles.task_loss(student.bottleneck, teacher.bottleneck),
    }
    by_hand["total"] = sum(weights[name] * value for name, value in by_hand.items())
    assert {n: float(t) for n, t in terms.items()} == pytest.approx(by_hand, rel=1e-5)
    alone = losses.evaluate_terms(seen._replace(targets=None), weights)
    assert alone["cdp"] == alone["feature"] == 0


def test_psnr_equals_scikit_image_image_by_image():
    actual = metrics.psnr_from_mse(metrics.mse(jnp.asarray(NOISY), jnp.asarray(IMAGES)))
    expected = [
        peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(IMAGES, NOISY, strict=True)
    ]
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    np.testing.assert_allclose(metrics.psnr_from_mse(jnp.zeros(1)), 100)


def scikit_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Gaussian window of 11 x 11 pixels, mean over channels."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a, b, channel_axis=-1, data_range=1, **options)


def test_ssim_equals_scikit_image_on_noisy_and_flat_images():
    flat = np.full((24, 20, 2), 0.25)
    other_flat = np.full((24, 20, 2), 0.75)
    half_flat = np.stack([IMAGES[0, ..., 0], flat[..., 0]], axis=-1)
    left = np.stack([*NOISY, flat, flat, NOISY[0], half_flat, 1 - IMAGES[1]])
    right = np.stack([*IMAGES, flat, other_flat, flat, IMAGES[0], IMAGES[1]])
    pair = jnp.asarray(left), jnp.asarray(right)
    actual = metrics.ssim(*pair)
    expected = [scikit_ssim(a, b) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual[4] == pytest.approx(1.0, abs=1e-6)
    # A GPU has no fast convolution of one channel.
    assert "conv" not in str(jax.make_jaxpr(metrics.ssim)(*pair))


def test_ssim_of_other_shapes_or_small_images_raises():
    with pytest.raises(ValueError, match="SSIM needs at least 11 x 11 pixels, got"):
        metrics.ssim(jnp.ones((1, 24, 10, 1)), jnp.ones((1, 24, 10, 1)))


@pytest.mark.parametrize("piston", [True, False])
def test_rms_is_that_of_the_error_over_the_object(piston):
    truth = np.zeros((2, 8, 8))
    truth[0, 2:5, 3:7] = RNG.uniform(0.3, 1.0, (3, 4))
    truth[1] = 0.7  # no object to be seen: all of it
    recovered = truth + RNG.normal(0.05, 0.1, truth.shape)
    actual = metrics.object_rms(jnp.asarray(recovered), jnp.asarray(truth), piston=piston)
    error = recovered - truth
    if piston:
        error = error - error.mean(axis=(1, 2), keepdims=True)
    expected = [np.sqrt(np.mean(e**2)) for e in (error[0, 2:5, 3:7], error[1])]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_scores_are_in_radians_where_there_is_a_phase():
    pair = jnp.asarray(NOISY[..., :1]), jnp.asarray(IMAGES[..., :1])
    turns, amplitude = (metrics.score(*pair, phase_range=r) for r in (2 * np.pi, None))
    first = pair[0][..., 0], pair[1][..., 0]
    np.testing.assert_allclose(turns.rms, 2 * np.pi * metrics.object_rms(*first), rtol=1e-6)
    np.testing.assert_allclose(amplitude.rms, metrics.object_rms(*first, piston=False), rtol=1e-6)


def test_global_phase_equals_a_grid_search():
    estimate, reference = (oracles.random_complex(RNG, (6, 5)) for _ in range(2))
    turns = np.exp(1j * np.linspace(-np.pi, np.pi, 20001)).reshape(-1, 1, 1)
    distance = np.linalg.norm(turns * estimate - reference, axis=(1, 2))
    aligned = align_global_phase(jnp.asarray(estimate), jnp.asarray(reference))
    np.testing.assert_allclose(aligned, turns[distance.argmin()] * estimate, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(aligned - reference), distance.min(), rtol=1e-5)


def test_alignment_leaves_a_field_that_shares_nothing_with_the_reference():
    estimate, reference = jnp.array([[1.0, 0.0]]) + 0j, jnp.array([[0.0, 1.0]]) + 0j
    np.testing.assert_array_equal(align_global_phase(estimate, reference), estimate)
