"""What is never quite right on a bench: where the mask sits, the wavelength, the phase scale.

A `Perturbation` says by how much one bench differs from the design; `draw` makes one at random.
`displaced_masks`, `defocused_masks` and `scaled_spectra` apply it. The reconstruction does not know
of it: it believes in the design.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Complex, Float

from jax_kdpr.physics.cdp import mask_transmittance
from jax_kdpr.physics.propagation import quadratic_phase
from jax_kdpr.types import Field, Key, Masks, Scalar, Spectra


class Perturbation(NamedTuple):
    """How one bench differs from the design; zero everywhere for the design itself."""

    shift_y: Scalar | float = 0.0  # of the mask over the object, mask pixels
    shift_x: Scalar | float = 0.0
    rotation: Scalar | float = (
        0.0  # of the mask about its centre, degrees, counter-clockwise with row 0 on top
    )
    scale: Scalar | float = 0.0  # magnification of the mask - 1
    defocus: Scalar | float = 0.0  # waves at half the object's side
    wavelength: Scalar | float = 0.0  # over the design's - 1
    gain: Scalar | float = 0.0  # of the device's phases - 1


# What a standard deviation can be given for, and the fields of `Perturbation` that it draws.
SPREADS = {
    "shift": ("shift_y", "shift_x"),
    **{name: (name,) for name in ("rotation", "scale", "defocus", "wavelength", "gain")},
}


# Standard deviations of a careful bench: a translation stage, a rotation mount, a calibrated SLM.
CAREFUL = {
    "shift": 0.1,
    "rotation": 0.1,
    "scale": 0.002,
    "defocus": 0.05,
    "wavelength": 0.002,
    "gain": 0.02,
}


def draw(
    key: Key,
    *,
    shift: float | Scalar = 0.0,
    rotation: float | Scalar = 0.0,
    scale: float | Scalar = 0.0,
    defocus: float | Scalar = 0.0,
    wavelength: float | Scalar = 0.0,
    gain: float | Scalar = 0.0,
) -> Perturbation:
    """Draws a bench: each error is normal, with the standard deviation that is given for it.

    Units are those of `Perturbation`; `shift` is that of each axis.
    """
    y, x, *others = jax.random.normal(key, (len(Perturbation._fields),))
    spreads = (rotation, scale, defocus, wavelength, gain)
    drawn = [spread * value for spread, value in zip(spreads, others, strict=True)]
    return Perturbation(shift * y, shift * x, *drawn)


def displaced_masks(masks: Masks, by: Perturbation) -> Complex[Array, "k h w"]:
    """Returns the masks as the object sees them: turned and magnified about the centre, then moved.

    Bilinear in the transmittance: a pixel of the object that two pixels of the mask share sees
    their mean, which is what is left of it at the camera's angles. Light past the mask's edge is
    not modulated (transmittance 1).
    """
    transmittance = mask_transmittance(masks)
    _, height, width = transmittance.shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height)[:, None] - centre_y - by.shift_y
    x = jnp.arange(width)[None, :] - centre_x - by.shift_x
    angle = jnp.deg2rad(by.rotation)
    cosine, sine = jnp.cos(angle) / (1.0 + by.scale), jnp.sin(angle) / (1.0 + by.scale)
    # Where on the mask each pixel of the object looks: the inverse of the movement.
    rows = cosine * y + sine * x + centre_y
    columns = cosine * x - sine * y + centre_x

    def read(plane: Float[Array, "h w"], outside: float) -> Float[Array, "h w"]:
        return map_coordinates(plane, [rows, columns], order=1, mode="constant", cval=outside)

    real = jax.vmap(lambda plane: read(plane, 1.0))(transmittance.real)
    imaginary = jax.vmap(lambda plane: read(plane, 0.0))(transmittance.imag)
    return jax.lax.complex(real, imaginary)


def defocused_masks(masks: Masks, by: Perturbation) -> Complex[Array, "k h w"]:
    """Returns masks that include the defocus: 2 pi `defocus` radians at half the longer side."""
    transmittance = mask_transmittance(masks)
    error = mask_transmittance(
        2 * math.pi * by.defocus * quadratic_phase(transmittance.shape[1:])  # type: ignore[arg-type]
    )
    return transmittance * jnp.conj(error)[None]


def scaled_spectra(
    field: Field,
    masks: Masks,
    sensor: tuple[int, int],
    *,
    magnification: float | Scalar,
) -> Spectra:
    """Returns the far fields on a sensor whose pattern is magnified, as by a longer wavelength.

    Sample u of the sensor sees the frequency u / `magnification` (centred frequencies): the DFT as
    two matrix products, exact for any real magnification; the same light on a larger pattern. With
    1 it equals `cdp.cdp_forward`.

    Args:
        field: Object.
        masks: Phases in radians, or transmittances.
        sensor: (sh, sw), zero-padded size.
        magnification: (1 + relative error of the wavelength).
    """

    def matrix(samples: int, pixels: int) -> Complex[Array, "s n"]:
        frequency = jnp.fft.fftfreq(samples)[:, None] / magnification
        turns = frequency * jnp.arange(pixels)[None, :]
        return mask_transmittance(-2 * math.pi * turns) / jnp.sqrt(samples * magnification)

    height, width = field.shape
    behind = jnp.conj(mask_transmittance(masks)) * field[None]
    rows, columns = matrix(sensor[0], height), matrix(sensor[1], width)
    return jnp.einsum("sh,khw,tw->kst", rows, behind, columns)
