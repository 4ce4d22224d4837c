"""Power iteration of algorithm 1 on a batch of scenes, with its gradient written by hand.

The iterates are z_{t+1} = M z_t / norm(M z_t) with M = G_psi Gamma. One iteration is

    S = F A z,  V = F^H w S,  U = F sum_k A^H V,  v = F^H r U,  z' = v / norm(v)

where A multiplies by conj(t), with t the phasor of the mask, and r is the response of the
filter. G is the cotangent of z': a change dz' changes the loss by Re <G, dz'>. The backward pass

    C = (G - z' Re <z', G>) / norm(v),  E = F C,  B = F^H conj(r) E,  P = F A B,  Q = F^H w P

gives the cotangents sum_k A^H Q of z, Re(conj(S) P) of w, B conj(V) + conj(Q) z of t, and
conj(U) E of r. It takes 4 FFTs, like the forward pass; automatic differentiation, which recomputes
S and V, takes 8. Every FFT is a forward one without normalisation, with F^H x = conj(F conj x),
because a GPU scales an inverse FFT in a separate pass. The scale left out is put into r, once.

S and V are kept where they fit into memory (`_kept`). Elsewhere the backward pass recomputes them,
with 2 more FFTs an iteration. With more than `STORED` iterations, segments of iterations are
recomputed from their first iterate.

| iterations | stored iterates | FFTs an iteration, S and V kept | recomputed |
| --- | --- | --- | --- |
| to 25 | T | 8 | 10 |
| to 156 | 25 at most | 12 | 14 |
| more | 2 sqrt(T) | 12 | 14 |

With a `MatrixDFT`, F is its two matrix products, and masks may be finer than the scene: A then
makes each pixel of z a square of samples, and A^H adds them up. With an `Apart`, A begins with the
propagation from the scene to the masks.

There is no forward-mode derivative (`jax.jvp`), and none with respect to `path`.
"""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core import runtime
from jax_kdpr.core.types import Field, Fields, Intensities, Residuals
from jax_kdpr.optics.paths import (
    Apart,
    LightPath,
    MatrixDFT,
    back_to_object,
    before_mask,
    behind_mask,
    gather_pixels,
    pixels_within,
    spread_pixels,
)

STORED = 25  # iterates, as many as the paper's T


class Operator(NamedTuple):
    """M = G_psi Gamma of each scene of a batch; its scale does not matter."""

    weight: Intensities  # w, of the measured pixels
    phasors: Complex[Array, "k mh mw"]  # t = e^{j phi}
    response: Complex[Array, "h w"]  # r, of the filter
    path: LightPath | None = None  # a constant; None for the plain DFT
    conjugate: Any = None  # conj(t), computed once for a loop


class Made(NamedTuple):
    """Intermediate results of one iteration, for the backward pass."""

    before: Fields  # z
    length: Float[Array, "b"]  # norm(v)
    spectrum: Fields  # U
    seen: Complex[Array, "b k sh sw"] | None  # S
    back: Complex[Array, "b k mh mw"] | None  # V


def power_iteration(
    operator: Operator, start: Field, *, iterations: int, stored: int = STORED
) -> tuple[Fields, Residuals]:
    """Iterates z <- M z / norm(M z) from `start` / norm(`start`), for each scene of a batch.

    Args:
        operator: M; differentiable in weight, phasors and response.
        start: z^(0), not zero, the same for all; a constant.
        iterations: T, at least 1.
        stored: How many iterates the gradient may store, as far as segments allow.

    Returns:
        The unit vectors z after T iterations, and their residuals, norm(M u - <u, M u> u) /
        norm(M u) at the last but one unit iterate u, which M maps to z. A residual is in [0, 1],
        is 0 at a fixed point, and has no gradient.

    Raises:
        ValueError: If `iterations` is less than 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    points = math.prod(operator.weight.shape[2:])
    path = lax.stop_gradient(operator.path)
    match behind_mask(path):
        case None:
            unitary = points  # F^H F
        case MatrixDFT():
            unitary = 1
        case behind:
            unitary = points**2  # of two FFTs
            is_apart = isinstance(path, Apart)
            wide = behind[None, None]
            path = dataclasses.replace(path, behind=wide) if is_apart else wide
    # From here on, arrays without the axes b or k have them with length 1.
    operator = operator._replace(
        phasors=operator.phasors[None],
        response=operator.response[None] / float(unitary * start.size),  # as an int it overflows
        path=path,
    )
    z = jnp.broadcast_to((start / norm(start))[None], (len(operator.weight), *start.shape))
    last, before = _advance_in_segments(operator, z, iterations, stored)
    return last, lax.stop_gradient(_residual(before, last))


def segment_length(steps: int, stored: int) -> int:
    """Returns the shortest segment length at which the gradient stores at most `stored` iterates.

    It stores one iterate for each segment, and all iterates of the segment that it is going
    through. Length 1 means that no segments are needed. Where no length fits, the number of stored
    iterates grows as 2 sqrt(steps).
    """
    if steps <= stored:
        return 1
    for length in range(2, stored):
        if math.ceil(steps / length) + length <= stored:
            return length
    return round(math.sqrt(steps))


def norm(fields: Complex[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Returns Euclidean norms, float32 on every device, with gradients that are finite at zero."""
    return safe_sqrt(jnp.sum(jnp.square(fields.real) + jnp.square(fields.imag), axis=(-2, -1)))


