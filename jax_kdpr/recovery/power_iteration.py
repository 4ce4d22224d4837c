"""Power iteration of a linear map, and the gradient of what it finds.

The iterates are z_{t+1} = M z_t / norm(M z_t). The gradient of z_T is exact, of the T iterations
as they ran. The backward pass wants every iterate, a complex [h w] field each: up to `STORED` are
kept, beyond that segments of them are made again from their first one.

| iterations | stored iterates | maps applied, forward and backward |
| --- | --- | --- |
| to 26 | T - 1 | 1 + 2 T |
| to 157 | 25 at most | 1 + 3 T |
| more | 2 sqrt(T) | 1 + 3 T |
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.types import Field, PyTree, Scalar

STORED = 25  # iterates: those of the paper's T
LinearMap = Callable[[PyTree, Field], Field]


def power_iteration(
    apply: LinearMap, operator: PyTree, start: Field, *, iterations: int, stored: int = STORED
) -> tuple[Field, Scalar]:
    """Iterates z <- M z / norm(M z) from `start` / norm(`start`).

    Args:
        apply: apply(operator, z) = M z, linear in z.
        operator: What M is made of; differentiable. `start` is a constant.
        start: z^(0), not zero.
        iterations: T, at least 1.
        stored: Iterates that the gradient may keep, where segments can keep to it.

    Returns:
        z: The unit vector after T iterations.
        residual: norm(M u - <u, M u> u) / norm(M u) at the last but one unit iterate u, whose image
            is z. 0 at a fixed point, in [0, 1], and without gradient.

    Raises:
        ValueError: If `iterations` is less than 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")

    def step(operator: PyTree, z: Field) -> Field:
        return _unit(apply(operator, z))

    z = _unit(start)
    before_last = _advance_in_segments(step, operator, z, iterations - 1, stored)
    last = step(operator, before_last)
    overlap = inner(before_last, last)
    return last, lax.stop_gradient(norm(last - overlap * before_last))


def segment_length(steps: int, stored: int) -> int:
    """Returns the shortest segments that keep at most `stored` iterates alive in the gradient.

    One iterate is kept for each segment, and those of one segment while it is gone through. 1 means
    that no segments are needed. Where no length fits, the number grows as 2 sqrt(steps).
    """
    if steps <= stored:
        return 1
    for length in range(2, stored):
        if math.ceil(steps / length) + length <= stored:
            return length
    return round(math.sqrt(steps))


def inner(one: Field, other: Field) -> Complex[Array, ""]:
    """<one, other>, in float32 on every device: `jnp.vdot` may take a GPU's reduced precision."""
    return jnp.sum(jnp.conj(one) * other)


def norm(field: Field) -> Float[Array, ""]:
    """Euclidean norm whose gradient is finite at zero."""
    return safe_sqrt(jnp.sum(jnp.square(field.real) + jnp.square(field.imag)))


def safe_sqrt(value: Float[Array, ""]) -> Float[Array, ""]:
    """Square root whose gradient is finite at zero; negative values count as zero."""
    return jnp.sqrt(jnp.maximum(value, jnp.finfo(value.dtype).tiny))


def _unit(field: Field) -> Field:
    return field / norm(field)


def _advance(step: LinearMap, operator: PyTree, z: Field, steps: int) -> Field:
    """`steps` iterations; to recompute one in the backward pass beats storing its spectra."""
    recomputed = jax.checkpoint(step)
    return lax.fori_loop(0, steps, lambda _, z: recomputed(operator, z), z)


def _advance_in_segments(
    step: LinearMap, operator: PyTree, z: Field, steps: int, stored: int
) -> Field:
    length = segment_length(steps, stored)
    if length == 1:
        return _advance(step, operator, z, steps)
    segment = jax.checkpoint(lambda operator, z: _advance(step, operator, z, length))
    z = lax.fori_loop(0, steps // length, lambda _, z: segment(operator, z), z)
    return _advance(step, operator, z, steps % length)
