"""CDPs in units of their maximum, as a `noise.kind`: other code of the paper's lab trains on it."""

import jax.numpy as jnp

from jax_kdpr.core.types import Intensity, Key
from jax_kdpr.optics.noise import NoiseOptions


def by_maximum(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Divides each shot by its brightest pixel, which gradients treat as a function of the shot."""
    return intensity / jnp.max(intensity, axis=(1, 2), keepdims=True)
