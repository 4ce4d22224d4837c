"""Solvers that descend a misfit's gradient: Wirtinger and amplitude flows, and one with a prior.

The papers use measurement vectors a of unit covariance and average the gradient over all m
measurements. Here (1/m) sum a (...) becomes A^+ (...). This is the same up to a pixel-by-pixel
preconditioning by the power of the masks, so the step sizes of the papers hold unchanged. The
papers have no constraint on the object; where there is one, each step ends with its projection.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex

from jax_kdpr.core.types import Field, Spectra
from jax_kdpr.optics.cdp import intensity
from jax_kdpr.recovery.data_consistency import Measured, impose_modulus, to_object, to_sensor
from jax_kdpr.recovery.projections import Constraint, Method, Settings

WIRTINGER_TIME, WIRTINGER_STEP = 330.0, 0.2  # tau_0 and mu_max of the paper and its code
TRUNCATION, TRUNCATED_STEP = 0.7, 1.0  # gamma and mu of TAF for complex fields
REWEIGHTING, REWEIGHTED_STEP = 5.0, 6.0  # beta and mu of RAF for complex fields
DUAL_STEPS = 5  # of the total-variation prior in each step; the dual continues from the step before


def wirtinger_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds Wirtinger flow: x <- x - mu A^+ [(abs(A x)^2 - y) A x] / mean(y).

    It descends the gradient of the intensities' misfit (Candes, Li and Soltanolkotabi, IEEE Trans.
    Inf. Theory 61, 1985, 2015), with mu = min(1 - e^{-t / 330}, 0.2). There are two guards that
    random masks do not need. mu is at most m / (2 n) mean(y) / max(y), so that a bright zero order
    is not overshot. For a field brighter than y, the field's own mean intensity replaces mean(y).
    """
    target = jnp.square(data.modulus)
    mean = jnp.mean(target)
    largest = jnp.minimum(WIRTINGER_STEP, 0.5 * _oversampling(data) * mean / jnp.max(target))

    def step(field, number):
        rate = jnp.minimum(1.0 - jnp.exp(-(number + 1.0) / WIRTINGER_TIME), largest)
        spectra = to_sensor(data, field)
        power = intensity(spectra)
        level = jnp.maximum(mean, jnp.mean(power))
        descent = to_object(data, (power - target) / level * spectra)
        return constrain(field - rate * descent)

    return _descending(step)


def truncated_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds truncated amplitude flow: x <- x - A^+ [A x - sqrt(y) A x / abs(A x)].

    The bracket is kept only where abs(A x) >= sqrt(y) / 1.7: where the field is much darker than
    the data, its phase says little. The method is that of Wang, Giannakis and Eldar, IEEE Trans.
    Inf. Theory 64, 773, 2018, with step 1 for complex fields.
    """

    def step(field, _):
        spectra = to_sensor(data, field)
        kept = intensity(spectra) * (1.0 + TRUNCATION) ** 2 >= jnp.square(data.modulus)
        return constrain(field - TRUNCATED_STEP * to_object(data, kept * _excess(data, spectra)))

    return _descending(step)


def reweighted_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds reweighted amplitude flow: weights w = 1 / (1 + 5 sqrt(y) / abs(A x)), step 6.

    It is truncated amplitude flow with these soft weights (Wang, Giannakis, Saad and Chen, IEEE
    Trans. Signal Process. 66, 2818, 2018). 6 w is at most m / n, the ratio of sensor to object
    pixels: with few shots, more would overshoot at dark pixels.
    """

    def step(field, _):
        spectra = to_sensor(data, field)
        modulus = jnp.sqrt(intensity(spectra) + 1e-12)
        weight = REWEIGHTED_STEP * modulus / (modulus + REWEIGHTING * data.modulus)
        weight = jnp.minimum(weight, _oversampling(data))
        return constrain(field - to_object(data, weight * _excess(data, spectra)))

    return _descending(step)


def accelerated_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds accelerated gradient descent on 1/2 norm(abs(A x) - sqrt(y))^2 / k + tv TV(x), step 1.

    The prior is the isotropic total variation of the complex field,

        TV(x) = sum over pixels of sqrt(abs(x[r+1, c] - x[r, c])^2 + abs(x[r, c+1] - x[r, c])^2),

    which needs no unwrapped phase. Nesterov's momentum, as in FISTA (Beck and Teboulle, 2009), is
    restarted whenever it points uphill (O'Donoghue and Candes, 2015). Prior and constraint are
    applied one after the other.
    """

    def begin(start):
        # Computed from `start`, so that all of the state is spread over devices in the same way.
        zero = start - start
        return start, start, jnp.sum(zero.real) + 1.0, jnp.stack([zero, zero])

    def step(state, _):
        field, ahead, momentum, dual = state
        after = ahead - to_object(data, _excess(data, to_sensor(data, ahead)))
        if settings.tv > 0:
            after, dual = smooth_total_variation(after, dual, weight=settings.tv, steps=DUAL_STEPS)
        after = constrain(after)
        move = after - field
        uphill = jnp.sum(((ahead - after) * jnp.conj(move)).real) > 0
        momentum = jnp.where(uphill, 1.0, momentum)
        longer = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.square(momentum)))
        return after, after + (momentum - 1.0) / longer * move, longer, dual

    return Method(begin=begin, step=step, read=lambda state: state[0])


def smooth_total_variation(
    field: Field, dual: Complex[Array, "2 h w"], *, weight: float, steps: int
) -> tuple[Field, Complex[Array, "2 h w"]]:
    """Approaches the minimum over x of 1/2 norm(x - field)^2 + weight TV(x).

    It is projected gradient descent on the dual problem (Chambolle, 2004) with step 1/8:
    x = field - weight D^H p with abs(p) <= 1 in each pixel.

    Args:
        field: Field to smooth.
        dual: Start of p: zeros, or the p of a similar field.
        weight: Weight of the prior, above 0, in the unit of `field`.
        steps: Dual steps; with many, the result approaches the minimum.

    Returns:
        The smoothed field, and p.
    """

    def climb(_, dual):
        slope = _differences(field - weight * _differences_adjoint(dual))
        moved = dual + slope / (8.0 * weight)
        size = jnp.sqrt(jnp.sum(intensity(moved), axis=0, keepdims=True) + 1e-12)
        return moved / jnp.maximum(size, 1.0)

    dual = lax.fori_loop(0, steps, climb, dual)
    return field - weight * _differences_adjoint(dual), dual


def _differences(field: Field) -> Complex[Array, "2 h w"]:
    """Returns D x: differences to the next row and to the next column, 0 at the last ones."""
    down = jnp.diff(field, axis=0, append=field[-1:])
    right = jnp.diff(field, axis=1, append=field[:, -1:])
    return jnp.stack([down, right])


def _differences_adjoint(dual: Complex[Array, "2 h w"]) -> Field:
    down = jnp.pad(dual[0, :-1], ((1, 1), (0, 0)))
    right = jnp.pad(dual[1, :, :-1], ((0, 0), (1, 1)))
    return -jnp.diff(down, axis=0) - jnp.diff(right, axis=1)


def _excess(data: Measured, spectra: Spectra) -> Spectra:
    """Returns u - P_M u, by which sensor fields miss the measured modulus."""
    return spectra - impose_modulus(data, spectra)


def _oversampling(data: Measured) -> float:
    """Returns m / n, the ratio of the sensor pixels of all shots to the object pixels."""
    return data.modulus.size / math.prod(data.phasors.shape[1:])


def _descending(step) -> Method:
    return Method(begin=lambda start: start, step=step, read=lambda field: field)
