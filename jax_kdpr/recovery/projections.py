"""Solvers that project back and forth between the measurement and what is known of the object.

The solvers use two sets in turn: M, all sensor fields of modulus sqrt(y), and C, all sensor fields
A x of allowed objects x. The maps onto them are

    P_M u = sqrt(y) u / abs(u)        P_C u = A P_O(A^+ u)

with P_O the nearest allowed object, pixel by pixel, and A^+ u = A^H u / sum_l abs(t_l)^2 the
pseudo-inverse. P_C is the exact projection wherever A^H A is diagonal with these entries: in the
far field of whole patterns, zero-padded or not, and in the near field without evanescent waves.

On objects, P_M becomes x -> A^+ P_M(A x): a projection for a single unpadded shot, but an average
of k projections for k shots. This is enough for `error_reduction`. HIO and RAAR reflect at both
sets, for which an average is not enough: without a constraint on the object both would fall back to
error reduction. Their iterate is therefore the stack u of all sensor fields (the product space of
the projection literature). For one unpadded shot this is the same as iterating on the object.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jax_kdpr.core.types import Field, PyTree, Scalar, Spectra
from jax_kdpr.recovery.data_consistency import (
    Measured,
    fit_to_data,
    impose_modulus,
    object_constraint,
    phasor,
    to_object,
    to_sensor,
)

Constraint = Callable[[Field], Field]


class Settings(NamedTuple):
    """Numbers of the solvers; each solver reads its own."""

    beta: float = 0.9  # relaxation of "hio" and "raar", in (0, 1]
    tv: float = 0.0  # weight of the total-variation prior of "accelerated", in the object's unit


class Method(NamedTuple):
    """One solver: a state, a step that changes it, and the object that the state stands for."""

    begin: Callable[[Field], PyTree]
    step: Callable[[PyTree, Scalar], PyTree]
    """step(state, number of steps done before) -> state."""
    read: Callable[[PyTree], Field]


def project_object(
    field: Field,
    *,
    scene: str,
    min_amplitude: float = 0.5,
    support: Bool[Array, "h w"] | None = None,
) -> Field:
    """Returns P_O x: the nearest allowed object, with the global phase that `field` has.

    It is `data_consistency.object_constraint`, with "none" to allow any field. But an "amplitude"
    object keeps its global phase here, so that a solver may mix it with fields from before the
    projection. Its values are real and not negative up to that phase.

    Args:
        field: Any field.
        scene: "phase", "amplitude", "complex" or "none".
        min_amplitude: Smallest amplitude of a "complex" object.
        support: Where the object may be other than zero; None for everywhere.

    Raises:
        ValueError: If `scene` is none of these.
    """
    if support is not None:
        field = jnp.where(support, field, 0.0)
    if scene == "none":
        return field
    nearest = object_constraint(field, scene=scene, min_amplitude=min_amplitude)
    if scene == "amplitude":
        return nearest * phasor(jnp.sum(jnp.conj(nearest) * field))
    return nearest


def error_reduction_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds x <- P_O A^+ P_M A x (Gerchberg and Saxton, 1972), as in `data_consistency`."""

    def step(field, _):
        return constrain(fit_to_data(data, field))

    return Method(begin=lambda start: start, step=step, read=lambda field: field)


def hio_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds HIO (Fienup, 1982): u <- u + beta (P_C((1 + 1 / beta) P_M u - u / beta) - P_M u).

    Where C is a support, this is Fienup's own: P_M u inside, u - beta P_M u outside. In this form
    (Elser, JOSA A 20, 40, 2003) it suits any set C: a solution is a fixed point even where C is not
    closed under scaling, such as the set of phase objects. With beta = 1 it is the Douglas-Rachford
    method.
    """
    beta = settings.beta

    def step(spectra, _):
        fitted = impose_modulus(data, spectra)
        allowed = _allowed(data, constrain, fitted + (fitted - spectra) / beta)
        return spectra + beta * (allowed - fitted)

    return _reflecting(data, constrain, step)


def raar_method(data: Measured, constrain: Constraint, settings: Settings) -> Method:
    """Builds RAAR: u <- beta / 2 (R_C R_M u + u) + (1 - beta) P_M u, reflections R = 2 P - 1.

    These are the relaxed averaged alternating reflections of Luke, Inverse Problems 21, 37, 2005.
    The relaxation keeps the iterate near M, while the pure reflections of beta = 1 drift on noisy
    data.
    """
    beta = settings.beta

    def step(spectra, _):
        fitted = impose_modulus(data, spectra)
        allowed = _allowed(data, constrain, 2.0 * fitted - spectra)
        # R_C R_M u + u = 2 P_C(R_M u) - R_M u + u = 2 (P_C(R_M u) - P_M u + u)
        return beta * (allowed - fitted + spectra) + (1.0 - beta) * fitted

    return _reflecting(data, constrain, step)


def _allowed(data: Measured, constrain: Constraint, spectra: Spectra) -> Spectra:
    """Returns P_C u."""
    return to_sensor(data, constrain(to_object(data, spectra)))


def _reflecting(data: Measured, constrain: Constraint, step: Callable) -> Method:
    """Builds a method whose solution is the shadow P_O A^+ P_M u of its iterate u.

    The iterate itself may be far from both sets.
    """

    def read(spectra: Spectra) -> Field:
        return constrain(to_object(data, impose_modulus(data, spectra)))

    return Method(begin=lambda start: to_sensor(data, start), step=step, read=read)
