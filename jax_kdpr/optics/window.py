"""The camera's own samples of the far field: how far apart, and how many rows and columns.

A plain DFT of N pixels has N samples a side, one cycle of the object's side apart; zero padding to
2 N halves that. A camera may have any other distance, and see a window of the pattern. Then the DFT
is two matrix products (R. Soummer et al., Opt. Express 15, 15935, 2007), of rows

    sqrt(step / N) e^{-2 pi j step u n / N},   u centred, n = 0 ... N - 1

which for all samples of a whole number 1 / step are those of the zero-padded orthonormal DFT. As
there, the zero frequency is sample [0, 0] and negative ones come last.
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
        "from sample to sample; 0: 1 / masks.oversample",
        unit="cycles a side of the object",
        within=Range(0.01, 1, also=0),
    )
    rows: int = option(0, "of samples; 0: all of the pattern", within=Range(2, 8192, also=0))
    columns: int = option(0, "likewise", within=Range(2, 8192, also=0))


def samples_of_pattern(size: int, step: float) -> int:
    """Returns how many samples a side the whole pattern has, of mask pixels that are points."""
    return math.floor(size / step * (1 + 1e-9))


def centred_samples(samples: int) -> np.ndarray:
    """Returns the centred numbers of samples in the DFT's order: 0, 1, ..., -2, -1."""
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

    Pixels of the object are points in the model. Where masks are finer than it they are squares,
    and what that takes from the pattern's edge is divided out again.

    Args:
        size: N, pixels of the object each way.
        sensor: (rows, columns) of the window.
        step: From sample to sample, cycles a side of the object.
        fine: Samples of a mask to a pixel of the object, each way.
        magnification: Of the pattern, as by a longer wavelength: sample u sees the frequency
            u / `magnification`, and the same light falls on a larger pattern. May be traced.
    """

    def matrix(samples: int) -> Complex[Array, "s mn"]:
        known = isinstance(magnification, float)
        xp = np if known else jnp  # NumPy in double precision
        frequency = centred_samples(samples)[:, None] * (step / size) / magnification
        places = (np.arange(fine * size) - (fine - 1) / 2) / fine
        turns = frequency * places[None, :]
        kernel = np.exp(-2j * np.pi * turns) if known else jnp.exp(-2j * np.pi * turns)
        # What `fine` samples of one pixel add up to.
        envelope = xp.sinc(frequency) / xp.sinc(frequency / fine) * fine if fine > 1 else 1.0
        return jnp.asarray(kernel / envelope * xp.sqrt(step / size / magnification))

    return MatrixDFT(matrix(sensor[0]), matrix(sensor[1]), fine)
