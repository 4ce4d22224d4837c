"""Data consistency: error reduction (Gerchberg and Saxton, 1972; Fienup, 1982).

The spectral estimate uses only a part of a measurement: which sensor pixels are bright. Error
reduction uses all of it. It goes back and forth between the sensor, where the modulus is sqrt(y),
and the object, of which something is known too, such as that it is a pure phase object. A few steps
of it between spectral estimate and network keep the one shot and the one network pass.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.types import Field, Intensity, Masks, Transfer
from jax_kdpr.optics.cdp import (
    back_propagate,
    mask_power,
    mask_transmittance,
    propagate,
    sensor_oversample,
)
from jax_kdpr.optics.phase import fix_global_phase


def error_reduction(
    field: Field,
    intensity: Intensity,
    masks: Masks,
    *,
    transfer: Transfer | None = None,
    steps: int,
    scene: str,
    min_amplitude: float = 0.5,
) -> Field:
    """Moves a field towards one that fits both the measurement and what is known of the object.

    One step replaces the modulus at the sensor by sqrt(y), averages what the masks give back (the
    pseudo-inverse), and applies `object_constraint`. For "phase" and "complex"
    scenes, whose constraint is a projection, the distance to the data never grows. Differentiable
    in everything; a step's intermediates are made again in the backward pass, so that only one
    field a step is stored.

    Args:
        field: Where to start, in the unit of the object.
        intensity: CDPs y of one sample, in the squared unit of `field`; negative pixels count as 0.
        masks: Phases in radians, or transmittances.
        transfer: Of free space, for a sensor in the near field (`optics.cdp`).
        steps: How many steps; 0 returns `field`.
        scene: What is known: "phase", "amplitude" or "complex" (`optics.objects`).
        min_amplitude: Smallest amplitude of a "complex" scene.

    Raises:
        ValueError: If shapes do not belong together or `scene` is none of these.
    """
    sensor_oversample(intensity.shape, masks.shape)
    if steps == 0:
        return field
    # Smooth at zero: the square root of a dark pixel has no gradient.
    modulus = jnp.sqrt(jnp.maximum(intensity, 0.0) + 1e-12)
    transmittance = mask_transmittance(masks)

    @jax.checkpoint
    def step(measured, field: Field) -> Field:
        modulus, transmittance, transfer = measured
        spectra = modulus * phasor(propagate(field, transmittance, intensity.shape[1:], transfer))
        back = back_propagate(spectra, transmittance, transfer) / mask_power(transmittance)
        return object_constraint(back, scene=scene, min_amplitude=min_amplitude)

    measured = (modulus, transmittance, transfer)
    return lax.fori_loop(0, steps, lambda _, field: step(measured, field), field)


def object_constraint(field: Field, *, scene: str, min_amplitude: float = 0.5) -> Field:
    """Returns the nearest field that the object can have, for the global phase that it has.

    * "phase": modulus 1.
    * "amplitude": real and not negative, after the turn that makes the mean real and positive.
    * "complex": modulus in [min_amplitude, 1].

    Raises:
        ValueError: If `scene` is none of these.
    """
    match scene:
        case "phase":
            return phasor(field)
        case "amplitude":
            real = jnp.maximum(fix_global_phase(field, gauge="mean").real, 0.0)
            return lax.complex(real, jnp.zeros_like(real))
        case "complex":
            return jnp.clip(_modulus(field), min_amplitude, 1.0) * phasor(field)
    raise ValueError(f"scene: expected phase, amplitude or complex, got {scene!r}")


def phasor(field: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """Returns field / abs(field), finite and with a finite gradient where the field vanishes."""
    return field / _modulus(field)


def _modulus(field: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.sqrt(jnp.square(field.real) + jnp.square(field.imag) + 1e-12)
