"""Algorithm 1 against a dense power iteration, eigh, and what is known of it in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import free_space

from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.recovery.spectral import (
    SpectralOptions,
    filter_response,
    filtered_spectral_init,
    gaussian_kernel,
    spectral_weights,
)

pytestmark = pytest.mark.gpu

H, W = 6, 5
KINDS = ("soft", "intensity", "topk", "threshold")
REAL = ("intensity", "masks", "kernel")
NEAR = {"wavelength": 5e-7, "pitch": 8e-6, "distance": 6e-4}


def draw(k: int, oversample: int = 1, space: str = "far") -> dict[str, np.ndarray]:
    """A smooth phase object, its CDPs, an asymmetric positive kernel and a start vector."""
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 2 * np.pi, (k, H, W))
    scene = np.exp(1j * np.pi * oracles.smooth_images(rng, 1, H, W, sigma=1.5)[0])
    matrix = oracles.space_matrix(space, phases, oversample, **NEAR)
    y = np.abs(matrix @ scene.ravel()) ** 2
    return {
        "intensity": y.reshape(k, oversample * H, oversample * W),
        "masks": phases,
        "kernel": gaussian_kernel(3).astype(float) + rng.uniform(0, 0.1, (3, 3)),
        "start": oracles.random_complex(rng, (H, W)),
    }


@partial(jax.jit, static_argnames=("iterations", "weights", "space"))
def run(case, iterations=25, weights="soft", space="far"):
    options = SpectralOptions(iterations=iterations, weights=weights)
    oversample = case["intensity"].shape[1] // H
    free = free_space((H, W), oversample=oversample, kind=space, **NEAR)
    optics = Optics(free.through(case["masks"]), free.transfer)
    return filtered_spectral_init(case["intensity"], optics, case["kernel"], case["start"], options)


def to_jax(case):
    return {name: jnp.asarray(value) for name, value in case.items()}


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        *((kind, {}, 0) for kind in KINDS),
        ("topk", {"fraction": 0.5}, 45),
        ("topk", {"fraction": 1e-3}, 1),
        ("topk", {"fraction": 1.0}, 90),
        ("threshold", {"threshold": 0.9}, 0),
        ("threshold", {"threshold": 0.0}, 1),
    ],
)
def test_weights_equal_the_oracle(kind, options, count):
    y = np.random.default_rng(3).exponential(2.0, (3, H, W))
    if not options:
        y[0, 1, :3] = -0.5, 0.0, -1e-3  # noise and dark pixels
    weight = spectral_weights(jnp.asarray(y), SpectralOptions(weights=kind, **options))
    np.testing.assert_allclose(weight, oracles.weights(y, kind, **options), rtol=2e-5, atol=1e-5)
    assert not count or weight.sum() == count


def test_gaussian_kernel_is_a_normalised_gaussian():
    kernel = gaussian_kernel(5, 1.3)
    offsets = np.arange(-2, 3)
    expected = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.3**2))
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_filter_equals_the_dense_circular_convolution(size, x64):
    rng = np.random.default_rng(5)
    kernel, field = rng.normal(size=(size, size)), oracles.random_complex(rng, (H, W))
    filtered = np.fft.ifft2(
        np.asarray(filter_response(jnp.asarray(kernel), H, W)) * np.fft.fft2(field)
    )
    expected = oracles.filter_matrix(kernel, H, W) @ field.ravel()
    np.testing.assert_allclose(filtered.ravel(), expected, atol=1e-12)


def test_kernels_that_do_not_fit_raise():
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"size: expected an odd .* got {size}"):
            gaussian_kernel(size)
    with pytest.raises(ValueError, match="kernel: expected at most 5 taps, got 7"):
        filter_response(jnp.ones((7, 7)), H, W)


@pytest.mark.parametrize(
    ("k", "oversample", "kind", "iterations", "space"),
    [
        (3, 1, "soft", 1, "far"),
        (1, 2, "soft", 7, "far"),
        (3, 1, "intensity", 7, "far"),
        (1, 1, "topk", 7, "far"),
        (3, 2, "threshold", 7, "far"),
        (2, 1, "soft", 7, "fresnel"),
        (2, 2, "soft", 7, "angular_spectrum"),
    ],
)
def test_estimate_and_residual_equal_the_dense_power_iteration(
    k, oversample, kind, iterations, space, x64
):
    case = draw(k, oversample, space)
    estimate, residual = run(to_jax(case), iterations=iterations, weights=kind, space=space)
    matrix = oracles.space_matrix(space, case.pop("masks"), oversample, **NEAR)
    expected, expected_residual = oracles.spectral_estimate(
        matrix, *case.values(), iterations=iterations, kind=kind
    )
    np.testing.assert_allclose(estimate, expected, atol=1e-8)
    np.testing.assert_allclose(residual, expected_residual, atol=1e-8)


def test_unfiltered_estimate_is_the_leading_eigenvector(x64):
    case = draw(5) | {"kernel": oracles.delta_kernel(3)}
    estimate, residual = run(to_jax(case), iterations=2000)
    weight = oracles.weights(case["intensity"], "soft")
    gamma = oracles.gamma_matrix(weight, oracles.cdp_matrix(case["masks"]))
    leading = np.linalg.eigh(gamma)[1][:, -1]
    assert oracles.correlation(estimate.ravel(), leading) > 1 - 1e-10
    assert residual < 1e-7


@partial(jax.jit, static_argnames="weights")
def probe_loss(case, probe, weights):
    """A smooth real function of the estimate, and its gradient in all that has one."""

    def value(real):
        estimate, _ = run(case | real, iterations=5, weights=weights)
        return jnp.vdot(probe, estimate).real

    return jax.value_and_grad(value)({name: case[name] for name in REAL})


@pytest.mark.parametrize("kind", ["soft", "intensity"])
def test_gradients_equal_central_differences(kind, x64):
    case, rng = draw(3), np.random.default_rng(6)
    probe = oracles.random_complex(rng, (H, W))
    _, gradient = probe_loss(to_jax(case), probe, kind)
    for name in REAL:
        direction = rng.normal(size=case[name].shape)
        expected = oracles.central_difference(
            lambda x, name=name: probe_loss(to_jax(case | {name: x}), probe, kind)[0],
            case[name],
            direction,
        )
        assert abs(expected) > 1e-2
        np.testing.assert_allclose(np.vdot(gradient[name], direction), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["soft", "intensity"])
def test_dark_frame_gives_zero_and_finite_gradients(kind):
    """A black amplitude scene must not put NaN into the masks."""
    case = to_jax(draw(3))
    case["intensity"] = jnp.zeros_like(case["intensity"])
    value, gradient = probe_loss(case, jnp.ones((H, W)) + 1j, kind)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    for name, leaf in gradient.items():
        assert np.isfinite(leaf).all(), name


SIZE, SCENES = 32, 6


@partial(jax.jit, static_argnames="kind")
def estimates(phases, kernel, scenes, start, kind):
    """Spectral estimates [b h w] of scenes [b h w] through the first k of their own masks."""

    def one(scene, masks):
        y, options = measure_intensity(scene, masks), SpectralOptions(weights=kind)
        return filtered_spectral_init(y, Optics(masks), kernel, start, options)[0]

    return jax.vmap(one)(scenes, phases)


def test_filter_carries_the_estimate_of_a_smooth_phase_object():
    """With binary weights 0.9, without a filter 0.05: also found by others."""
    rng = np.random.default_rng(8)
    scenes = np.exp(1j * np.pi * oracles.smooth_images(rng, SCENES, SIZE, SIZE, sigma=3.0))
    phases = jnp.asarray(rng.uniform(0, 2 * np.pi, (SCENES, 8, SIZE, SIZE)))
    start = jnp.asarray(oracles.random_complex(rng, (SIZE, SIZE)))

    def correlation(k, kernel, kind):
        z = estimates(phases[:, :k], jnp.asarray(kernel), jnp.asarray(scenes), start, kind)
        return np.mean([oracles.correlation(a, b) for a, b in zip(z, scenes, strict=True)])

    gaussian, delta = gaussian_kernel(), oracles.delta_kernel(5)
    constant = np.mean([oracles.correlation(scene, np.ones_like(scene)) for scene in scenes])
    filtered = [correlation(k, gaussian, "soft") for k in (1, 3, 8)]
    assert constant + 0.1 < filtered[0] < filtered[1] < filtered[2] < 1
    assert 0.85 < correlation(1, gaussian, "topk") < 0.95
    assert correlation(1, delta, "soft") < 0.15
    assert correlation(1, delta, "topk") < 0.15
