"""Free space between object, mask and sensor, and the geometry of a bench.

There are three cases. Each is a `Propagator`, whose `FreeSpace` enters the one operator of
`optics.cdp`:

* "far": a lens (or a long distance) puts the sensor plane into the far field. The sensor pixel is
  lambda f / (M p), with M the number of zero-padded pixels a side and p the pitch of the mask.
* "fresnel": a single Fresnel transform, for sensors farther away than N p^2 / lambda. It is a
  quadratic phase over the object plane and the far field's DFT. The sensor pixel is
  lambda z / (M p).
* "angular_spectrum": exact for the sampled scalar field, for sensors nearer than that. The sensor
  pixel is p. The field is periodic with the padded window: `oversample` 2 gives it room to spread.

In each case there may also be free space between object and mask (`gap`).

Lengths are in metres. Fields go as e^{+j k z} along z; a constant phase is left out. The axes of
the object plane are centred, as a lens would be.
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
from jax_kdpr.optics.cdp import as_phasors
from jax_kdpr.optics.paths import spread_pixels

GAP_PADDING = 2  # window that light spreads into before the mask, in sides of the object
SQUARES_DIFFER = 0.02  # in N p^2 / lambda: see `squares_note`
SHARED_ENVELOPE = 8  # in N p^2 / lambda; nearer, each square mask pixel has its own envelope


class FreeSpace(NamedTuple):
    """Free space of a bench; `chirp` and `transfer` are None in the far field."""

    chirp: Complex[Array, "h w"] | None = None  # multiplies the field behind the mask
    transfer: Transfer | None = None  # multiplies its DFT
    gap: Transfer | None = None  # from object to mask; None where they are in one plane

    def through(self, masks: Masks, *, fine: int = 1) -> Masks:
        """Returns masks that include the chirp; where there is one, they are phasors.

        `fine` is the number of mask samples per pixel of the object, each way.
        """
        if self.chirp is None:
            return masks
        return as_phasors(masks) * jnp.conj(spread_pixels(self.chirp, fine))[None]


@dataclasses.dataclass(frozen=True)
class Propagator:
    """One way of propagation from mask to sensor; `PropagationOptions` give its lengths."""

    space: Callable[[tuple[int, int], int, "PropagationOptions"], FreeSpace]
    """space((h, w), oversample, options) -> `FreeSpace`; options.wavelength may be traced."""
    sensor_pixel: Callable[[float, "PropagationOptions"], float]
    """sensor_pixel(zero-padded pixels a side, options) -> metres."""
    warnings: Callable[[int, float, "PropagationOptions"], list[str]] = lambda *_: []
    """warnings(pixels a side, oversample, options) -> warnings of too coarse sampling."""
    reads_lengths: bool = True
    keeps_pitch: bool = False
    """Whether samples have the mask's pitch and the axis in their middle, else at [0, 0]."""


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
        "path to the sensor: far has a lens, the others free space only",
        choices=PROPAGATORS,
    )
    wavelength: float = option(
        0.0,
        "needed in a near field or with a gap",
        unit="metres",
        within=LENGTHS["wavelength"],
    )
    pitch: float = option(
        0.0, "pixel pitch; needed as wavelength is", unit="metres", within=LENGTHS["pitch"]
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
        """Names of the lengths that are read and so must be known."""
        near = ("distance",) if self.propagator.reads_lengths else ()
        return ("wavelength", "pitch", *near) if near or self.gap else ()

    @property
    def propagator(self) -> Propagator:
        """Propagator of this kind."""
        return PROPAGATORS[self.kind]


def sampling_warnings(
    pixels: int, options: PropagationOptions, *, oversample: int | float = 1
) -> list[str]:
    """Returns warnings where sampling is too coarse for what the bench does; [] if nowhere.

    The chirp of "fresnel" must not change by more than pi between neighbours at the edge of the
    object plane (z >= N p^2 / lambda). Its square mask pixels need a longer distance
    (`shares_envelope`). The transfer function of "angular_spectrum" must not change by more than pi
    between neighbours at the edge of the band (z <= M p^2 / lambda for small angles).

    Args:
        pixels: N, the pixels of the longer side of the object plane.
        options: Kind and lengths.
        oversample: Zero padding, as in `optics.cdp`.
    """
    found = []
    if options.read_lengths and options.pitch < options.wavelength / 2:
        found.append(
            f"pitch {options.pitch:g} m is below half a wavelength: part of the spectrum is "
            "evanescent"
        )
    if options.gap:
        across = dataclasses.replace(options, distance=options.gap)
        remedy = "take a shorter gap or a larger pitch"
        found += [
            f"gap: {one}" for one in _angular_warnings(pixels, GAP_PADDING, across, remedy=remedy)
        ]
    return found + options.propagator.warnings(pixels, oversample, options)


def fresnel_chirp(shape: tuple[int, int], lengths: PropagationOptions) -> Complex[Array, "h w"]:
    """Returns e^{j pi r^2 / (lambda z)}, r the distance from the centre pixel [h // 2, w // 2].

    See Goodman, Introduction to Fourier Optics, eq. 4-17. The factors in front of its integral only
    scale the intensity, and the orthonormal DFT sets that scale.
    """
    curvature = math.pi / (lengths.wavelength * lengths.distance)
    return as_phasors(_squared_radius(shape, lengths.pitch) * curvature)


def quadratic_phase(shape: tuple[int, int]) -> Float[Array, "h w"]:
    """Returns r^2 about the centre pixel, 1 at half the longer side: a unit of defocus there."""
    return _squared_radius(shape, 2.0 / max(shape))


def angular_spectrum(shape: tuple[int, int], lengths: PropagationOptions) -> Transfer:
    """Returns the transfer function of free space at the DFT's frequencies, zero one at [0, 0].

    It is e^{j (k_z - k) z} for travelling waves and 0 for evanescent ones (pitch < lambda / 2). The
    adjoint is therefore exactly the propagation of the travelling waves by -z. k_z - k is computed
    without the difference of two large numbers.
    """
    fy = jnp.fft.fftfreq(shape[0], lengths.pitch)[:, None]
    fx = jnp.fft.fftfreq(shape[1], lengths.pitch)[None, :]
    sine_squared = lengths.wavelength**2 * (fy**2 + fx**2)
    travels = sine_squared < 1.0
    cosine = jnp.sqrt(jnp.where(travels, 1.0 - sine_squared, 1.0))
    phase = -2.0 * jnp.pi * lengths.distance / lengths.wavelength * sine_squared / (1.0 + cosine)
    return jnp.where(travels, as_phasors(phase), 0.0)


def gap_transfer(shape: tuple[int, int], lengths: PropagationOptions) -> Transfer:
    """Returns the transfer function from object to mask, for `GAP_PADDING` times their window."""
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
            "the Fresnel transform is sampled well enough; take a longer distance or, for a mask "
            "without square pixels, kind angular_spectrum"
        ]
    if not shares_envelope(pixels, lengths):
        return [
            f"distance {distance:g} m is below {SHARED_ENVELOPE} N p^2 / lambda = "
            f"{SHARED_ENVELOPE * nearest:.3g} m: frames of a mask with square pixels are "
            "another pattern than the model's; take a longer distance, or a lens (kind far)"
        ]
    return []