def safe_sqrt(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns a square root with a finite gradient at zero; negative values count as zero."""
    return jnp.sqrt(jnp.maximum(value, jnp.finfo(value.dtype).tiny))


def _residual(before: Fields, last: Fields) -> Residuals:
    # Not jnp.vdot, which may use reduced precision on a GPU.
    overlap = jnp.sum(jnp.conj(before) * last, axis=(1, 2), keepdims=True)
    return norm(last - overlap * before)


def _advance_in_segments(
    operator: Operator, z: Fields, steps: int, stored: int
) -> tuple[Fields, Fields]:
    """Returns the last two iterates."""
    length = segment_length(steps, stored)
    keep = _kept(operator, z, steps if length == 1 else length)
    if length == 1:
        return _advance(operator, z, steps, keep)
    segment = jax.checkpoint(lambda operator, z: _advance(operator, z, length, keep))
    pair = lax.fori_loop(0, steps // length, lambda _, pair: segment(operator, pair[0]), (z, z))
    return _advance(operator, pair[0], steps % length, keep) if steps % length else pair


def _kept(operator: Operator, z: Fields, steps: int) -> bool:
    """Returns whether S and V of `steps` iterations are kept for the gradient, not recomputed.

    Where they fit into a CPU's cache, recomputing them is faster than reading them from memory.
    """
    made = z.dtype.itemsize * (operator.weight.size + len(z) * operator.phasors.size)
    if runtime.on_cpu() and made <= runtime.CPU_CACHE:
        return False
    # Each device that shares this memory may have such a batch.
    return runtime.fits(runtime.sharing_memory() * made * steps)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _advance(operator: Operator, z: Fields, steps: int, keep: bool) -> tuple[Fields, Fields]:
    """Returns the iterate after `steps` iterations, at least 1, and the one before it.

    The second has no gradient. With `keep`, S and V are kept for the backward pass.
    """
    ready = _with_conjugate(operator)
    return lax.fori_loop(0, steps, lambda _, pair: (_iterate(ready, pair[0])[0], pair[0]), (z, z))


def _advance_forward(operator: Operator, z: Fields, steps: int, keep: bool):
    ready = _with_conjugate(operator)

    def step(pair: tuple[Fields, Fields], _: None):
        z, made = _iterate(ready, pair[0])
        return (z, pair[0]), made if keep else made._replace(seen=None, back=None)

    pair, made = lax.scan(step, (z, z), length=steps)
    return pair, (operator, pair[0], made)


def _advance_backward(steps: int, keep: bool, kept, cotangents):
    operator, last, made = kept
    ready = _with_conjugate(operator)

    def step(carry, made: Made):
        gradient, after, totals = carry
        gradient, changes = _iterate_back(ready, made, after, gradient)
        totals = jax.tree.map(jnp.add, totals, changes)
        return (gradient, made.before, totals), None

    # JAX's cotangents are the conjugates of those in the module's docstring.
    totals = (operator.weight, operator.phasors, operator.response)
    start = (jnp.conj(cotangents[0]), last, jax.tree.map(jnp.zeros_like, totals))
    (gradient, _, totals), _ = lax.scan(step, start, made, reverse=True)
    by_weight, *others = totals
    by_operator = Operator(
        by_weight,
        *map(jnp.conj, others),
        path=jax.tree.map(jnp.zeros_like, operator.path),
    )
    return by_operator, jnp.conj(gradient)


_advance.defvjp(_advance_forward, _advance_backward)


def _iterate(operator: Operator, z: Fields) -> tuple[Fields, Made]:
    seen = _to_sensor(operator, z)
    back = _from_sensor(operator, operator.weight * seen)
    spectrum = jnp.fft.fft2(_gathered(operator, jnp.sum(operator.phasors * back, axis=1)))
    v = _fft_adjoint(operator.response * spectrum)
    length = norm(v)
    return v / length[:, None, None], Made(z, length, spectrum, seen, back)


def _iterate_back(
    operator: Operator, made: Made, after: Fields, gradient: Fields
) -> tuple[Fields, tuple[Array, Array, Array]]:
    """Returns the cotangents of z and of (w, t, r); `after` is the iterate that z became."""
    weight, phasors, response, *_ = operator
    seen = _to_sensor(operator, made.before) if made.seen is None else made.seen
    back = _from_sensor(operator, weight * seen) if made.back is None else made.back
    along = jnp.sum(after.real * gradient.real + after.imag * gradient.imag, axis=(1, 2))
    scaled = (gradient - after * along[:, None, None]) / made.length[:, None, None]
    filtered = jnp.fft.fft2(scaled)  # E
    by_spectrum = _fft_adjoint(jnp.conj(response) * filtered)  # B
    passed = _to_sensor(operator, by_spectrum)  # P
    by_scene = _from_sensor(operator, weight * passed)  # Q
    by_weight = seen.real * passed.real + seen.imag * passed.imag
    wide = [_spread(operator, fields)[:, None] for fields in (by_spectrum, made.before)]
    by_phasors = jnp.sum(
        wide[0] * jnp.conj(back) + jnp.conj(by_scene) * wide[1], axis=0, keepdims=True
    )
    by_response = jnp.sum(jnp.conj(made.spectrum) * filtered, axis=0, keepdims=True)
    before = _gathered(operator, jnp.sum(phasors * by_scene, axis=1))
    return before, (by_weight, by_phasors, by_response)


def _with_conjugate(operator: Operator) -> Operator:
    return operator._replace(conjugate=jnp.conj(operator.phasors))


def _to_sensor(operator: Operator, z: Fields) -> Complex[Array, "b k sh sw"]:
    """Returns F A z, or F^H H F A z in the near field, without normalisation."""
    masked = operator.conjugate * _spread(operator, z)[:, None]
    behind = behind_mask(operator.path)
    if isinstance(behind, MatrixDFT):
        return behind.forward(masked)
    spectrum = jnp.fft.fft2(masked, s=operator.weight.shape[2:])
    return spectrum if behind is None else _fft_adjoint(behind * spectrum)


def _from_sensor(
    operator: Operator, spectra: Complex[Array, "b k sh sw"]
) -> Complex[Array, "b k mh mw"]:
    """Applies the adjoint of `_to_sensor` without the masks: a field behind each of them."""
    behind = behind_mask(operator.path)
    if isinstance(behind, MatrixDFT):
        return behind.adjoint(spectra)
    height, width = operator.phasors.shape[2:]
    if behind is not None:
        spectra = jnp.conj(behind) * jnp.fft.fft2(spectra)
    return _fft_adjoint(spectra)[..., :height, :width]


def _spread(operator: Operator, z: Fields) -> Complex[Array, "b mh mw"]:
    """Returns the fields that scenes make at the masks."""
    return spread_pixels(before_mask(z, operator.path), pixels_within(operator.path))


def _gathered(operator: Operator, behind: Complex[Array, "b mh mw"]) -> Fields:
    back = gather_pixels(behind, pixels_within(operator.path))
    return back_to_object(back, operator.path)


def _fft_adjoint(fields: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
    """Applies F^H, an inverse FFT without its normalisation."""
    return jnp.conj(jnp.fft.fft2(jnp.conj(fields)))
