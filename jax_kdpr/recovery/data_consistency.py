"""Data consistency: error reduction (Gerchberg and Saxton, 1972; Fienup, 1982).

The spectral estimate uses only a part of a measurement: which sensor pixels are bright. Error
reduction uses all of it. It goes back and forth between the sensor, where the modulus is sqrt(y),
and the object, of which something is known too, such as that it is a pure phase object. A few steps
between spectral estimate and network need no second shot and no second pass of the network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.types import Field, Intensity, Spectra
from jax_kdpr.optics.cdp import (
    Optics,
    as_phasors,
    back_propagate,
    check_sensor,
    propagate,
    step_power,
)
from jax_kdpr.optics.objects import SceneOptions, unknown_scene
from jax_kdpr.optics.paths import LightPath, is_unitary
from jax_kdpr.optics.phase import fix_global_phase


class Measured(NamedTuple):
    """One measurement and the operator that made it."""

    modulus: Intensity  # sqrt(y)
    phasors: Complex[Array, "k mh mw"]
    power: Float[Array, "h w"]  # that a step is divided by (`step_power`)
    path: LightPath | None


def measured(intensity: Intensity, optics: Optics) -> Measured:
    """Prepares the CDPs of one sample; negative pixels count as 0.

    Raises:
        ValueError: If shapes do not belong together.
    """
    check_sensor(intensity.shape, optics.masks.shape, optics.path)
    phasors = as_phasors(optics.masks)
    # The added 1e-12 keeps the gradient of the square root finite at dark pixels.
    modulus = jnp.sqrt(jnp.maximum(intensity, 0.0) + 1e-12)
    power = step_power(phasors, optics.path)
    return Measured(modulus, phasors, power, optics.path)


def to_sensor(data: Measured, field: Field) -> Spectra:
    """Returns A x."""
    return propagate(field, data.phasors, data.modulus.shape[1:], data.path)


def to_object(data: Measured, spectra: Spectra) -> Field:
    """Returns A^+ u, the least-squares object of sensor fields."""
    return back_propagate(spectra, data.phasors, data.path) / data.power


def impose_modulus(data: Measured, spectra: Spectra) -> Spectra:
    """Returns P_M u, the nearest sensor fields of the measured modulus."""
    return data.modulus * phasor(spectra)


def fit_to_data(data: Measured, field: Field) -> Field:
    """Returns A^+ P_M A x: one half of error reduction; the other is `object_constraint`.

    Where light is lost to a camera window or beside the mask, the unseen part of x must not change.
    The result there is x + A^+ (P_M A x - A x), which is the same where A^+ A x = x.
    """
    spectra = to_sensor(data, field)
    if not is_unitary(data.path):
        return field + to_object(data, impose_modulus(data, spectra) - spectra)
    return to_object(data, impose_modulus(data, spectra))


def error_reduction(
    field: Field, intensity: Intensity, optics: Optics, *, steps: int, scene: SceneOptions
) -> Field:
    """Moves a field towards one that fits both the measurement and what is known of the object.

    One step replaces the modulus at the sensor by sqrt(y), averages over the masks (the
    pseudo-inverse), and applies `object_constraint`. For "phase" and "complex" scenes, whose
    constraint is a projection, the distance to the data never grows. The result is differentiable
    in all arguments that are arrays. The backward pass recomputes the intermediates of a step, so
    that only one field a step is stored.

    Args:
        field: Where to start, in the unit of the object.
        intensity: CDPs y of one sample, in the squared unit of `field`; negative pixels count as 0.
        optics: Optics of the measurement.
        steps: How many steps; 0 returns `field`.
        scene: What is known of the object.

    Raises:
        ValueError: If shapes do not belong together.
    """
    data = measured(intensity, optics)
    kind, floor = scene.kind, scene.min_amplitude

    @jax.checkpoint
    def step(data: Measured, field: Field) -> Field:
        return object_constraint(fit_to_data(data, field), scene=kind, min_amplitude=floor)

    return lax.fori_loop(0, steps, lambda _, field: step(data, field), field)


def object_constraint(field: Field, *, scene: str, min_amplitude: float = 0.5) -> Field:
    """Returns the nearest field that the object can have, at the global phase of `field`.

    * "phase": modulus 1.
    * "amplitude": real and not negative, after the global phase is set to make the mean real and
      positive.
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
    raise unknown_scene(scene)


def phasor(field: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """Returns field / abs(field), finite and with a finite gradient where the field vanishes."""
    return field / _modulus(field)


def _modulus(field: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.sqrt(jnp.square(field.real) + jnp.square(field.imag) + 1e-12)
