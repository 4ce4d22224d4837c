"""Power iteration: its gradient with and without segments, and memory that stays bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery.power_iteration import STORED, power_iteration, segment_length

ALL = 10**6  # iterates that may be kept: then all of them are


def loss(matrix, start, iterations: int, stored: int):
    """A real function of the last iterate of z <- matrix z, column by column."""
    apply = lambda matrix, z: matrix @ z  # noqa: E731
    z, _ = power_iteration(apply, matrix, start, iterations=iterations, stored=stored)
    return jnp.sum(jnp.square(z.real - 0.1)) + jnp.sum(z.imag)


@pytest.mark.parametrize("iterations", [27, 62])  # whole segments, and a step that is left
def test_segments_give_the_gradient_of_all_iterates(iterations, x64):
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(np.eye(10) + 0.1 * rng.normal(size=(10, 10)))
    start = jnp.asarray(rng.normal(size=(10, 12)) + 1j * rng.normal(size=(10, 12)))
    gradient = jax.jit(jax.grad(loss), static_argnums=(2, 3))
    kept, segments = (gradient(matrix, start, iterations, stored) for stored in (ALL, STORED))
    assert np.linalg.norm(kept) > 0.1
    np.testing.assert_allclose(segments, kept, atol=1e-10)


@pytest.mark.parametrize("steps", [0, 25, 26, 150, 500, 5000])
def test_segments_keep_few_iterates(steps):
    length = segment_length(steps, STORED)
    kept = length + -(-steps // length) if length > 1 else steps
    assert kept <= max(STORED, 2 * np.sqrt(steps) + 2)
    assert (length == 1) == (steps <= STORED)


def test_memory_does_not_grow_with_the_iterations_but_where_all_are_kept():
    matrix = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    start = jax.ShapeDtypeStruct((64, 64), jnp.complex64)

    def temporary_bytes(iterations, stored):
        program = jax.jit(jax.value_and_grad(loss), static_argnums=(2, 3))
        compiled = program.lower(matrix, start, iterations, stored).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(100, STORED) < 1.1 * temporary_bytes(25, STORED)
    assert temporary_bytes(100, ALL) > 1.5 * temporary_bytes(25, ALL)


def test_mean_gauge_takes_any_global_phase_away():
    rng = np.random.default_rng(1)
    field = jnp.asarray(np.exp(1j * rng.uniform(0, 2, (6, 5))), jnp.complex64)
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
    field = jnp.ones((2, 2), jnp.complex64)
    with pytest.raises(ValueError, match="iterations: expected at least 1"):
        power_iteration(lambda _, z: z, None, field, iterations=0)
    with pytest.raises(ValueError, match="gauge: expected start or mean"):
        fix_global_phase(field, gauge="median")
