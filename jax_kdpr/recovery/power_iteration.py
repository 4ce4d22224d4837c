"""Power iteration of algorithm 1 on a batch of scenes, with its gradient written by hand.

The iterates are z_{t+1} = M z_t / norm(M z_t) with M = G_psi Gamma. One iteration goes

    S = F A z,  V = F^H w S,  U = F sum_k A^H V,  v = F^H r U,  z' = v / norm(v)

where A multiplies by conj(t), t the masks' transmittance, and r is the filter's response. With the
cotangent G of z' (a change dz' changes the loss by Re <G, dz'>) the way back is

    C = (G - z' Re <z', G>) / norm(v),  E = F C,  B = F^H conj(r) E,  P = F A B,  Q = F^H w P

and gives the cotangents sum_k A^H Q of z, Re(conj(S) P) of w, B conj(V) + conj(Q) z of t, and
conj(U) E of r. These are 4 FFTs again, where automatic differentiation, which makes S and V anew,
takes 8. Every FFT is a forward one without normalisation, F^H x = conj(F conj x): a GPU scales an
inverse FFT in a pass of its own. What that leaves out is put into r, once.

S and V are kept where they fit (`_kept`), and made again in the backward pass where not: 2 FFTs
more an iteration. Of more than `STORED` iterations, segments are made again from their first
iterate.

| iterations | stored iterates | FFTs an iteration, S and V kept | made again |
| --- | --- | --- | --- |
| to 25 | T | 8 | 10 |
| to 156 | 25 at most | 12 | 14 |
| more | 2 sqrt(T) | 12 | 14 |

With a `MatrixDFT` F is its two matrix products, and masks may be finer than the scene: A then has
each pixel of z as a square of samples, and A^H adds them up. With an `Apart` A begins with the way
from the scene to the masks.

There is no forward-mode derivative (`jax.jvp`), and none by the transfer function.
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
    Between,
    MatrixDFT,
    back_to_object,
    before_mask,
    behind_mask,
    gather_pixels,
    pixels_within,
    spread_pixels,
)

STORED = 25  # iterates: those of the paper's T


class Operator(NamedTuple):
    """M = G_psi Gamma of each scene of a batch; its scale does not matter."""

    weight: Intensities  # w, of the measured pixels
    transmittance: Complex[Array, "k mh mw"]  # t = e^{j phi}
    response: Complex[Array, "h w"]  # r, of the filter
    transfer: Between | None = None  # a constant; None for the plain DFT
    conjugate: Any = None  # of t, made once for a loop


class Made(NamedTuple):
    """What one iteration made on its way, for the way back."""

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
        operator: M; differentiable in weight, transmittance and response.
        start: z^(0), not zero, the same for all; a constant.
        iterations: T, at least 1.
        stored: Iterates that the gradient may keep, where segments can keep to it.

    Returns:
        The unit vectors z after T iterations; and their residuals, norm(M u - <u, M u> u) /
        norm(M u) at the last but one unit iterate u, whose image is z. A residual is 0 at a fixed
        point, in [0, 1], and has no gradient.

    Raises:
        ValueError: If `iterations` is less than 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    points = math.prod(operator.weight.shape[2:])
    transfer = lax.stop_gradient(operator.transfer)
    match behind_mask(transfer):
        case None:
            unitary = points  # F^H F
        case MatrixDFT():
            unitary = 1
        case behind:
            unitary = points**2  # of two FFTs
            is_apart = isinstance(transfer, Apart)
            wide = behind[None, None]
            transfer = dataclasses.replace(transfer, behind=wide) if is_apart else wide
    # From here on with the axes b and k of length 1 where an array has none.
    operator = operator._replace(
        transmittance=operator.transmittance[None],
        response=operator.response[None] / float(unitary * start.size),  # as an int it overflows
        transfer=transfer,
    )
    z = jnp.broadcast_to((start / norm(start))[None], (len(operator.weight), *start.shape))
    last, before = _advance_in_segments(operator, z, iterations, stored)
    return last, lax.stop_gradient(_residual(before, last))


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


def norm(fields: Complex[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Euclidean norms, in float32 on every device; with gradients that are finite at zero."""
    return safe_sqrt(jnp.sum(jnp.square(fields.real) + jnp.square(fields.imag), axis=(-2, -1)))


