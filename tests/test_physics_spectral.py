"""Algorithm 1 against a dense power iteration, eigh, and what is known of it in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import oracles
import pytest

from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.recovery.spectral import (
    SpectralOptions,
    filter_response,
    filtered_spectral_init,
    gaussian_kernel,
    spectral_weights,
)

H, W = 6, 5
KINDS = ("soft", "intensity", "topk", "threshold")


def draw(k: int, oversample: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """A smooth phase object, its CDPs, an asymmetric positive kernel and a start vector."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, (k, H, W))
    scene = np.exp(1j * np.pi * oracles.smooth_images(rng, 1, H, W, sigma=1.5)[0])
    return {
        "intensity": oracles.intensity(scene, phases, oversample),
        "masks": phases,
        "kernel": gaussian_kernel(3).astype(float) + rng.uniform(0, 0.1, (3, 3)),
        "start": oracles.random_complex(rng, (H, W)),
    }


@partial(jax.jit, static_argnames=("iterations", "weights"))
def run(case, iterations=25, weights="soft"):
    options = SpectralOptions(iterations=iterations, weights=weights)
    return filtered_spectral_init(
        case["intensity"], Optics(case["masks"]), case["kernel"], case["start"], options
    )


def to_jax(case):
    return {name: jnp.asarray(value) for name, value in case.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 3])
def test_weights_equal_the_oracle(kind, k):
    y = np.random.default_rng(k).exponential(2.0, (k, H, W))
    y[0, 1, :3] = -0.5, 0.0, -1e-3  # noise and dark pixels
    weight = spectral_weights(jnp.asarray(y), SpectralOptions(weights=kind))
    np.testing.assert_allclose(weight, oracles.weights(y, kind), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("topk", {"fraction": 0.5}),
        ("topk", {"fraction": 1e-3}),
        ("topk", {"fraction": 1.0}),
        ("threshold", {"threshold": 0.9}),
        ("threshold", {"threshold": 0.0}),
    ],
)
def test_weights_read_their_options(kind, options):
    y = np.random.default_rng(3).exponential(2.0, (3, H, W))
    weight = spectral_weights(jnp.asarray(y), SpectralOptions(weights=kind, **options))
    np.testing.assert_allclose(weight, oracles.weights(y, kind, **options), rtol=2e-5, atol=1e-5)
    if options.get("fraction") == 1e-3 or options.get("threshold") == 0.0:
        assert weight.sum() == 1


def test_weights_by_hand():
    y = jnp.array([[[0.0, 1.0, 2.0, 5.0]]])  # mean 2
    np.testing.assert_allclose(
        spectral_weights(y, SpectralOptions(weights="soft"))[0, 0],
        [0, 1 / 3, 1 / 2, 5 / 7],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        spectral_weights(y, SpectralOptions(weights="intensity"))[0, 0], [0, 0.5, 1, 2.5]
    )
    np.testing.assert_allclose(
        spectral_weights(y, SpectralOptions(weights="topk", fraction=0.3))[0, 0], [0, 0, 1, 1]
    )
    np.testing.assert_allclose(
        spectral_weights(y, SpectralOptions(weights="threshold"))[0, 0], [0, 0, 1, 1]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_weights_do_not_depend_on_the_unit_of_the_intensity(kind):
    y = jnp.asarray(np.random.default_rng(4).exponential(2.0, (3, H, W)))
    weight = spectral_weights(y, SpectralOptions(weights=kind))
    np.testing.assert_allclose(
        spectral_weights(1024 * y, SpectralOptions(weights=kind)), weight, rtol=1e-5
    )


def test_unknown_weights_raise():
    with pytest.raises(ValueError, match=r"weights: expected one of soft, .* got 'top'"):
        spectral_weights(jnp.ones((1, H, W)), SpectralOptions(weights="top"))


def test_gaussian_kernel_is_a_normalised_gaussian():
    kernel = gaussian_kernel(5, 1.3)
    offsets = np.arange(-2, 3)
    expected = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.3**2))
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-6)
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"size: expected an odd .* got {size}"):
            gaussian_kernel(size)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_filter_equals_the_dense_circular_convolution(size, x64):
    rng = np.random.default_rng(5)
    kernel, field = rng.normal(size=(size, size)), oracles.random_complex(rng, (H, W))
    filtered = np.fft.ifft2(
        np.asarray(filter_response(jnp.asarray(kernel), H, W)) * np.fft.fft2(field)
    )
    expected = oracles.filter_matrix(kernel, H, W) @ field.ravel()
    np.testing.assert_allclose(filtered.ravel(), expected, atol=1e-12)


def test_delta_kernel_filters_nothing():
    response = filter_response(jnp.asarray(oracles.delta_kernel(5)), H, W)
    np.testing.assert_allclose(response, 1.0, atol=1e-6)


def test_kernel_larger_than_the_image_raises():
    with pytest.raises(ValueError, match="kernel: expected at most 5 taps, got 7"):
        filter_response(jnp.ones((7, 7)), H, W)


@pytest.mark.parametrize(
    ("k", "oversample", "kind"),
    [(3, 1, kind) for kind in KINDS] + [(1, 1, "soft"), (1, 2, "topk"), (3, 2, "intensity")],
)
def test_estimate_and_residual_equal_the_dense_power_iteration(k, oversample, kind, x64):
    case = draw(k, oversample)
    estimate, residual = run(to_jax(case), iterations=7, weights=kind)
    expected, expected_residual = oracles.spectral_estimate(
        *case.values(), iterations=7, kind=kind, oversample=oversample
    )
    np.testing.assert_allclose(estimate, expected, atol=1e-10)
    np.testing.assert_allclose(residual, expected_residual, atol=1e-8)


