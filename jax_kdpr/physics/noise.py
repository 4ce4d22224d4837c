"""Sensor noise omega of eq. 1. Every random draw takes an explicit key."""

import jax
import jax.numpy as jnp
from jax import lax

from jax_kdpr.types import Intensity, Key, Scalar


def gaussian_noise(key: Key, intensity: Intensity, *, snr_db: float | Scalar) -> Intensity:
    """Adds white Gaussian noise at a signal-to-noise ratio, snapshot by snapshot.

    The SNR of snapshot l is 10 log10(mean(y_l^2) / sigma_l^2), whatever the number of snapshots.
    Values are not clipped: a dark-corrected camera frame has negative pixels too. The noise level
    counts as a constant for gradients, so no mask is trained to look quieter than it is.

    Args:
        key: Random key.
        intensity: Noiseless CDPs.
        snr_db: Signal-to-noise ratio in decibel.
    """
    power = jnp.mean(jnp.square(intensity), axis=(1, 2), keepdims=True)
    sigma = jnp.sqrt(lax.stop_gradient(power) * 10.0 ** (-snr_db / 10.0))
    return intensity + sigma * jax.random.normal(key, intensity.shape, intensity.dtype)


def poisson_noise(key: Key, intensity: Intensity, *, photons: float | Scalar) -> Intensity:
    """Draws photon counts and scales them back to the unit of `intensity`.

    The exposure of each snapshot is set so that it collects `photons` photons in expectation,
    summed over its pixels; a pixel with expected count n then has signal-to-noise ratio sqrt(n).
    The draw itself has no gradient: the gradient passes straight through to the noiseless CDP.

    Args:
        key: Random key.
        intensity: Noiseless CDPs, not negative.
        photons: Expected number of photons in one snapshot (one camera frame).
    """
    total = jnp.sum(intensity, axis=(1, 2), keepdims=True)
    # An all-dark snapshot stays dark instead of dividing by zero.
    counts_per_unit = lax.stop_gradient(photons / jnp.where(total > 0, total, 1.0))
    counts = jax.random.poisson(key, lax.stop_gradient(intensity) * counts_per_unit)
    noisy = counts.astype(intensity.dtype) / counts_per_unit
    return intensity + lax.stop_gradient(noisy - intensity)


def add_noise(
    key: Key,
    intensity: Intensity,
    *,
    kind: str,
    snr_db: float | Scalar = 30.0,
    photons: float | Scalar = 1e6,
) -> Intensity:
    """Applies the noise model `kind`: "none", "gaussian" (reads `snr_db`) or "poisson" (`photons`).

    Raises:
        ValueError: If `kind` is none of these.
    """
    match kind:
        case "none":
            return intensity
        case "gaussian":
            return gaussian_noise(key, intensity, snr_db=snr_db)
        case "poisson":
            return poisson_noise(key, intensity, photons=photons)
    raise ValueError(f"noise: expected none, gaussian or poisson, got {kind!r}")
