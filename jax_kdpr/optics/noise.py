"""Sensor noise omega of eq. 1; every random draw takes an explicit key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import Intensity, Key

BLACK_SIGMAS = 5.0  # of read noise between count 0 and black level: keeps its negative half
NODES = 1024  # quantiles of each noise that the mean of a dark frame is taken over


def no_noise(key: Key, intensity: Intensity, noise: "NoiseOptions") -> Intensity:
    """Leaves CDPs as they are."""
    return intensity


NOISES: Registry[Callable[[Key, Intensity, "NoiseOptions"], Intensity]] = Registry(
    "noise",
    {
        "none": no_noise,
        "gaussian": f"{__name__}:gaussian_noise",
        "poisson": f"{__name__}:poisson_noise",
        "camera": f"{__name__}:camera_frame",
    },
)
OF_CAMERA = ("noise.kind", ("camera",))


@section
class NoiseOptions:
    """Sensor noise, in training and evaluation alike."""

    kind: str = option("none", "model of the sensor", choices=NOISES)
    snr_db: float = option(
        30.0,
        "signal-to-noise ratio of each snapshot",
        unit="dB",
        within=Range(-100, 300),
        when=("noise.kind", ("gaussian",)),
    )
    photons: float = option(
        1e6,
        "expected in a snapshot",
        unit="photoelectrons",
        within=Range(1, 2e9),  # drawn as 32-bit integers
        when=("noise.kind", ("poisson", "camera")),
    )
    read_noise: float = option(
        2.0,
        "standard deviation of reading a model sample",
        unit="electrons",
        within=Range(0, 1e9),
        when=OF_CAMERA,
    )
    dark: float = option(
        0.0,
        "dark current of a model sample and frame",
        unit="electrons",
        within=Range(0, 1e9),
        when=OF_CAMERA,
    )
    full_well: float = option(
        1e4,
        "full-well capacity of a model sample",
        unit="electrons",
        within=Range(0, 1e9, "(]"),
        when=OF_CAMERA,
    )
    bits: int = option(12, "of the converter", unit="bits", within=Range(1, 16), when=OF_CAMERA)


def gaussian_noise(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Adds white Gaussian noise at a signal-to-noise ratio, snapshot by snapshot.

    The SNR of snapshot l is 10 log10(mean(y_l^2) / sigma_l^2), whatever the number of snapshots.
    Values are not clipped: a dark-corrected camera frame has negative pixels too. The noise level
    counts as a constant for gradients, so no mask is trained to look quieter than it is.

    Args:
        key: Random key.
        intensity: Noiseless CDPs.
        noise: Options, of which `snr_db` is read.
    """
    power = jnp.mean(jnp.square(intensity), axis=(1, 2), keepdims=True)
    sigma = jnp.sqrt(lax.stop_gradient(power) * 10.0 ** (-noise.snr_db / 10.0))
    return intensity + sigma * jax.random.normal(key, intensity.shape, intensity.dtype)


def poisson_noise(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Draws photon counts and scales them back to the unit of `intensity`.

    The exposure of each snapshot is set so that it collects `photons` photons in expectation,
    summed over its pixels; a pixel with expected count n then has signal-to-noise ratio sqrt(n).
    The draw itself has no gradient: the gradient passes straight through to the noiseless CDP.

    Args:
        key: Random key.
        intensity: Noiseless CDPs, not negative.
        noise: Options, of which `photons` is read: the photons of one camera frame.
    """
    total = jnp.sum(intensity, axis=(1, 2), keepdims=True)
    # An all-dark snapshot stays dark instead of dividing by zero.
    counts_per_unit = lax.stop_gradient(noise.photons / jnp.where(total > 0, total, 1.0))
    counts = jax.random.poisson(key, lax.stop_gradient(intensity) * counts_per_unit)
    noisy = counts.astype(intensity.dtype) / counts_per_unit
    return intensity + lax.stop_gradient(noisy - intensity)


def camera_frame(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Takes each snapshot with a camera and undoes what a user would undo: dark frame and gain.

    Photoelectrons and dark electrons are Poisson, read noise is normal. What exceeds the full well
    is lost. The `bits` bits of the converter span from count 0 to the full well; the black level
    lies above count 0 by `BLACK_SIGMAS` of the read noise. What is subtracted is the mean of a dark
    frame as converted (`dark_counts`), because few bits round it, and the black level with it. The
    exposure is that of `poisson_noise`. Gradients pass straight through to the noiseless CDP,
    except at saturated pixels, which have none: more light would not change what they show.

    Args:
        key: Random key.
        intensity: Noiseless CDPs, not negative.
        noise: Options, of which all numbers except `snr_db` are read.
    """
    shot_key, read_key = jax.random.split(key)
    total = jnp.sum(intensity, axis=(1, 2), keepdims=True)
    counts_per_unit = lax.stop_gradient(noise.photons / jnp.where(total > 0, total, 1.0))
    expected = lax.stop_gradient(intensity) * counts_per_unit + noise.dark
    electrons = jax.random.poisson(shot_key, expected).astype(intensity.dtype)
    electrons += noise.read_noise * jax.random.normal(read_key, intensity.shape, intensity.dtype)
    counts = _converted(electrons, noise)
    light = counts - dark_counts(noise)
    seen = light * _step(noise) / counts_per_unit
    follows = jnp.where(counts < 2**noise.bits - 1, intensity, lax.stop_gradient(intensity))
    return lax.stop_gradient(seen) + (follows - lax.stop_gradient(follows))


def dark_counts(noise: NoiseOptions) -> float:
    """Returns the mean of a dark frame of `camera_frame`, in counts.

    It is the black level plus the dark electrons where the read noise spreads over several counts.
    It is another number where all values round to one count.
    """
    share = (np.arange(NODES) + 0.5) / NODES
    thermal = np.ceil(special.pdtrik(share, noise.dark)) if noise.dark else np.zeros(1)
    electrons = thermal[:, None] + noise.read_noise * special.ndtri(share)
    return float(_converted(electrons, noise).mean())


def _step(noise: NoiseOptions) -> float:
    """Returns the electrons of one count."""
    return (noise.full_well + BLACK_SIGMAS * noise.read_noise) / (2**noise.bits - 1)


def _converted(electrons, noise: NoiseOptions):
    """Returns the counts of electrons, given as an array of NumPy or JAX."""
    black = BLACK_SIGMAS * noise.read_noise
    return ((electrons + black).clip(0.0, noise.full_well + black) / _step(noise)).round()


def add_noise(key: Key, intensity: Intensity, noise: NoiseOptions) -> Intensity:
    """Applies the noise of `noise.kind`."""
    return NOISES[noise.kind](key, intensity, noise)
