"""Free space between object, mask and sensor, and the geometry of a bench.

Three cases, each a `Propagator`, which `FreeSpace` puts into the one operator of `optics.cdp`:

* "far": a lens (or a long distance) makes the sensor plane the far field. Sensor pixel
  lambda f / (M p), with M the zero-padded pixels a side and p the pitch of the mask.
* "fresnel": a single Fresnel transform, for sensors farther away than N p^2 / lambda. A quadratic
  phase over the object plane, then the far field's DFT; sensor pixel lambda z / (M p).
* "angular_spectrum": exact for the sampled scalar field, for sensors nearer than that. Sensor pixel
  p. The field is periodic with the padded window: `oversample` 2 gives it room to spread.

Between object and mask there may be some too (`gap`), whatever follows.

Lengths in metres. Fields go as e^{+j k z} along z; a constant phase is left out. The object plane's
axes are centred, as a lens would be.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.limits import LENGTHS
from jax_kdpr.core.options import changed, option, section
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import Masks, Transfer
from jax_kdpr.optics.cdp import mask_transmittance
from jax_kdpr.optics.paths import spread_pixels

GAP_PADDING = 2  # windows of the object that its light may spread over before the mask
SHARED_ENVELOPE = 8  # times N p^2 / lambda: nearer, each square mask pixel has its own envelope


class FreeSpace(NamedTuple):
    """What lies between masks and DFT, and behind it; both None in the far field."""

    chirp: Complex[Array, "h w"] | None = None  # multiplies the field behind the mask
    transfer: Transfer | None = None
    gap: Transfer | None = None  # from object to mask; None where they are in one plane

    def through(self, masks: Masks, *, fine: int = 1) -> Masks:
        """Returns masks that include the chirp, as transmittances if there is one.

        `fine`: samples of them to a pixel of the object.
        """
        if self.chirp is None:
            return masks
        return mask_transmittance(masks) * jnp.conj(spread_pixels(self.chirp, fine))[None]


@dataclasses.dataclass(frozen=True)
class Propagator:
    """One way from mask to sensor. Its functions take the lengths from `PropagationOptions`."""

    space: Callable[[tuple[int, int], int, "PropagationOptions"], FreeSpace]
    """space((h, w), oversample, options) -> what is between; its wavelength may be traced."""
    sensor_pixel: Callable[[float, "PropagationOptions"], float]
    """sensor_pixel(zero-padded pixels a side, options) -> metres."""
    warnings: Callable[[int, float, "PropagationOptions"], list[str]] = lambda *_: []
    """warnings(pixels a side, oversample, options) -> where it is sampled too coarsely."""
    reads_lengths: bool = True
    axis_in_middle: bool = False  # of its CDPs, else at [0, 0]


PROPAGATORS: Registry[Propagator] = Registry(
    "propagation",
    {
        "far": f"{__name__}:FAR",
        "fresnel": f"{__name__}:FRESNEL",
        "angular_spectrum": f"{__name__}:ANGULAR_SPECTRUM",
    },
)
NEAR_FIELD = ("propagation.kind", ("fresnel", "angular_spectrum"))


@section
class PropagationOptions:
    """What lies between mask and sensor: `optics.propagation`."""

    kind: str = option(
        "far",
        "to the sensor: far through a lens, the others through free space",
        choices=PROPAGATORS,
    )
    wavelength: float = option(
        0.0,
        "of the light; of a near field, or with a gap",
        unit="metres",
        within=LENGTHS["wavelength"],
    )
    pitch: float = option(
        0.0, "of mask and object pixels; likewise", unit="metres", within=LENGTHS["pitch"]
    )
    distance: float = option(
        0.0,
        "from mask to sensor",
        unit="metres",
        within=LENGTHS["distance"],
        when=NEAR_FIELD,
    )
    gap: float = option(
        0.0,
        "from object to mask; 0: in one plane, or imaged onto each other",
        unit="metres",
        within=LENGTHS["distance"],
    )

    @property
    def read_lengths(self) -> tuple[str, ...]:
        """Which of its lengths are read, and so must be known."""
        near = ("distance",) if self.propagator.reads_lengths else ()
        return ("wavelength", "pitch", *near) if near or self.gap else ()

    @property
    def propagator(self) -> Propagator:
        """Of its kind."""
        return PROPAGATORS[self.kind]


def sampling_warnings(
    pixels: int, options: PropagationOptions, *, oversample: int | float = 1
) -> list[str]:
    """Says where a propagation is sampled too coarsely to be what the bench does; [] if nowhere.

    The chirp of "fresnel" must not turn by more than pi between neighbours at the edge of the
    object plane (z >= N p^2 / lambda), its square mask pixels want more (`shares_envelope`), nor
    must the transfer function of "angular_spectrum" at the edge
    of the band (z <= M p^2 / lambda for small angles).

    Args:
        pixels: N, of the longer side of the object plane.
        options: Kind and lengths.
        oversample: Zero padding, as of `optics.cdp`.
    """
    found = []
    if options.read_lengths and options.pitch < options.wavelength / 2:
        found.append(
            f"pitch {options.pitch:g} m is below half a wavelength: part of the spectrum is "
            "evanescent"
        )
    if options.gap:
        across = dataclasses.replace(options, distance=options.gap)
        found += [f"gap: {one}" for one in _angular_warnings(pixels, GAP_PADDING, across)]
    return found + options.propagator.warnings(pixels, oversample, options)


def fresnel_chirp(shape: tuple[int, int], lengths: PropagationOptions) -> Complex[Array, "h w"]:
    """Returns e^{j pi r^2 / (lambda z)} with r from the centre pixel, [h // 2, w // 2].

    Goodman, Introduction to Fourier Optics, eq. 4-17; its factors outside the integral have no
    effect on the intensity but for a scale, which the orthonormal DFT settles.
    """
    curvature = math.pi / (lengths.wavelength * lengths.distance)
    return mask_transmittance(_squared_radius(shape, lengths.pitch) * curvature)


def quadratic_phase(shape: tuple[int, int]) -> Float[Array, "h w"]:
    """Returns r^2 from the centre pixel, 1 at half the longer side: a defocus of one unit there."""
    return _squared_radius(shape, 2.0 / max(shape))


def angular_spectrum(shape: tuple[int, int], lengths: PropagationOptions) -> Transfer:
    """Returns the transfer function of free space on the DFT's frequencies, [0, 0] the zero one.

    e^{j (k_z - k) z} for travelling waves and 0 for evanescent ones (pitch < lambda / 2), so the
    adjoint is exact: propagation by -z of what travels. k_z - k is computed without the difference
    of two large numbers.
    """
    fy = jnp.fft.fftfreq(shape[0], lengths.pitch)[:, None]
    fx = jnp.fft.fftfreq(shape[1], lengths.pitch)[None, :]
    sine_squared = lengths.wavelength**2 * (fy**2 + fx**2)
    travels = sine_squared < 1.0
    cosine = jnp.sqrt(jnp.where(travels, 1.0 - sine_squared, 1.0))
    phase = -2.0 * jnp.pi * lengths.distance / lengths.wavelength * sine_squared / (1.0 + cosine)
    return jnp.where(travels, mask_transmittance(phase), 0.0)


def gap_transfer(shape: tuple[int, int], lengths: PropagationOptions) -> Transfer:
    """Returns the transfer function from object to mask, on `GAP_PADDING` times their window."""
    padded = (GAP_PADDING * shape[0], GAP_PADDING * shape[1])
    return angular_spectrum(padded, changed(lengths, distance=lengths.gap))


def _fresnel_warnings(
    pixels: int, oversample: int | float, lengths: PropagationOptions
) -> list[str]:
    distance = lengths.distance
    nearest = pixels * lengths.pitch**2 / lengths.wavelength
    if distance < nearest:
        return [
            f"distance {distance:g} m is below N p^2 / lambda = {nearest:.3g} m, from where "
            "the Fresnel transform is sampled well enough; take kind angular_spectrum"
        ]
    if not shares_envelope(pixels, lengths):
        return [
            f"distance {distance:g} m is below {SHARED_ENVELOPE} N p^2 / lambda = "
            f"{SHARED_ENVELOPE * nearest:.3g} m: frames of a mask with square pixels are "
            "another pattern than the model's; take a longer distance, or a lens (kind far)"
        ]
    return []


def _angular_warnings(
    pixels: int, oversample: int | float, lengths: PropagationOptions
) -> list[str]:
    sine = min(lengths.wavelength / (2 * lengths.pitch), 1.0)
    farthest = oversample * pixels * lengths.pitch**2 / lengths.wavelength * math.sqrt(1 - sine**2)
    if lengths.distance <= farthest:
        return []
    return [
        f"distance {lengths.distance:g} m is above M p^2 / lambda = {farthest:.3g} m, up to where "
        "the angular spectrum is sampled well enough; take kind fresnel, or oversample 2"
    ]


def shares_envelope(pixels: int, lengths: PropagationOptions) -> bool:
    """Returns whether one envelope does for all square mask pixels, as in the far field.

    A pixel's sinc is centred behind the pixel, and not on the axis. One for all is wrong by 0.31 of
    the amplitudes (rms) at N p^2 / lambda, 0.15 at twice that, and 0.04 at `SHARED_ENVELOPE` times.

    Args:
        pixels: N, of the longer side of the object plane.
        lengths: With no lens between mask and sensor.
    """
    nearest = pixels * lengths.pitch**2 / lengths.wavelength
    return lengths.distance >= SHARED_ENVELOPE * nearest


def sensor_pixel(pixels: int, options: PropagationOptions, *, oversample: int | float = 1) -> float:
    """Returns the sensor pixel, in metres, that the operator's samples stand for.

    lambda z / (M p) in the far field, with z the focal length of the lens, and for "fresnel"; the
    pitch itself for "angular_spectrum".
    """
    return options.propagator.sensor_pixel(oversample * pixels, options)


def _transformed_pixel(padded: int | float, lengths: PropagationOptions) -> float:
    return lengths.wavelength * lengths.distance / (padded * lengths.pitch)


def _squared_radius(shape: tuple[int, int], pitch: float) -> Float[Array, "h w"]:
    y = (jnp.arange(shape[0]) - shape[0] // 2)[:, None] * pitch
    x = (jnp.arange(shape[1]) - shape[1] // 2)[None, :] * pitch
    return y**2 + x**2


FAR = Propagator(
    space=lambda shape, oversample, lengths: FreeSpace(),
    sensor_pixel=_transformed_pixel,
    reads_lengths=False,
)
FRESNEL = Propagator(
    space=lambda shape, oversample, lengths: FreeSpace(chirp=fresnel_chirp(shape, lengths)),
    sensor_pixel=_transformed_pixel,
    warnings=_fresnel_warnings,
)
ANGULAR_SPECTRUM = Propagator(
    space=lambda shape, oversample, lengths: FreeSpace(
        transfer=angular_spectrum((oversample * shape[0], oversample * shape[1]), lengths)
    ),
    sensor_pixel=lambda padded, lengths: lengths.pitch,
    warnings=_angular_warnings,
    axis_in_middle=True,
)
