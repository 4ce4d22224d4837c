"""The coded-diffraction-pattern (CDP) operator, eq. 1 of arXiv 2505.18352.

Conventions, the same everywhere in the package:

* Masks are real phases phi in radians; mask l multiplies the field by e^{-j phi_l}
  (the paper's A_l = diag(e^{j phi_l})^H). A complex array in their place stands for the phasors
  t_l = e^{j phi_l} themselves, with any modulus, as a real device makes them (`optics.device`): the
  field is multiplied by conj(t_l), which in optics is called the transmittance.
* The DFT is orthonormal and unshifted: zero frequency sits at index [0, 0], and
  norm(F A_l x) = norm(x), so sum(y) = k * norm(x)^2.
* `oversample` 2 zero-pads the object plane to twice its height and width before the DFT, which
  halves the sensor's pixel. The padding goes to the end of each axis. Another place would only add
  a linear phase in the sensor plane, which no intensity shows.
* `path` is what light passes on its way where that is not the plain DFT alone (`optics.paths`).
  The transfer function of free space (`optics.propagation`) puts the sensor into the near field: it
  multiplies the spectrum, and an inverse DFT follows. A `MatrixDFT` is a DFT to other samples of
  the far field (`optics.window`), as two matrix products. An `Apart` puts free space between object
  and mask.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.types import Field, Intensity, Masks, Phases, Spectra, Transfer
from jax_kdpr.optics.paths import (
    Apart,
    LightPath,
    MatrixDFT,
    back_to_object,
    before_mask,
    behind_mask,
    gather_pixels,
    pixels_within,
    spread_pixels,
)


class Optics(NamedTuple):
    """Optics of a measurement by design, as every recovery takes them."""

    masks: Masks  # phases, or phasors where device or free space are not ideal
    path: LightPath | None = None
    written: Phases | None = None  # phases that the device is told to show
    amplitude: Float[Array, "h w"] | None = None  # of an uneven beam; it is in the others too


def as_phasors(
    masks: Float[Array, "*k h w"] | Complex[Array, "*k h w"],
) -> Complex[Array, "*k h w"]:
    """Returns e^{j masks}, or complex masks as they are; A_l multiplies by their conjugate.

    It is computed on the fly from real phases. So the modulus stays 1 whatever an optimiser does,
    and every trained parameter and its gradient stay real.
    """
    if jnp.iscomplexobj(masks):
        return masks
    return lax.complex(jnp.cos(masks), jnp.sin(masks))


def cdp_forward(
    field: Field, masks: Masks, *, oversample: int = 1, path: LightPath | None = None
) -> Spectra:
    """Propagates one field through every mask to the sensor: F A_l x for each l.

    Args:
        field: Complex field in the object plane, any unit.
        masks: Phases in radians, which matter only modulo 2 pi, or phasors.
        oversample: 1, or 2 to zero-pad the field to twice its size before the DFT.
        path: Transfer function of free space for a sensor in the near field, a `MatrixDFT` for
            other samples of the far field, or an `Apart`; None for the plain DFT.

    Returns:
        Complex sensor-plane fields [k sh sw], in the unit of `field`. They are
        [k oversample*h oversample*w], unless a `MatrixDFT` has its own samples.

    Raises:
        ValueError: If these are not one field and a stack of masks of its size, `oversample` is
            not 1 or 2, or `path` does not have the sensor's size.
    """
    if field.ndim != 2 or masks.ndim != 3:
        raise ValueError(
            f"expected one field [h w] and masks [k h w], got {field.shape} and {masks.shape}; "
            "jax.vmap takes more fields"
        )
    fine = pixels_within(path)
    at_mask, behind = before_mask(field, path), behind_mask(path)
    height, width = fine * field.shape[0], fine * field.shape[1]
    if masks.shape[1:] != (height, width):
        raise ValueError(
            f"masks: expected masks of the field's size {(height, width)}, got {masks.shape[1:]}; "
            "resample the masks or the scene"
        )
    if isinstance(behind, MatrixDFT):
        check_sensor((len(masks), *behind.sensor), masks.shape, behind)
        return propagate(at_mask, as_phasors(masks), behind.sensor, behind)
    if oversample not in (1, 2):
        raise ValueError(f"oversample: expected 1 or 2, got {oversample}")
    sensor = (oversample * height, oversample * width)
    if behind is not None and behind.shape != sensor:
        raise ValueError(
            f"path: expected the sensor's size {sensor}, got {behind.shape}; make it with "
            f"oversample={oversample}"
        )
    return propagate(at_mask, as_phasors(masks), sensor, behind)


def cdp_adjoint(spectra: Spectra, masks: Masks, *, path: LightPath | None = None) -> Field:
    """Maps k sensor-plane fields back to the object plane: sum_l A_l^H F^H s_l.

    This is the exact adjoint of `cdp_forward`, zero padding included: <A x, s> = <x, A^H s>. Masks
    of modulus 1 give A^H A = k I with the plain DFT. The oversampling is read off the shapes.

    Args:
        spectra: Complex sensor-plane fields, zero frequency at [0, 0].
        masks: Phases in radians, or phasors.
        path: As in `cdp_forward`.

    Returns:
        The object-plane field, in the unit of `spectra`.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    check_sensor(spectra.shape, masks.shape, path)
    return back_propagate(spectra, as_phasors(masks), path)


