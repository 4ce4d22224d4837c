"""Errors of a bench: place of the mask, wavelength, phase scale, beam and wavefront.

A `Perturbation` says by how much one bench differs from the design; `draw` makes one at random.
`displaced_masks` and `aberrated_field` apply it. The recovery does not know it and assumes the
design.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.limits import SHARE, Range
from jax_kdpr.core.options import option, section, shallow
from jax_kdpr.core.types import Field, Key, Masks, Scalar
from jax_kdpr.optics.cdp import as_phasors
from jax_kdpr.optics.paths import spread_pixels
from jax_kdpr.optics.propagation import quadratic_phase
from jax_kdpr.optics.zernike import ROUND_OBJECT, zernike


class Perturbation(NamedTuple):
    """How one bench differs from the design; zero everywhere for the design itself."""

    shift_y: Scalar | float = 0.0  # shift of the mask over the object, mask pixels
    shift_x: Scalar | float = 0.0
    rotation: Scalar | float = (
        0.0  # of the mask about its centre, degrees, counter-clockwise with row 0 on top
    )
    scale: Scalar | float = 0.0  # magnification of the mask - 1
    defocus: Scalar | float = 0.0  # waves at half the object's side
    wavelength: Scalar | float = 0.0  # ratio to the design's - 1
    gain: Scalar | float = 0.0  # factor on the device's phases - 1
    beam_y: Scalar | float = 0.0  # shift of a Gaussian beam, sides of the object
    beam_x: Scalar | float = 0.0
    waist: Scalar | float = 0.0  # of a Gaussian beam: logarithm of its ratio to the design's
    # Wavefront: coefficients of Noll's polynomials on the disc round the object, radians rms.
    z5: Scalar | float = 0.0
    z6: Scalar | float = 0.0
    z7: Scalar | float = 0.0
    z8: Scalar | float = 0.0
    z9: Scalar | float = 0.0
    z10: Scalar | float = 0.0
    z11: Scalar | float = 0.0


ZERNIKE = tuple(range(5, 12))  # astigmatism, coma, trefoil, spherical; tilts only move the pattern
# The standard deviations of `JitterOptions`, and the fields of `Perturbation` that each draws.
SPREADS = {
    "shift": ("shift_y", "shift_x"),
    **{name: (name,) for name in ("rotation", "scale", "defocus", "wavelength", "gain")},
    "beam": ("beam_y", "beam_x"),
    "waist": ("waist",),
    "wavefront": tuple(f"z{number}" for number in ZERNIKE),
}
OF_GAUSSIAN = ("beam", "waist")  # errors that other beams do not have


# Standard deviations of a careful bench: a translation stage, a rotation mount, a calibrated SLM.
CAREFUL = {
    "shift": 0.1,
    "rotation": 0.1,
    "scale": 0.002,
    "defocus": 0.05,
    "wavelength": 0.002,
    "gain": 0.02,
}


GAUSSIAN = ("illumination.kind", ("gaussian",))


@section
class JitterOptions:
    """Errors of the bench, drawn anew for each scene: `optics.misalignment`.

    All are standard deviations. The recovery does not know the errors, so training with them makes
    masks robust.
    """

    shift: float = option(0.0, "of the mask, each axis", unit="mask pixels", within=Range(0, 1000))
    rotation: float = option(0.0, "of the mask", unit="degrees", within=Range(0, 180))
    scale: float = option(0.0, "of the mask's image, relative", within=SHARE)
    # 1 wave is pi D^2 / sqrt(3) radians rms of Noll's polynomial 4 on a disc of D sides.
    defocus: float = option(0.0, "at half the object's side", unit="waves", within=Range(0, 1000))
    wavelength: float = option(0.0, "of the light, relative", within=SHARE)
    gain: float = option(0.0, "of the device's phases, relative", within=SHARE)
    beam: float = option(
        0.0,
        "of the beam's middle, each axis",
        unit="sides of the object",
        within=Range(0, 10),
        when=GAUSSIAN,
    )
    waist: float = option(0.0, "of the beam's waist, relative", within=SHARE, when=GAUSSIAN)
    wavefront: float = option(
        0.0,
        "astigmatism, coma, trefoil and spherical, in equal parts",
        unit="radians rms",
        within=Range(0, 1000),
    )

    @property
    def is_none(self) -> bool:
        """Whether there are no errors."""
        return self == JitterOptions()


@section
class MountOptions:
    """Where the mask is known to sit over the object: `optics.misalignment`.

    A calibration finds this place. Light past the mask's edge is not modulated.
    """

    shift_y: float = option(0.0, "of the mask", unit="mask pixels", within=Range(-1000, 1000))
    shift_x: float = option(0.0, "of the mask", unit="mask pixels", within=Range(-1000, 1000))
    rotation: float = option(
        0.0, "of the mask, counter-clockwise, row 0 on top", unit="degrees", within=Range(-180, 180)
    )
    scale: float = option(0.0, "magnification of the mask - 1", within=Range(-0.5, 1))

    @property
    def is_none(self) -> bool:
        """Whether the mask's pixels lie on the object's."""
        # For a traced number this is not known.
        return all(isinstance(one, float) and one == 0 for one in shallow(self).values())

    def moved(self, by: Perturbation) -> Perturbation:
        """Returns the errors of a bench on top of this place of the mask."""
        return by._replace(
            **{name: getattr(by, name) + value for name, value in shallow(self).items()}
        )


def draw(key: Key, spreads: JitterOptions) -> Perturbation:
    """Draws a bench: each error is normal, with the standard deviation that is given for it.

    Units are those of `Perturbation`. `shift` and `beam` hold for each axis; the variance of
    `wavefront` is shared out evenly among its polynomials.
    """
    drawn = jax.random.normal(key, (len(Perturbation._fields),))
    spread = {field: getattr(spreads, name) for name in SPREADS for field in SPREADS[name]}
    spread |= {field: spreads.wavefront / math.sqrt(len(ZERNIKE)) for field in SPREADS["wavefront"]}
    return Perturbation(
        *[spread[field] * value for field, value in zip(Perturbation._fields, drawn, strict=True)]
    )


# Samples per mask pixel, each way, of a displaced mask. With 3, the PSNR of a trained system is
# within 0.05 dB of that with 20, for shifts up to 0.5 pixels, 1 degree and 1 % (E2E of the quick
# start, 64 scenes). With 1, a shift of 0.5 pixels costs 6.5 dB instead of 1.5 dB.
FINE = 3


def displaced_masks(
    masks: Masks, by: Perturbation | MountOptions, *, fine: int = 1, given: int = 1
) -> Complex[Array, "k fmh fmw"]:
    """Returns the masks as the object sees them: turned and magnified about the centre, then moved.

    Mask pixels are squares. Each is drawn with `fine` samples a side, and the phasor is
    bilinear between them. Light past the mask's edge is not modulated (phasor 1).

    Args:
        masks: Phases in radians, or phasors.
        by: Errors, of which only those of the mask's place are read.
        fine: Samples per mask pixel, each way. 1 gives each pixel its mean, for a sensor in the
            near field that has the same pixels. In the far field take `FINE`: after a shift by part
            of a pixel two phases meet within it, and the edge of the pattern depends on where.
        given: Samples per mask pixel, each way, that `masks` already have.
    """
    phasors = spread_pixels(as_phasors(masks), fine // given)
    _, height, width = phasors.shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height)[:, None] - centre_y - fine * by.shift_y
    x = jnp.arange(width)[None, :] - centre_x - fine * by.shift_x
    angle = jnp.deg2rad(by.rotation)
    cosine, sine = jnp.cos(angle) / (1.0 + by.scale), jnp.sin(angle) / (1.0 + by.scale)
    # Place on the mask that each sample of the object sees: the inverse of the movement.
    rows = cosine * y + sine * x + centre_y
    columns = cosine * x - sine * y + centre_x

    def read(plane: Float[Array, "fmh fmw"], outside: float) -> Float[Array, "fmh fmw"]:
        return map_coordinates(plane, [rows, columns], order=1, mode="constant", cval=outside)

    real = jax.vmap(lambda plane: read(plane, 1.0))(phasors.real)
    imaginary = jax.vmap(lambda plane: read(plane, 0.0))(phasors.imag)
    return jax.lax.complex(real, imaginary)


def aberrated_field(field: Field, by: Perturbation) -> Field:
    """Returns the field with its defocus and wavefront errors.

    The phase gains 2 pi `defocus` radians at half the side, and `z5` ... times `zernike`.
    """
    shape: tuple[int, int] = field.shape  # type: ignore[assignment]
    wavefront = 2 * math.pi * by.defocus * quadratic_phase(shape)
    for number in ZERNIKE:
        polynomial = jnp.asarray(zernike(number, shape[0], radius=ROUND_OBJECT), wavefront.dtype)
        wavefront += getattr(by, f"z{number}") * polynomial
    return field * jnp.exp(1j * wavefront)
