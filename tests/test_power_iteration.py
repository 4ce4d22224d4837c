"""Power iteration: its gradient with and without segments, and memory that stays bounded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery import spectral
from jax_kdpr.recovery.power_iteration import STORED, power_iteration, segment_length
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init, gaussian_kernel

HEIGHT, WIDTH = 10, 12


@pytest.fixture
def store_all(monkeypatch):
    """store_all(): from then on the gradient keeps every iterate."""
    return lambda: monkeypatch.setattr(
        spectral, "power_iteration", partial(power_iteration, stored=10**6)
    )


def scene(snapshots: int, seed: int = 0):
    """(intensity, phases, kernel, start, reference) in double precision; the kernel is lopsided."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, (snapshots, HEIGHT, WIDTH))
    bumps = np.cos(np.linspace(0, 3, HEIGHT))[:, None] * np.sin(np.linspace(0, 2, WIDTH))
    field = np.exp(1j * bumps)
    intensity = np.abs(np.fft.fft2(np.exp(-1j * phases) * field, norm="ortho")) ** 2
    kernel = gaussian_kernel(5, 1.0).astype(float) + 0.01 * rng.normal(size=(5, 5))
    start = rng.normal(size=(HEIGHT, WIDTH)) + 1j * rng.normal(size=(HEIGHT, WIDTH))
    return intensity, phases, kernel, start, field


def gradients(loss, snapshots, **options):
    """Gradients of loss(estimate, field) by intensity, phases and filter."""
    intensity, phases, kernel, start, field = map(jnp.asarray, scene(snapshots))

    def of(intensity, phases, kernel):
        estimate, _ = filtered_spectral_init(
            intensity, Optics(phases), kernel, start, SpectralOptions(**options)
        )
        return loss(estimate, field)

    return jax.jit(jax.grad(of, argnums=(0, 1, 2)))(intensity, phases, kernel)


def phase_sensitive(estimate, field):
    return jnp.sum(jnp.square(jnp.abs(estimate - field)))


def apart(one, other) -> float:
    """Largest relative difference of two lists of gradients."""
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("iterations", [1, 26, 27, 61])
def test_segments_give_the_gradient_of_all_iterates(iterations, x64, store_all):
    segments = gradients(phase_sensitive, 2, iterations=iterations)
    store_all()
    assert apart(gradients(phase_sensitive, 2, iterations=iterations), segments) < 1e-10


@pytest.mark.parametrize("steps", [0, 1, 25, 26, 99, 150, 500, 5000])
def test_segments_keep_few_iterates(steps):
    length = segment_length(steps, STORED)
    kept = length + -(-steps // length) if length > 1 else steps
    assert kept <= max(STORED, 2 * np.sqrt(steps) + 2)
    assert (length == 1) == (steps <= STORED)


def bytes_of_gradient(iterations: int) -> int:
    """Temporary memory of value and gradient on one sample of 64 x 64."""
    size = 64

    def loss(phases, intensity, start):
        estimate, _ = filtered_spectral_init(
            intensity,
            Optics(phases),
            jnp.asarray(gaussian_kernel()),
            start,
            SpectralOptions(iterations=iterations),
        )
        return jnp.sum(estimate.real)

    real = jax.ShapeDtypeStruct((1, size, size), jnp.float32)
    start = jax.ShapeDtypeStruct((size, size), jnp.complex64)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(real, real, start).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_iterations_but_where_all_are_kept(store_all):
    assert bytes_of_gradient(100) < 1.1 * bytes_of_gradient(25)
    store_all()
    assert bytes_of_gradient(100) > 1.5 * bytes_of_gradient(25)


def test_mean_gauge_takes_any_global_phase_away():
    field = jnp.asarray(scene(1)[4], jnp.complex64)
    settled = fix_global_phase(field, gauge="mean")
    turned = fix_global_phase(field * jnp.exp(1.3j), gauge="mean")
    np.testing.assert_allclose(turned, settled, atol=1e-6)
    mean = jnp.mean(settled)
    assert mean.real > 0 and abs(mean.imag) < 1e-6
    np.testing.assert_allclose(jnp.abs(settled), jnp.abs(field), rtol=1e-5)


def test_mean_gauge_of_a_field_without_mean_is_finite():
    field = jnp.zeros((4, 4), jnp.complex64)

    def loss(real):
        return jnp.sum(fix_global_phase(real + 0j * field, gauge="mean").real)

    assert np.isfinite(jax.grad(loss)(field.real)).all()
    np.testing.assert_array_equal(fix_global_phase(field, gauge="mean"), field)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations: expected at least 1"):
        power_iteration(lambda _, z: z, None, jnp.ones((2, 2), jnp.complex64), iterations=0)


def test_unknown_gauge_is_refused():
    with pytest.raises(ValueError, match="gauge: expected start or mean"):
        fix_global_phase(jnp.ones((2, 2), jnp.complex64), gauge="median")
