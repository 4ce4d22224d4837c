"""Power iteration: its gradient by hand, with and without segments, and bounded memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jax_kdpr.core import runtime
from jax_kdpr.optics.cdp import (
    Optics,
    as_phasors,
    back_propagate,
    mask_power,
    measure_intensity,
    propagate,
)
from jax_kdpr.optics.paths import MatrixDFT
from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery import spectral
from jax_kdpr.recovery.power_iteration import (
    STORED,
    Operator,
    power_iteration,
    segment_length,
)
from jax_kdpr.recovery.spectral import (
    SpectralOptions,
    filter_response,
    filtered_spectral_init,
    gaussian_kernel,
    spectral_estimates,
    spectral_weights,
)

pytestmark = pytest.mark.gpu

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


@pytest.mark.parametrize(("size", "is_near"), [(256, False), (96, True)])
def test_large_fields_are_counted_in_no_int32(size, is_near):
    """Pixels times pixels, and in the near field once more, are more than 2^31."""
    rng = np.random.default_rng(0)
    phases = jnp.asarray(rng.uniform(0, 2 * np.pi, (1, size, size)), jnp.float32)
    near = np.exp(2j * np.pi * rng.uniform(size=(size, size))).astype(np.complex64)
    optics = Optics(phases, path=jnp.asarray(near)) if is_near else Optics(phases)
    start = jnp.asarray(rng.normal(size=(size, size)) + 0j, jnp.complex64)
    field = jnp.exp(1j * jnp.asarray(rng.uniform(size=(size, size)), jnp.float32))
    intensity = measure_intensity(field, optics.masks, path=optics.path)[None]
    kernel, options = jnp.asarray(gaussian_kernel(5, 1.0)), SpectralOptions(iterations=2)
    found, _ = jax.jit(spectral_estimates, static_argnums=4)(
        intensity, optics, kernel, start, options
    )
    expected = plain_estimates(intensity, optics, kernel, start, options)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def phase_sensitive(estimate, field):
    return jnp.sum(jnp.square(jnp.abs(estimate - field)))


def apart(one, other) -> float:
    """Largest relative difference of two lists of gradients."""
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(one, other, strict=True)
    )


def plain_estimates(intensity, optics, kernel, start, options):
    """Algorithm 1 as it is written, for automatic differentiation: no loop, every value kept."""
    phasors, path = as_phasors(optics.masks), optics.path
    response = filter_response(kernel, *start.shape)

    def one(intensity):
        weight = spectral_weights(intensity, options)
        z = start / jnp.linalg.norm(start)
        for _ in range(options.iterations):
            spectra = weight * propagate(z, phasors, intensity.shape[1:], path)
            back = back_propagate(spectra, phasors, path)
            v = jnp.fft.ifft2(response * jnp.fft.fft2(back))
            z = v / jnp.linalg.norm(v)
        return jnp.sqrt(jnp.sum(intensity) / jnp.mean(mask_power(phasors, path))) * z

    return jax.vmap(one)(intensity)


def between(kind: str, rng, oversample: int):
    """None for a plain DFT, a transfer function, or any two matrices, of masks twice as fine."""
    if kind == "near":
        return jnp.exp(1j * jnp.asarray(rng.normal(size=(HEIGHT, WIDTH))))
    if kind == "window":
        matrices = [oracles.random_complex(rng, (7, 2 * n)) / 5 for n in (HEIGHT, WIDTH)]
        return MatrixDFT(*map(jnp.asarray, matrices), 2)
    return None


@pytest.mark.parametrize(
    ("oversample", "kind"), [(1, "far"), (2, "far"), (1, "near"), (1, "window")]
)
@pytest.mark.parametrize(
    ("snapshots", "weights"), [(1, "soft"), (3, "topk"), (3, "intensity"), (9, "threshold")]
)
def test_the_gradient_by_hand_is_that_of_automatic_differentiation(
    snapshots, weights, oversample, kind, x64, monkeypatch
):
    rng = np.random.default_rng(snapshots)
    _, phases, kernel, start, _ = map(jnp.asarray, scene(snapshots))
    fields = jnp.exp(1j * jnp.asarray(rng.normal(size=(2, HEIGHT, WIDTH))))
    path = between(kind, rng, oversample)
    if kind == "window":
        phases = (
            jnp.repeat(jnp.repeat(phases, 2, 1), 2, 2) + 0.1 * jnp.arange(2 * WIDTH)[None, None]
        )
    options = SpectralOptions(iterations=4, weights=weights)

    def loss(phases, kernel, amplitude, estimates):
        def measure(field):
            how = {"oversample": oversample, "path": path}
            return measure_intensity(amplitude * field, phases, **how)

        found = estimates(jax.vmap(measure)(fields), Optics(phases, path), kernel, start, options)
        return jnp.sum(jnp.square(jnp.abs(found - fields)))

    def value_and_gradients(estimates):
        one = jax.value_and_grad(partial(loss, estimates=estimates), argnums=(0, 1, 2))
        value, by = jax.jit(one)(phases, kernel, jnp.ones(start.shape))
        return value[None], *by

    wanted = value_and_gradients(plain_estimates)
    for keeps in (True, False):  # S and V, or makes them again
        monkeypatch.setattr(runtime, "fits", lambda _, keeps=keeps: keeps)
        by_hand = value_and_gradients(lambda *known: spectral_estimates(*known)[0])
        assert apart(wanted, by_hand) < 1e-12


@pytest.mark.parametrize("iterations", [26, 61])  # whole segments, and a step that is left
def test_segments_give_the_gradient_of_all_iterates(iterations, x64, store_all):
    segments = gradients(phase_sensitive, 2, iterations=iterations)
    store_all()
    assert apart(gradients(phase_sensitive, 2, iterations=iterations), segments) < 1e-10


@pytest.mark.parametrize("steps", [0, 25, 26, 150, 500, 5000])
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
    dark = jnp.zeros((4, 4))
    gradient = jax.grad(lambda real: jnp.sum(fix_global_phase(real + 0j, gauge="mean").real))(dark)
    assert np.isfinite(gradient).all()


def test_no_iterations_and_unknown_gauges_are_refused():
    ones = jnp.ones((1, 1, 2, 2))
    operator = Operator(ones, ones[0] + 0j, ones[0, 0] + 0j)
    with pytest.raises(ValueError, match="iterations: expected at least 1"):
        power_iteration(operator, ones[0, 0] + 0j, iterations=0)
    with pytest.raises(ValueError, match="gauge: expected start or mean"):
        fix_global_phase(ones[0, 0] + 0j, gauge="median")