def _angular_warnings(
    pixels: int, oversample: int | float, lengths: PropagationOptions, *, remedy: str = ""
) -> list[str]:
    sine = min(lengths.wavelength / (2 * lengths.pitch), 1.0)
    farthest = oversample * pixels * lengths.pitch**2 / lengths.wavelength * math.sqrt(1 - sine**2)
    if lengths.distance <= farthest:
        return []
    otherwise = "take kind fresnel" + (", or oversample 2" if oversample < 2 else "")
    return [
        f"distance {lengths.distance:g} m is above M p^2 / lambda = {farthest:.3g} m, up to where "
        f"the angular spectrum is sampled well enough; {remedy or otherwise}"
    ]


def squares_note(pixels: int, lengths: PropagationOptions) -> str:
    """Returns a warning that frames of square mask pixels are not what the model has; else "".

    It is of "angular_spectrum", whose mask pixels are points. From `SQUARES_DIFFER` N p^2 / lambda
    on, the amplitudes are off by 27 to 42 % (tests/test_propagation.py). `shares_envelope` is of
    "fresnel".
    """
    nearest = pixels * lengths.pitch**2 / max(lengths.wavelength, 1e-30)
    if not lengths.propagator.keeps_pitch or lengths.distance < SQUARES_DIFFER * nearest:
        return ""
    return (
        "frames of a mask with square pixels are another pattern than the model's, by a third of "
        "the amplitudes: for such a mask take a lens, or kind fresnel and "
        f"{SHARED_ENVELOPE * nearest:.3g} m or more"
    )


def shares_envelope(pixels: int, lengths: PropagationOptions) -> bool:
    """Returns whether one envelope serves for all square mask pixels, as in the far field.

    The sinc envelope of a pixel is centred behind the pixel, not on the axis. One envelope for all
    pixels is wrong by 0.31 of the amplitudes (rms) at N p^2 / lambda, by 0.15 at twice that
    distance, and by 0.04 at `SHARED_ENVELOPE` times.

    Args:
        pixels: N, the pixels of the longer side of the object plane.
        lengths: Lengths of a bench without a lens between mask and sensor.
    """
    nearest = pixels * lengths.pitch**2 / lengths.wavelength
    return lengths.distance >= SHARED_ENVELOPE * nearest


def sensor_pixel(pixels: int, options: PropagationOptions, *, oversample: int | float = 1) -> float:
    """Returns the sensor pixel, in metres, that the operator's samples stand for.

    It is lambda z / (M p) in the far field, with z the focal length of the lens, and for "fresnel".
    For "angular_spectrum" it is the pitch itself.
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
    keeps_pitch=True,
)
