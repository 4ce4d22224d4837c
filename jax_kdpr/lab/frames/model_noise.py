"""From the noise of a camera's pixels to that of the model's samples: `noise.*` of a `camera`.

`reconstruct` joins bin x bin pixels, reads their spline at the model's samples, which stand for
a = (scale / bin)^2 joined pixels each, and divides by the envelope E of square mask pixels. A
sample of s electrons (on the grid, envelope divided out) so has the variance g^2 a s / E, with g
`POINT_NOISE`; one of a camera of the model with N photons, of S in all, s S / N. Over the grid they
are equal in the mean where N = S / (g^2 a <1 / E>). What does not depend on the light, such as read
noise, has <1 / E^2> in place of <1 / E>.
"""

import math
from typing import NamedTuple

import numpy as np

from jax_kdpr.lab.frames.geometry import POINT_NOISE, pixel_envelope, sensor_points

MOST_BITS = 16  # of `noise.bits`


class PixelNoise(NamedTuple):
    """Of one camera pixel, but for the photons."""

    photons: float  # photoelectrons of a frame on the model's grid, its envelope divided out
    read_noise: float  # electrons, standard deviation
    dark: float  # electrons a pixel and frame
    full_well: float  # electrons
    bits: int


def model_noise(
    camera: PixelNoise, *, scale: float, bin: int, sensor: tuple[int, int], pixel_side: float
) -> dict[str, float]:
    """Returns the options `noise.*` of a model that is as noisy as a camera's frames.

    Args:
        camera: Of its pixels.
        scale: Camera pixels in a model sample.
        bin: Pixels joined each way; sampling "points".
        sensor: (sh, sw) of the model.
        pixel_side: Of the mask's pixels (`geometry.pixel_envelope`).
    """
    envelope = pixel_envelope(sensor_points(sensor), sensor, pixel_side)
    shot, read = np.mean(1 / envelope), math.sqrt(np.mean(1 / envelope**2))
    area = (scale / bin) ** 2
    gain = POINT_NOISE**2 * float(shot)  # electrons of a joined pixel for one of the model
    spread = float(read) * POINT_NOISE / gain
    bits = camera.bits + math.log2(bin / (POINT_NOISE * float(read)))
    return {
        "photons": camera.photons / (gain * area),
        "read_noise": camera.read_noise * bin * spread,
        "dark": camera.dark * bin**2 * spread**2,
        "full_well": camera.full_well * bin**2 / gain,
        "bits": min(max(round(bits), 1), MOST_BITS),
    }
