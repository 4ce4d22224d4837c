"""The global phase of a field, which no intensity determines: set alone, or by another field."""

import jax.numpy as jnp

from jax_kdpr.core.types import Field

GAUGES = ("start", "mean")


def fix_global_phase(field: Field, *, gauge: str) -> Field:
    """Sets the global phase: "start" leaves it unchanged, "mean" makes the mean real and positive.

    With "mean" the global phase of an estimate depends neither on that of the start vector nor on
    the number of iterations. A field of zero mean is left unchanged.

    Raises:
        ValueError: If `gauge` is neither of the two.
    """
    match gauge:
        case "start":
            return field
        case "mean":
            mean = jnp.mean(field)
            power = jnp.square(mean.real) + jnp.square(mean.imag)
            vanishes = power < jnp.finfo(power.dtype).tiny
            modulus = jnp.sqrt(jnp.where(vanishes, 1.0, power))
            return jnp.where(vanishes, 1.0, jnp.conj(mean) / modulus) * field
    raise ValueError(f"gauge: expected start or mean, got {gauge!r}")


def align_global_phase(estimate: Field, reference: Field) -> Field:
    """Returns e^{j t} * estimate with the real t that brings it closest to `reference`.

    In closed form, t is the angle of <estimate, reference>. Intensities do not determine the global
    phase, so a complex estimate must be aligned before it is compared.
    """
    overlap = jnp.sum(jnp.conj(estimate) * reference)  # stays in float32 on a GPU too
    modulus = jnp.abs(overlap)
    phasor = jnp.where(modulus > 0, overlap / jnp.where(modulus > 0, modulus, 1.0), 1.0)
    return phasor * estimate
