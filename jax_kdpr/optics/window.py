"""The camera's own samples of the far field: their spacing, and how many rows and columns.

A plain DFT of N pixels has N samples a side, spaced by one cycle a side of the object; zero padding
to 2 N halves this spacing. A camera may have any other spacing and see a window of the pattern. The
DFT is then two matrix products (R. Soummer et al., Opt. Express 15, 15935, 2007), with the rows

    sqrt(step / N) e^{-2 pi j step u n / N},   u centred, n = 0 ... N - 1

If 1 / step is a whole number and all samples are taken, they are the rows of the zero-padded
orthonormal DFT. As there, the zero frequency is sample [0, 0] and negative frequencies come last.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.types import Scalar
from jax_kdpr.optics.paths import MatrixDFT


@section
class SensorOptions:
    """The camera's samples of the pattern, in the far field: `optics.window`."""

    step: float = option(
        0.0,
        "sample spacing; 0: 1 / masks.oversample",
        unit="cycles a side of the object",
        within=Range(0.01, 1, also=0),
    )
    rows: int = option(0, "number of rows; 0: whole pattern", within=Range(2, 8192, also=0))
    columns: int = option(0, "number of columns; 0: whole pattern", within=Range(2, 8192, also=0))


def samples_of_pattern(size: int, step: float) -> int:
    """Returns how many samples a side the whole pattern of point-like mask pixels has."""
    return math.floor(size / step * (1 + 1e-9))


def centred_samples(samples: int) -> np.ndarray:
    """Returns centred sample numbers in the order of the DFT: 0, 1, ..., -2, -1."""
    return np.fft.ifftshift(np.arange(samples) - samples // 2)


def matrix_dft(
    size: int,
    sensor: tuple[int, int],
    *,
    step: float,
    fine: int = 1,
    magnification: float | Scalar = 1.0,
) -> MatrixDFT:
    """Builds the DFT from an object, or finer masks over it, to a window of the far field.

    In the model the pixels of the object are points. Under finer masks they are squares; the
    envelope of a square, which darkens the edge of the pattern, is divided out again.

    Args:
        size: N, the pixels of the object each way.
        sensor: (rows, columns) of the window.
        step: Spacing of the samples, in cycles a side of the object.
        fine: Samples of a mask per pixel of the object, each way.
        magnification: Magnification of the pattern, as by a longer wavelength: sample u sees the
            frequency u / `magnification`, and the same light falls on a larger pattern. May be
            traced.
    """

    def matrix(samples: int) -> Complex[Array, "s mn"]:
        known = isinstance(magnification, float)
        xp = np if known else jnp  # NumPy computes in double precision
        frequency = centred_samples(samples)[:, None] * (step / size) / magnification
        places = (np.arange(fine * size) - (fine - 1) / 2) / fine
        turns = frequency * places[None, :]
        kernel = np.exp(-2j * np.pi * turns) if known else jnp.exp(-2j * np.pi * turns)
        # The sum over the `fine` samples of one pixel.
        envelope = xp.sinc(frequency) / xp.sinc(frequency / fine) * fine if fine > 1 else 1.0
        return jnp.asarray(kernel / envelope * xp.sqrt(step / size / magnification))

    return MatrixDFT(matrix(sensor[0]), matrix(sensor[1]), fine)
