"""Sensor noise omega of eq. 1. Every random draw takes an explicit key."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

from jax_kdpr.core.types import Intensity, Key, Scalar

BLACK_SIGMAS = 5.0  # of the read noise below the black level, so that its negative half survives
NODES = 1024  # quantiles of either noise that the mean of a dark frame is taken over


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


def camera_frame(
    key: Key,
    intensity: Intensity,
    *,
    photons: float | Scalar,
    read_noise: float,
    dark: float,
    full_well: float,
    bits: int,
) -> Intensity:
    """Takes each snapshot with a camera and undoes what a user would undo: dark frame and gain.

    Photoelectrons and dark electrons are Poisson, read noise is normal; what exceeds the full well
    is lost; a converter of `bits` bits spans from the black level to the full well. The black level
    leaves room for `BLACK_SIGMAS` of the read noise. What is subtracted is the mean of a dark frame
    (`dark_counts`), as converted: few bits round it, and the black level with it.
    The exposure is that of `poisson_noise`. Gradients pass straight through to the noiseless CDP,
    but for saturated pixels, which have none: more light would not change what they show.

    Args:
        key: Random key.
        intensity: Noiseless CDPs, not negative.
        photons: Expected photoelectrons in one snapshot, summed over its pixels.
        read_noise: Standard deviation, electrons.
        dark: Expected dark electrons of a pixel and frame.
        full_well: Electrons that a pixel holds.
        bits: Of the analogue-to-digital converter.
    """
    shot_key, read_key = jax.random.split(key)
    total = jnp.sum(intensity, axis=(1, 2), keepdims=True)
    counts_per_unit = lax.stop_gradient(photons / jnp.where(total > 0, total, 1.0))
    expected = lax.stop_gradient(intensity) * counts_per_unit + dark
    electrons = jax.random.poisson(shot_key, expected).astype(intensity.dtype)
    electrons += read_noise * jax.random.normal(read_key, intensity.shape, intensity.dtype)
    converter = {"read_noise": read_noise, "full_well": full_well, "bits": bits}
    counts = _converted(electrons, **converter)
    light = counts - dark_counts(dark=dark, **converter)
    seen = light * _step(**converter) / counts_per_unit
    follows = jnp.where(counts < 2**bits - 1, intensity, lax.stop_gradient(intensity))
    return lax.stop_gradient(seen) + (follows - lax.stop_gradient(follows))


def dark_counts(*, read_noise: float, dark: float, full_well: float, bits: int) -> float:
    """Returns the mean of a dark frame of `camera_frame`, counts; arguments as there.

    It is the black level and the dark electrons where the read noise spreads over some counts, and
    another number where all of them round to one.
    """
    share = (np.arange(NODES) + 0.5) / NODES
    thermal = np.ceil(special.pdtrik(share, dark)) if dark else np.zeros(1)
    electrons = thermal[:, None] + read_noise * special.ndtri(share)
    counts = _converted(electrons, read_noise=read_noise, full_well=full_well, bits=bits)
    return float(counts.mean())


def _step(*, read_noise: float, full_well: float, bits: int) -> float:
    """Electrons of one count."""
    return (full_well + BLACK_SIGMAS * read_noise) / (2**bits - 1)


def _converted(electrons, *, read_noise: float, full_well: float, bits: int):
    """Counts of electrons, an array of NumPy or JAX."""
    black = BLACK_SIGMAS * read_noise
    step = _step(read_noise=read_noise, full_well=full_well, bits=bits)
    return ((electrons + black).clip(0.0, full_well + black) / step).round()


def add_noise(
    key: Key,
    intensity: Intensity,
    *,
    kind: str,
    snr_db: float | Scalar = 30.0,
    photons: float | Scalar = 1e6,
    read_noise: float = 2.0,
    dark: float = 0.0,
    full_well: float = 1e4,
    bits: int = 12,
) -> Intensity:
    """Applies the noise model `kind`: each reads its own options.

    "none"; "gaussian" reads `snr_db`; "poisson" `photons`; "camera" all but `snr_db`.

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
        case "camera":
            return camera_frame(
                key,
                intensity,
                photons=photons,
                read_noise=read_noise,
                dark=dark,
                full_well=full_well,
                bits=bits,
            )
    raise ValueError(f"noise: expected none, gaussian, poisson or camera, got {kind!r}")
