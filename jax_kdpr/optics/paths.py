"""The paths of light from object to sensor that are not just one plain DFT.

object -> gap, if there is one (`Apart`) -> mask -> free space (a transfer function), or the far
field at chosen samples (`MatrixDFT`), or the plain DFT (None)
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Shaped

from jax_kdpr.core.types import Transfer


@partial(jax.tree_util.register_dataclass, data_fields=["rows", "columns"], meta_fields=["fine"])
@dataclasses.dataclass(frozen=True)
class MatrixDFT:
    """The far field at samples of any spacing and number: rows X columns^T of a field X.

    Masks may be finer than the object, with `fine` samples per pixel of the object, each way. A
    pixel is then a square, and its envelope is divided out (`optics.window.matrix_dft`).
    """

    rows: Any  # [sh mh], complex
    columns: Any  # [sw mw], complex
    fine: int = 1

    @property
    def sensor(self) -> tuple[int, int]:
        """Size (sh, sw) of the sensor."""
        return self.rows.shape[0], self.columns.shape[0]

    def forward(self, behind: Complex[Array, "*k mh mw"]) -> Complex[Array, "*k sh sw"]:
        """Transforms fields behind masks."""
        return _product(self.rows, behind, self.columns.T)

    def adjoint(self, spectra: Complex[Array, "*k sh sw"]) -> Complex[Array, "*k mh mw"]:
        """Applies the exact adjoint of `forward`."""
        return _product(jnp.conj(self.rows.T), spectra, jnp.conj(self.columns))


@partial(
    jax.tree_util.register_dataclass, data_fields=["gap", "incident", "behind"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Apart:
    """A mask at a distance from the object, which passes only the light that meets it.

    The field x is lit by a beam b and spreads into a window of twice its height and width. The mask
    sees G b x, with G the free space of the gap, cut to its own window. So A^H A is not diagonal.
    """

    gap: Any  # transfer function from object to mask [2h 2w]
    incident: Any = None  # b [h w], the beam on the object; None for an even one
    behind: Any = None  # what follows the mask: `Transfer`, `MatrixDFT` or None

    def forward(self, field: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
        """Propagates object fields to the mask."""
        lit = field if self.incident is None else _times(self.incident, field)
        return self._across(self.gap, lit)

    def adjoint(self, field: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
        """Applies the exact adjoint of `forward`."""
        back = self._across(jnp.conj(self.gap), field)
        return back if self.incident is None else _times(jnp.conj(self.incident), back)

    def _across(self, gap: Transfer, field: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
        height, width = field.shape[-2:]
        spectrum = _times(gap, jnp.fft.fft2(field, s=gap.shape))
        return jnp.fft.ifft2(spectrum)[..., :height, :width]


# From object to sensor, where that is not the plain DFT alone.
LightPath = Transfer | MatrixDFT | Apart


def behind_mask(path: Any) -> Any:
    """Returns what follows the mask: `behind` of an `Apart`, otherwise `path` itself."""
    return path.behind if isinstance(path, Apart) else path


def before_mask(field: Complex[Array, "*b h w"], path: Any) -> Complex[Array, "*b h w"]:
    """Returns the fields that object fields [h w] make at the mask."""
    return path.forward(field) if isinstance(path, Apart) else field


def back_to_object(field: Complex[Array, "*b h w"], path: Any) -> Complex[Array, "*b h w"]:
    """Applies the adjoint of `before_mask`."""
    return path.adjoint(field) if isinstance(path, Apart) else field


def is_unitary(path: Any) -> bool:
    """Returns whether all light behind the mask is seen; A^H A is then diagonal: `mask_power`."""
    return not isinstance(path, MatrixDFT | Apart)


def pixels_within(path: object) -> int:
    """Returns how many samples of a mask there are per pixel of the object, each way."""
    behind = behind_mask(path)
    return behind.fine if isinstance(behind, MatrixDFT) else 1


def spread_pixels(fields: Shaped[Array, "*b h w"], fine: int) -> Shaped[Array, "*b mh mw"]:
    """Returns fields in which each pixel is a square of `fine` samples a side."""
    if fine == 1:
        return fields
    return jnp.repeat(jnp.repeat(fields, fine, axis=-2), fine, axis=-1)


def gather_pixels(fields: Shaped[Array, "*b mh mw"], fine: int) -> Shaped[Array, "*b h w"]:
    """Sums each square of `fine` samples a side: the adjoint of `spread_pixels`."""
    if fine == 1:
        return fields
    *b, height, width = fields.shape
    return fields.reshape(*b, height // fine, fine, width // fine, fine).sum((-3, -1))


def _product(
    left: Complex[Array, "a h"], fields: Complex[Array, "*k h w"], right: Complex[Array, "w b"]
) -> Complex[Array, "*k a b"]:
    """Returns left X right for each field X, in float32 on every device."""
    highest = lax.Precision.HIGHEST
    return jnp.matmul(jnp.matmul(left, fields, precision=highest), right, precision=highest)


def _times(plane: Complex[Array, "h w"], fields: Complex[Array, "*b h w"]) -> Array:
    return jnp.expand_dims(plane, tuple(range(fields.ndim - 2))) * fields