def propagate(
    field: Field,
    phasors: Complex[Array, "k mh mw"],
    sensor: tuple[int, ...],
    path: LightPath | None = None,
) -> Spectra:
    """Computes `cdp_forward` without its checks, from masks given as e^{j phases}.

    It is for loops that apply the same masks many times. `sensor` is the padded size (sh, sw).
    """
    at_mask, behind = before_mask(field, path), behind_mask(path)
    if isinstance(behind, MatrixDFT):
        return behind.forward(jnp.conj(phasors) * spread_pixels(at_mask, behind.fine)[None])
    one = partial(_one_shot, sensor=sensor, transfer=behind)
    return jax.vmap(one, in_axes=(None, 0))(at_mask, phasors)


def back_propagate(
    spectra: Spectra, phasors: Complex[Array, "k mh mw"], path: LightPath | None = None
) -> Field:
    """Computes `cdp_adjoint` without its checks: the adjoint of `propagate`."""
    behind = behind_mask(path)
    if isinstance(behind, MatrixDFT):
        back = jnp.sum(phasors * behind.adjoint(spectra), axis=0)
        return back_to_object(gather_pixels(back, behind.fine), path)
    one = partial(_one_shot_adjoint, transfer=behind)
    return back_to_object(jnp.sum(jax.vmap(one)(spectra, phasors), axis=0), path)


def _one_shot(
    field: Field,
    phasor: Field,
    *,
    sensor: tuple[int, ...],
    transfer: Transfer | None,
) -> Complex[Array, "sh sw"]:
    """Returns F A x of one snapshot: eq. 1 without its modulus."""
    spectrum = jnp.fft.fft2(jnp.conj(phasor) * field, s=sensor, norm="ortho")
    return spectrum if transfer is None else jnp.fft.ifft2(transfer * spectrum, norm="ortho")


def _one_shot_adjoint(
    spectrum: Complex[Array, "sh sw"], phasor: Field, *, transfer: Transfer | None
) -> Field:
    """Returns A^H F^H s of one snapshot."""
    if transfer is not None:
        spectrum = jnp.conj(transfer) * jnp.fft.fft2(spectrum, norm="ortho")
    height, width = phasor.shape
    return phasor * jnp.fft.ifft2(spectrum, norm="ortho")[:height, :width]


def mask_power(
    phasors: Complex[Array, "k mh mw"], path: LightPath | None = None
) -> Float[Array, "h w"]:
    """Returns sum_l abs(t_l)^2, k for ideal masks: A^H A of a plain DFT in the far field.

    Dividing `back_propagate` by it gives the pseudo-inverse, or an approximation of it where light
    is lost to a window (`MatrixDFT`) or beside the mask (`Apart`). Where no mask lets light
    through, it is raised to 1e-6.
    """
    fine = pixels_within(path)
    power = gather_pixels(jnp.sum(intensity(phasors), axis=0), fine) / fine**2
    if isinstance(path, Apart) and path.incident is not None:
        power = power * intensity(path.incident)
    return jnp.maximum(power, 1e-6)


def step_power(
    phasors: Complex[Array, "k mh mw"], path: LightPath | None = None
) -> Float[Array, "h w"]:
    """Returns what a solver's step divides `back_propagate` by: `mask_power`, or an upper bound.

    With an `Apart`, no pixel of the object has the power of one mask pixel alone. Where masks are
    uneven, division by the largest power keeps the steps stable.
    """
    if not isinstance(path, Apart):
        return mask_power(phasors, path)
    power = mask_power(phasors, path.behind)
    largest = jnp.full_like(power, jnp.max(power))
    if path.incident is None:
        return largest
    return jnp.maximum(largest * intensity(path.incident), 1e-6)


def pixel_means(optics: Optics) -> Masks:
    """Returns masks of the object's size; finer masks are averaged over each pixel."""
    fine = pixels_within(optics.path)
    if fine == 1:
        return optics.masks
    return gather_pixels(as_phasors(optics.masks), fine) / fine**2


def measure_intensity(
    field: Field, masks: Masks, *, oversample: int = 1, path: LightPath | None = None
) -> Intensity:
    """Returns the noiseless CDPs y_l = abs(F A_l x)^2 (eq. 1), in the squared unit of `field`.

    They are computed as re^2 + im^2, whose gradient is finite where the field is zero.
    """
    return intensity(cdp_forward(field, masks, oversample=oversample, path=path))


def intensity(field: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns abs(field)^2."""
    return jnp.square(field.real) + jnp.square(field.imag)


def check_sensor(
    sensor: tuple[int, ...], masks: tuple[int, ...], path: LightPath | None = None
) -> None:
    """Refuses sensor arrays whose shape [k sh sw] does not fit masks [k h w] and their DFT.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    snapshots, height, width = masks
    behind = behind_mask(path)
    if isinstance(behind, MatrixDFT):
        size = behind.rows.shape[1], behind.columns.shape[1]
        if tuple(sensor) == (snapshots, *behind.sensor) and size == (height, width):
            return
        raise ValueError(
            f"sensor arrays: expected [k sh sw] = {(snapshots, *behind.sensor)} for masks of "
            f"{(snapshots, *size)}, got {tuple(sensor)} for masks of {tuple(masks)}"
        )
    padded = [(snapshots, times * height, times * width) for times in (1, 2)]
    if tuple(sensor) not in padded:
        raise ValueError(
            f"sensor arrays: expected [k h w] = {tuple(masks)}, or twice that height and width, "
            f"for masks of that shape; got {tuple(sensor)}"
        )