def safe_sqrt(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Square root whose gradient is finite at zero; negative values count as zero."""
    return jnp.sqrt(jnp.maximum(value, jnp.finfo(value.dtype).tiny))


def _residual(before: Fields, last: Fields) -> Residuals:
    # No jnp.vdot: it may take a GPU's reduced precision.
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
    """Whether S and V of so many iterations are kept for the gradient, rather than made again.

    In a CPU's cache they are made again in less time than memory takes to give them back.
    """
    made = z.dtype.itemsize * (operator.weight.size + len(z) * operator.transmittance.size)
    if runtime.on_cpu() and made <= runtime.CPU_CACHE:
        return False
    # Each of the devices that share a memory may have such a batch.
    return runtime.fits(runtime.sharing_memory() * made * steps)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _advance(operator: Operator, z: Fields, steps: int, keep: bool) -> tuple[Fields, Fields]:
    """Returns the iterate after so many steps, at least 1, and the one before it.

    The second has no gradient. `keep` S and V of each step for the backward pass.
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

    # JAX's cotangents are the conjugates of the module's.
    totals = (operator.weight, operator.transmittance, operator.response)
    start = (jnp.conj(cotangents[0]), last, jax.tree.map(jnp.zeros_like, totals))
    (gradient, _, totals), _ = lax.scan(step, start, made, reverse=True)
    by_weight, *others = totals
    by_operator = Operator(
        by_weight,
        *map(jnp.conj, others),
        transfer=jax.tree.map(jnp.zeros_like, operator.transfer),
    )
    return by_operator, jnp.conj(gradient)


_advance.defvjp(_advance_forward, _advance_backward)


def _iterate(operator: Operator, z: Fields) -> tuple[Fields, Made]:
    seen = _to_sensor(operator, z)
    back = _from_sensor(operator, operator.weight * seen)
    spectrum = jnp.fft.fft2(_gathered(operator, jnp.sum(operator.transmittance * back, axis=1)))
    v = _fft_adjoint(operator.response * spectrum)
    length = norm(v)
    return v / length[:, None, None], Made(z, length, spectrum, seen, back)


def _iterate_back(
    operator: Operator, made: Made, after: Fields, gradient: Fields
) -> tuple[Fields, tuple[Array, Array, Array]]:
    """Returns the cotangents of z, and of (w, t, r); `after` is the iterate that was made."""
    weight, transmittance, response, *_ = operator
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
    by_transmittance = jnp.sum(
        wide[0] * jnp.conj(back) + jnp.conj(by_scene) * wide[1], axis=0, keepdims=True
    )
    by_response = jnp.sum(jnp.conj(made.spectrum) * filtered, axis=0, keepdims=True)
    before = _gathered(operator, jnp.sum(transmittance * by_scene, axis=1))
    return before, (by_weight, by_transmittance, by_response)


def _with_conjugate(operator: Operator) -> Operator:
    return operator._replace(conjugate=jnp.conj(operator.transmittance))


def _to_sensor(operator: Operator, z: Fields) -> Complex[Array, "b k sh sw"]:
    """F A z, in the near field F^H H F A z, without normalisation."""
    masked = operator.conjugate * _spread(operator, z)[:, None]
    transfer = behind_mask(operator.transfer)
    if isinstance(transfer, MatrixDFT):
        return transfer.forward(masked)
    spectrum = jnp.fft.fft2(masked, s=operator.weight.shape[2:])
    return spectrum if transfer is None else _fft_adjoint(transfer * spectrum)


def _from_sensor(
    operator: Operator, spectra: Complex[Array, "b k sh sw"]
) -> Complex[Array, "b k mh mw"]:
    """The adjoint of `_to_sensor` less the masks: it leaves a field behind each of them."""
    transfer = behind_mask(operator.transfer)
    if isinstance(transfer, MatrixDFT):
        return transfer.adjoint(spectra)
    height, width = operator.transmittance.shape[2:]
    if transfer is not None:
        spectra = jnp.conj(transfer) * jnp.fft.fft2(spectra)
    return _fft_adjoint(spectra)[..., :height, :width]


def _spread(operator: Operator, z: Fields) -> Complex[Array, "b mh mw"]:
    """What meets the masks of scenes."""
    return spread_pixels(before_mask(z, operator.transfer), pixels_within(operator.transfer))


def _gathered(operator: Operator, behind: Complex[Array, "b mh mw"]) -> Fields:
    back = gather_pixels(behind, pixels_within(operator.transfer))
    return back_to_object(back, operator.transfer)


def _fft_adjoint(fields: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
    """F^H: an inverse FFT without its normalisation."""
    return jnp.conj(jnp.fft.fft2(jnp.conj(fields)))
