"""The coded-diffraction-pattern (CDP) operator, eq. 1 of arXiv 2505.18352.

Conventions, the same everywhere in the package:

* Masks are real phases phi in radians; mask l multiplies the field by e^{-j phi_l}
  (the paper's A_l = diag(e^{j phi_l})^H).
* The DFT is orthonormal and unshifted: zero frequency sits at index [0, 0], and
  norm(F A_l x) = norm(x), so sum(y) = k * norm(x)^2.
* `oversample` 2 zero-pads the object plane to twice its height and width before the DFT, which
  halves the sensor's pixel. The padding goes to the end of each axis: where it goes only adds a
  linear phase in the sensor plane, which no intensity shows.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.types import Field, Intensity, Phases, Spectra


def mask_transmittance(phases: Float[Array, "*k h w"]) -> Complex[Array, "*k h w"]:
    """Returns e^{j phases}; A_l multiplies by its conjugate.

    Built on the fly from real phases: the modulus stays 1 whatever an optimiser does, and every
    trained parameter, and so every gradient, stays real.
    """
    return lax.complex(jnp.cos(phases), jnp.sin(phases))


def cdp_forward(field: Field, phases: Phases, *, oversample: int = 1) -> Spectra:
    """Propagates one field through every mask to the far field: F A_l x for each l.

    Args:
        field: Complex field in the object plane, any unit.
        phases: Mask phases in radians; only their value modulo 2 pi matters.
        oversample: 1, or 2 to zero-pad the field to twice its size before the DFT.

    Returns:
        Complex sensor-plane fields [k oversample*h oversample*w], in the unit of `field`.

    Raises:
        ValueError: If the masks are not of the field's size, or `oversample` is not 1 or 2.
    """
    height, width = field.shape
    if phases.shape[1:] != field.shape:
        raise ValueError(
            f"phases: expected masks of the field's size {field.shape}, got {phases.shape[1:]}; "
            "resample the masks or the scene"
        )
    if oversample not in (1, 2):
        raise ValueError(f"oversample: expected 1 or 2, got {oversample}")
    return propagate(field, mask_transmittance(phases), (oversample * height, oversample * width))


def cdp_adjoint(spectra: Spectra, phases: Phases) -> Field:
    """Maps k sensor-plane fields back to the object plane: sum_l A_l^H F^H s_l.

    The exact adjoint of `cdp_forward`, zero padding included: <A x, s> = <x, A^H s>, and
    A^H A = k I because the masks have modulus 1. The oversampling is read off the shapes.

    Args:
        spectra: Complex sensor-plane fields, zero frequency at [0, 0].
        phases: Mask phases in radians.

    Returns:
        The object-plane field, in the unit of `spectra`.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    sensor_oversample(spectra.shape, phases.shape)
    return back_propagate(spectra, mask_transmittance(phases))


def propagate(
    field: Field, transmittance: Complex[Array, "k h w"], sensor: tuple[int, ...]
) -> Spectra:
    """The arithmetic of `cdp_forward` for masks that are at hand as e^{j phases}, without checks.

    For loops that apply the same masks many times; `sensor` is the padded size (sh, sw).
    """
    return jnp.fft.fft2(jnp.conj(transmittance) * field[None], s=sensor, norm="ortho")


def back_propagate(spectra: Spectra, transmittance: Complex[Array, "k h w"]) -> Field:
    """The arithmetic of `cdp_adjoint`, likewise: the adjoint of `propagate`."""
    height, width = transmittance.shape[1:]
    fields = jnp.fft.ifft2(spectra, norm="ortho")[:, :height, :width]
    return jnp.sum(transmittance * fields, axis=0)


def measure_intensity(field: Field, phases: Phases, *, oversample: int = 1) -> Intensity:
    """Returns the noiseless CDPs y_l = abs(F A_l x)^2 (eq. 1), in the squared unit of `field`.

    Computed as re^2 + im^2, whose gradient is finite where the field is zero.
    """
    spectra = cdp_forward(field, phases, oversample=oversample)
    return jnp.square(spectra.real) + jnp.square(spectra.imag)


def sensor_oversample(sensor_shape: tuple[int, ...], phases_shape: tuple[int, ...]) -> int:
    """Returns the oversampling (1 or 2) that joins a sensor shape [k sh sw] to masks [k h w].

    Raises:
        ValueError: If no such oversampling exists or the numbers of snapshots differ.
    """
    for oversample in (1, 2):
        snapshots, height, width = phases_shape
        if tuple(sensor_shape) == (snapshots, oversample * height, oversample * width):
            return oversample
    raise ValueError(
        f"sensor arrays: expected [k h w] = {tuple(phases_shape)}, or twice that height and width, "
        f"for masks of that shape; got {tuple(sensor_shape)}"
    )
