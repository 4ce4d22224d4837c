"""Free space between mask and sensor, and the geometry of a bench.

Three cases, which `Propagation` puts into the one operator of `optics.cdp`:

* "far": a lens (or a long distance) makes the sensor plane the far field. Sensor pixel
  lambda f / (M p), with M the zero-padded pixels a side and p the pitch of the mask.
* "fresnel": a single Fresnel transform, for sensors farther away than N p^2 / lambda. A quadratic
  phase over the object plane, then the far field's DFT; sensor pixel lambda z / (M p).
* "angular_spectrum": exact for the sampled scalar field, for sensors nearer than that. Sensor pixel
  p. The field is periodic with the padded window: `oversample` 2 gives it room to spread.

Lengths in metres. Fields go as e^{+j k z} along z; a constant phase is left out. The object plane's
axes are centred, as a lens would be.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.types import Masks, Scalar, Transfer
from jax_kdpr.optics.cdp import mask_transmittance

SHARED_ENVELOPE = 8  # times N p^2 / lambda: nearer, each square mask pixel has its own envelope


class Propagation(NamedTuple):
    """What lies between masks and DFT, and behind it; both None in the far field."""

    chirp: Complex[Array, "h w"] | None = None  # multiplies the field behind the mask
    transfer: Transfer | None = None

    def through(self, masks: Masks) -> Masks:
        """Returns masks that include the chirp, as transmittances if there is one."""
        if self.chirp is None:
            return masks
        return mask_transmittance(masks) * jnp.conj(self.chirp)[None]


def make_propagation(
    shape: tuple[int, int],
    *,
    kind: str = "far",
    oversample: int = 1,
    wavelength: float | Scalar = 0.0,
    pitch: float = 0.0,
    distance: float = 0.0,
) -> Propagation:
    """Builds the propagation of an object plane [h w]; "far" reads no length.

    Args:
        shape: (h, w).
        kind: "far", "fresnel" or "angular_spectrum".
        oversample: Zero padding, as of `optics.cdp`.
        wavelength: Metres.
        pitch: Of object and mask pixels, metres.
        distance: From mask to sensor, metres.

    Raises:
        ValueError: If `kind` is none of these.
    """
    lengths = {"wavelength": wavelength, "pitch": pitch, "distance": distance}
    match kind:
        case "far":
            return Propagation()
        case "fresnel":
            return Propagation(chirp=fresnel_chirp(shape, **lengths))
        case "angular_spectrum":
            height, width = shape
            padded = (oversample * height, oversample * width)
            return Propagation(transfer=angular_spectrum(padded, **lengths))
    raise ValueError(f"propagation: expected far, fresnel or angular_spectrum, got {kind!r}")


def fresnel_chirp(
    shape: tuple[int, int], *, wavelength: float | Scalar, pitch: float, distance: float
) -> Complex[Array, "h w"]:
    """Returns e^{j pi r^2 / (lambda z)} with r from the centre pixel, [h // 2, w // 2].

    Goodman, Introduction to Fourier Optics, eq. 4-17; its factors outside the integral have no
    effect on the intensity but for a scale, which the orthonormal DFT settles.
    """
    return mask_transmittance(_squared_radius(shape, pitch) * (math.pi / (wavelength * distance)))


def quadratic_phase(shape: tuple[int, int]) -> Float[Array, "h w"]:
    """Returns r^2 from the centre pixel, 1 at half the longer side: a defocus of one unit there."""
    return _squared_radius(shape, 2.0 / max(shape))


def angular_spectrum(
    shape: tuple[int, int], *, wavelength: float | Scalar, pitch: float, distance: float
) -> Transfer:
    """Returns the transfer function of free space on the DFT's frequencies, [0, 0] the zero one.

    e^{j (k_z - k) z} for travelling waves and 0 for evanescent ones (pitch < lambda / 2), so the
    adjoint is exact: propagation by -z of what travels. k_z - k is computed without the difference
    of two large numbers.
    """
    fy = jnp.fft.fftfreq(shape[0], pitch)[:, None]
    fx = jnp.fft.fftfreq(shape[1], pitch)[None, :]
    sine_squared = wavelength**2 * (fy**2 + fx**2)
    travels = sine_squared < 1.0
    cosine = jnp.sqrt(jnp.where(travels, 1.0 - sine_squared, 1.0))
    phase = -2.0 * jnp.pi * distance / wavelength * sine_squared / (1.0 + cosine)
    return jnp.where(travels, mask_transmittance(phase), 0.0)


def sampling_warnings(
    pixels: int,
    *,
    kind: str,
    oversample: int = 1,
    wavelength: float = 0.0,
    pitch: float = 0.0,
    distance: float = 0.0,
) -> list[str]:
    """Says where a propagation is sampled too coarsely to be what the bench does; [] if nowhere.

    The chirp of "fresnel" must not turn by more than pi between neighbours at the edge of the
    object plane (z >= N p^2 / lambda), its square mask pixels want more (`shares_envelope`), nor
    must the transfer function of "angular_spectrum" at the edge
    of the band (z <= M p^2 / lambda for small angles).

    Args:
        pixels: N, of the longer side of the object plane.
        kind: As of `make_propagation`, with its other arguments.
    """
    if kind == "far":
        return []
    found = []
    if pitch < wavelength / 2:
        found.append(
            f"pitch {pitch:g} m is below half a wavelength: part of the spectrum is evanescent"
        )
    if kind == "fresnel":
        nearest = pixels * pitch**2 / wavelength
        if distance < nearest:
            found.append(
                f"distance {distance:g} m is below N p^2 / lambda = {nearest:.3g} m, from where "
                "the Fresnel transform is sampled well enough; take kind angular_spectrum"
            )
        elif not shares_envelope(pixels, wavelength=wavelength, pitch=pitch, distance=distance):
            found.append(
                f"distance {distance:g} m is below {SHARED_ENVELOPE} N p^2 / lambda = "
                f"{SHARED_ENVELOPE * nearest:.3g} m: frames of a mask with square pixels are "
                "another pattern than the model's; take a longer distance, or a lens (kind far)"
            )
        return found
    sine = min(wavelength / (2 * pitch), 1.0)
    farthest = oversample * pixels * pitch**2 / wavelength * math.sqrt(1 - sine**2)
    if distance > farthest:
        found.append(
            f"distance {distance:g} m is above M p^2 / lambda = {farthest:.3g} m, up to where the "
            "angular spectrum is sampled well enough; take kind fresnel, or oversample 2"
        )
    return found


def shares_envelope(pixels: int, *, wavelength: float, pitch: float, distance: float) -> bool:
    """Returns whether one envelope does for all square mask pixels, as in the far field.

    A pixel's sinc is centred behind the pixel, and not on the axis. One for all is wrong by 0.31 of
    the amplitudes (rms) at N p^2 / lambda, 0.15 at twice that, and 0.04 at `SHARED_ENVELOPE` times.

    Args:
        pixels: N, of the longer side of the object plane.
        wavelength: Metres, as the other lengths.
        pitch: Of the mask.
        distance: From mask to sensor, with no lens between.
    """
    return distance >= SHARED_ENVELOPE * pixels * pitch**2 / wavelength


def sensor_pixel(
    pixels: int,
    *,
    kind: str = "far",
    oversample: int = 1,
    wavelength: float,
    pitch: float,
    distance: float,
) -> float:
    """Returns the sensor pixel, in metres, that the operator's samples stand for.

    lambda z / (M p) in the far field, with z the focal length of the lens, and for "fresnel"; the
    pitch itself for "angular_spectrum".
    """
    if kind == "angular_spectrum":
        return pitch
    return wavelength * distance / (oversample * pixels * pitch)


def _squared_radius(shape: tuple[int, int], pitch: float) -> Float[Array, "h w"]:
    y = (jnp.arange(shape[0]) - shape[0] // 2)[:, None] * pitch
    x = (jnp.arange(shape[1]) - shape[1] // 2)[None, :] * pitch
    return y**2 + x**2
