"""Power iteration: three gradients that agree where they should, and memory that stays bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.physics.phase import fix_global_phase
from jax_kdpr.physics.power_iteration import STORED, power_iteration, segment_length
from jax_kdpr.physics.spectral import filtered_spectral_init, gaussian_kernel

HEIGHT, WIDTH = 10, 12
EXACT = ("unrolled", "segments")


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
        estimate, _ = filtered_spectral_init(intensity, phases, kernel, start, **options)
        return loss(estimate, field)

    return jax.jit(jax.grad(of, argnums=(0, 1, 2)))(intensity, phases, kernel)


def phase_blind(estimate, field):
    """Does not change with the global phase of the estimate."""
    overlap = jnp.sum(jnp.conj(field) * estimate)
    return jnp.square(overlap.real) + jnp.square(overlap.imag)


def phase_sensitive(estimate, field):
    return jnp.sum(jnp.square(jnp.abs(estimate - field)))


def apart(one, other) -> float:
    """Largest relative difference of two lists of gradients."""
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("iterations", [1, 2, 25, 26, 61])
def test_segments_give_the_unrolled_gradient(x64, iterations):
    unrolled, segments = (
        gradients(phase_sensitive, 2, iterations=iterations, gradient=kind) for kind in EXACT
    )
    assert apart(unrolled, segments) < 1e-10


@pytest.mark.parametrize("snapshots", [1, 3])
def test_implicit_gradient_is_the_unrolled_one_at_convergence(x64, snapshots):
    unrolled, implicit = (
        gradients(phase_blind, snapshots, iterations=400, gradient=kind)
        for kind in ("unrolled", "implicit")
    )
    assert apart(unrolled, implicit) < 1e-3


def test_implicit_gradient_of_a_loss_that_sees_the_phase_wants_a_gauge(x64):
    """The start vector sets the phase, and the fixed point knows nothing of it."""
    unrolled, implicit = (
        gradients(phase_sensitive, 1, iterations=400, gradient=kind, gauge="mean")
        for kind in ("unrolled", "implicit")
    )
    assert apart(unrolled, implicit) < 1e-3
    unrolled, implicit = (
        gradients(phase_sensitive, 1, iterations=400, gradient=kind, gauge="start")
        for kind in ("unrolled", "implicit")
    )
    assert apart(unrolled[1:2], implicit[1:2]) > 0.1  # masks


def test_all_gradients_come_with_the_same_estimate():
    intensity, phases, kernel, start, _ = scene(2)
    made = [
        filtered_spectral_init(
            *(jnp.asarray(a, jnp.float32) for a in (intensity, phases, kernel)),
            jnp.asarray(start, jnp.complex64),
            iterations=40,
            gradient=kind,
        )
        for kind in (*EXACT, "implicit")
    ]
    for estimate, residual in made[1:]:
        np.testing.assert_allclose(estimate, made[0][0], atol=1e-5)
        np.testing.assert_allclose(residual, made[0][1], atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 25, 26, 99, 150, 500, 5000])
def test_segments_keep_few_iterates(steps):
    length = segment_length(steps)
    kept = length + -(-steps // length) if length > 1 else steps
    assert kept <= max(STORED, 2 * np.sqrt(steps) + 2)
    assert (length == 1) == (steps <= STORED)


def bytes_of_gradient(gradient: str, iterations: int) -> int:
    """Temporary memory of value and gradient on one sample of 64 x 64."""
    size = 64

    def loss(phases, intensity, start):
        estimate, _ = filtered_spectral_init(
            intensity,
            phases,
            jnp.asarray(gaussian_kernel()),
            start,
            iterations=iterations,
            gradient=gradient,
        )
        return jnp.sum(estimate.real)

    real = jax.ShapeDtypeStruct((1, size, size), jnp.float32)
    start = jax.ShapeDtypeStruct((size, size), jnp.complex64)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(real, real, start).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", ["segments", "implicit"])
def test_memory_does_not_grow_with_the_iterations(gradient):
    assert bytes_of_gradient(gradient, 100) < 1.1 * bytes_of_gradient(gradient, 25)


def test_unrolled_memory_does_grow():
    assert bytes_of_gradient("unrolled", 100) > 1.5 * bytes_of_gradient("unrolled", 25)


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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gradient": "exact"}, "gradient: expected unrolled, segments or implicit"),
        ({"iterations": 0}, "iterations: expected at least 1"),
    ],
)
def test_unknown_gradients_and_no_iterations_are_refused(options, says):
    options = {"iterations": 3, **options}
    with pytest.raises(ValueError, match=says):
        power_iteration(lambda _, z: z, None, jnp.ones((2, 2), jnp.complex64), **options)


def test_unknown_gauge_is_refused():
    with pytest.raises(ValueError, match="gauge: expected start or mean"):
        fix_global_phase(jnp.ones((2, 2), jnp.complex64), gauge="median")
