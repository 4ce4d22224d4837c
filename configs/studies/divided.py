"""CDPs in units of their maximum, as `noise.kind`: what other code of the paper's lab trains on."""

import jax.numpy as jnp

from jax_kdpr.core.types import Intensity, Key
from jax_kdpr.optics.noise import NoiseOptions


def by_maximum(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Divides each shot by its brightest pixel; for gradients that is a number of the shot's."""
    return intensity / jnp.max(intensity, axis=(1, 2), keepdims=True)