def test_one_iteration_is_one_step(x64):
    case = draw(3)
    estimate, _ = run(to_jax(case), iterations=1)
    expected, _ = oracles.spectral_estimate(*case.values(), iterations=1, kind="soft")
    np.testing.assert_allclose(estimate, expected, atol=1e-12)


def dense_eigenvectors(case) -> np.ndarray:
    """Eigenvectors of the unfiltered Gamma with soft weights, the leading one last."""
    weight = oracles.weights(case["intensity"], "soft")
    return np.linalg.eigh(oracles.gamma_matrix(weight, case["masks"]))[1]


def test_unfiltered_estimate_is_the_leading_eigenvector(x64):
    case = draw(5) | {"kernel": oracles.delta_kernel(3)}
    estimate, residual = run(to_jax(case), iterations=2000)
    leading = dense_eigenvectors(case)[:, -1]
    assert oracles.correlation(estimate.ravel(), leading) > 1 - 1e-10
    assert residual < 1e-7


def test_residual_is_zero_at_a_fixed_point(x64):
    case = draw(5) | {"kernel": oracles.delta_kernel(3)}
    case["start"] = dense_eigenvectors(case)[:, -1].reshape(H, W)
    estimate, residual = run(to_jax(case), iterations=1)
    assert residual < 1e-7
    expected = case["start"] * np.linalg.norm(estimate)
    np.testing.assert_allclose(estimate, expected, atol=1e-10)


def test_residual_falls_with_iterations(x64):
    case = to_jax(draw(3))
    residuals = [float(run(case, iterations=t)[1]) for t in (1, 7, 25, 100)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[0] > 0.1
    assert residuals[-1] < 1e-3 * residuals[0]


@pytest.mark.parametrize("k", [1, 3])
def test_norm_is_the_one_that_the_intensity_implies(k):
    case = draw(k)
    estimate, _ = run(to_jax(case))
    expected = np.sqrt(case["intensity"].sum() / k)
    np.testing.assert_allclose(np.linalg.norm(estimate), expected, rtol=1e-5)
    np.testing.assert_allclose(expected, np.sqrt(H * W), rtol=1e-5)  # a phase object


def test_scale_of_the_kernel_does_not_matter():
    case = to_jax(draw(3))
    scaled = case | {"kernel": 64 * case["kernel"]}
    np.testing.assert_allclose(run(scaled)[0], run(case)[0], rtol=1e-5, atol=1e-5)


def test_start_fixes_the_global_phase_and_nothing_else():
    case = draw(3)
    turned = case | {"start": 3 * np.exp(0.8j) * case["start"]}
    estimate, _ = run(to_jax(case))
    np.testing.assert_allclose(run(to_jax(turned))[0], np.exp(0.8j) * estimate, atol=1e-5)


@partial(jax.jit, static_argnames="weights")
def probe_loss(case, probe, weights):
    """A smooth real function of the estimate, and its gradient in all that has one."""

    def value(real):
        estimate, _ = run(case | real, iterations=5, weights=weights)
        return jnp.vdot(probe, estimate).real

    return jax.value_and_grad(value)({name: case[name] for name in REAL})


REAL = ("intensity", "masks", "kernel")


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["soft", "intensity"])
def test_gradients_equal_central_differences(name, kind, x64):
    case = draw(3)
    rng = np.random.default_rng(6)
    probe, direction = oracles.random_complex(rng, (H, W)), rng.normal(size=case[name].shape)
    _, gradient = probe_loss(to_jax(case), probe, kind)
    expected = oracles.central_difference(
        lambda x: probe_loss(to_jax(case | {name: x}), probe, kind)[0], case[name], direction
    )
    assert abs(expected) > 1e-2
    np.testing.assert_allclose(np.vdot(gradient[name], direction), expected, rtol=1e-6)


def test_gradient_reaches_the_masks_through_the_measurement_too(x64):
    case = draw(1)
    rng = np.random.default_rng(7)
    probe, direction = oracles.random_complex(rng, (H, W)), rng.normal(size=(1, H, W))
    scene = jnp.asarray(np.exp(1j * rng.uniform(0, 3, (H, W))))

    @jax.jit
    @jax.value_and_grad
    def loss(phases):
        y = measure_intensity(scene, phases)
        estimate, _ = run(to_jax(case) | {"intensity": y, "masks": phases}, iterations=5)
        return jnp.vdot(probe, estimate).real

    actual = np.vdot(loss(jnp.asarray(case["masks"]))[1], direction)
    expected = oracles.central_difference(
        lambda x: loss(jnp.asarray(x))[0], case["masks"], direction
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


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
        return filtered_spectral_init(
            measure_intensity(scene, masks),
            Optics(masks),
            kernel,
            start,
            SpectralOptions(weights=kind),
        )[0]

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


def test_batch_equals_the_loop_over_its_members_in_any_order():
    cases = [to_jax(draw(3, seed=seed)) for seed in range(3)]
    shared = {name: cases[0][name] for name in ("masks", "kernel", "start")}
    batch = jnp.stack([case["intensity"] for case in cases])
    batched = jax.jit(jax.vmap(lambda y: run(shared | {"intensity": y})[0]))
    loop = np.stack([run(shared | {"intensity": y})[0] for y in batch])
    np.testing.assert_allclose(batched(batch), loop, atol=1e-4)
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(batched(batch[order]), batched(batch)[order])


def test_less_than_one_iteration_raises():
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        run(to_jax(draw(1)), iterations=0)


def test_intensity_of_another_shape_raises(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = to_jax(draw(3))
    with pytest.raises(ValueError, match="sensor arrays: expected"):
        run(case | {"intensity": case["intensity"][:2]})
