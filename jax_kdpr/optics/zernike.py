"""Zernike polynomials in Noll's order and norm, on the pixels of a square.

R. J. Noll, "Zernike polynomials and atmospheric turbulence", J. Opt. Soc. Am. 66, 207 (1976).
"""

import math

import numpy as np
from jaxtyping import Float

ROUND_OBJECT = math.sqrt(0.5)  # radius of the disc round the square, in sides of the square


def from_centre(size: int) -> tuple[Float[np.ndarray, "h 1"], Float[np.ndarray, "1 w"]]:
    """Returns rows and columns of the pixel centres, from the middle, in sides of the square."""
    places = (np.arange(size) - (size - 1) / 2) / size
    return places[:, None], places[None, :]


def zernike(number: int, size: int, *, radius: float) -> Float[np.ndarray, "h w"]:
    """Returns polynomial `number` (1: piston, 4: defocus, 11: spherical), of rms 1 over its disc.

    Angles are measured from the axis of growing columns towards that of growing rows. Outside the
    disc the polynomial continues.

    Args:
        number: Noll's index j, from 1.
        size: Pixels a side.
        radius: Radius of the disc, whose centre is the middle of the square, in sides.
    """
    degree, order = noll(number)
    rows, columns = from_centre(size)
    rho, angle = np.hypot(rows, columns) / radius, np.arctan2(rows, columns)
    radial = sum(
        (-1) ** k
        * math.comb(degree - k, k)
        * math.comb(degree - 2 * k, (degree - order) // 2 - k)
        * rho ** (degree - 2 * k)
        for k in range((degree - order) // 2 + 1)
    )
    if order == 0:
        return math.sqrt(degree + 1) * radial * np.ones_like(rho)
    turning = np.sin(order * angle) if number % 2 else np.cos(order * angle)
    return math.sqrt(2 * (degree + 1)) * radial * turning


def noll(number: int) -> tuple[int, int]:
    """Returns (radial degree n, azimuthal order m >= 0) of Noll's polynomial j; odd j are sines."""
    if number < 1:
        raise ValueError(f"number: expected Noll's index from 1, got {number}")
    degree = (math.isqrt(8 * number - 7) - 1) // 2
    place = number - degree * (degree + 1) // 2  # 1 ... degree + 1
    return degree, 2 * ((place + 1) // 2) - 1 if degree % 2 else 2 * (place // 2)
