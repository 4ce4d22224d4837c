"""Power iteration of a linear map, and three ways to differentiate what it finds.

The iterates are z_{t+1} = M z_t / norm(M z_t). How the gradient of z_T with respect to M is made is
a choice of memory, time and meaning; one iterate is stored as one complex [h w] field.

| gradient | what it is | stored iterates | maps applied, forward and backward |
| --- | --- | --- | --- |
| unrolled | exact, of the T iterations as they ran | T | 1 + 2 times T |
| segments | the same numbers | 25 to T = 157, then 2 sqrt(T) | 1 + 2 T to T = 26, then 1 + 3 T |
| implicit | of the eigenvector that the iterations tend to | 1 | 1 + 1 times T |

"implicit" equals the others where two things hold: the iterations have converged, and what is
differentiated does not change with the global phase of z. The phase of z_T comes from how the start
vector overlaps with the left eigenvector, which the fixed point knows nothing of.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.types import Field, PyTree, Scalar

STORED = 25  # iterates that "segments" may store: those of the paper's T
LinearMap = Callable[[PyTree, Field], Field]


def power_iteration(
    apply: LinearMap, operator: PyTree, start: Field, *, iterations: int, gradient: str = "segments"
) -> tuple[Field, Scalar]:
    """Iterates z <- M z / norm(M z) from `start` / norm(`start`).

    Args:
        apply: apply(operator, z) = M z, linear in z.
        operator: What M is made of; differentiable. `start` is a constant.
        start: z^(0), not zero.
        iterations: T, at least 1.
        gradient: "unrolled", "segments" or "implicit"; see the table above.

    Returns:
        z: The unit vector after T iterations.
        residual: norm(M u - <u, M u> u) / norm(M u) at the last but one unit iterate u, whose image
            is z. 0 at a fixed point, in [0, 1], and without gradient.

    Raises:
        ValueError: If `iterations` is less than 1 or `gradient` is none of these.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")

    def step(operator: PyTree, z: Field) -> Field:
        return _unit(apply(operator, z))

    z = _unit(start)
    match gradient:
        case "unrolled":
            before_last = _advance(step, operator, z, iterations - 1)
            last = step(operator, before_last)
        case "segments":
            before_last = _advance_in_segments(step, operator, z, iterations - 1)
            last = step(operator, before_last)
        case "implicit":
            last, before_last = _fixed_point(step, operator, z, iterations)
        case _:
            raise ValueError(f"gradient: expected unrolled, segments or implicit, got {gradient!r}")
    overlap = inner(before_last, last)
    return last, lax.stop_gradient(norm(last - overlap * before_last))


def segment_length(steps: int, stored: int = STORED) -> int:
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


def _advance_in_segments(step: LinearMap, operator: PyTree, z: Field, steps: int) -> Field:
    length = segment_length(steps)
    if length == 1:
        return _advance(step, operator, z, steps)
    segment = jax.checkpoint(lambda operator, z: _advance(step, operator, z, length))
    z = lax.fori_loop(0, steps // length, lambda _, z: segment(operator, z), z)
    return _advance(step, operator, z, steps % length)


def _fixed_point(
    step: LinearMap, operator: PyTree, start: Field, iterations: int
) -> tuple[Field, Field]:
    """The last two iterates; the gradient of the last one is that of the fixed point.

    With J the derivative of one step at z, the cotangent g of z becomes sum_j (J^H)^j g, as many
    terms as there were iterations; one step's derivative with respect to the operator ends it.
    """

    @jax.custom_vjp
    def iterate(operator: PyTree) -> tuple[Field, Field]:
        before = lax.fori_loop(0, iterations - 1, lambda _, z: step(operator, z), start)
        return step(operator, before), before

    def forward(operator):
        last, before = iterate(operator)
        return (last, before), (operator, last)

    def backward(saved, cotangents):
        operator, z = saved
        # An unsymmetric filter turns the phase a little at every step: J is taken without that.
        overlap = inner(z, step(operator, z))
        turn = jnp.conj(overlap) / jnp.maximum(jnp.abs(overlap), jnp.finfo(z.real.dtype).tiny)
        _, pull_z = jax.vjp(lambda z: turn * step(operator, z), z)
        _, pull_operator = jax.vjp(lambda operator: turn * step(operator, z), operator)

        def add_term(_, carry):
            term, total = carry
            (term,) = pull_z(term)
            return term, total + term

        first = cotangents[0]
        _, total = lax.fori_loop(0, iterations - 1, add_term, (first, first))
        return pull_operator(total)

    iterate.defvjp(forward, backward)
    return iterate(operator)
