"""Phase as height: the surface relief of an etched, printed or moulded mask."""

import itertools

import numpy as np
from jaxtyping import Float, Shaped

Plane = Float[np.ndarray, "h w"]


def turn_height(*, wavelength: float, index: float | None = None) -> float:
    """Returns the height in metres that changes the phase of the light by 2 pi.

    In transmission, against air, lambda / (n - 1): light that passes the material is behind, which
    adds phase (e^{j k n z}), p = 2 pi (n - 1) h / lambda. In reflection lambda / 2: a higher
    surface saves the height twice, p = -4 pi h / lambda.

    Args:
        wavelength: In vacuum, metres.
        index: Refractive index n of the material at this wavelength, above 1; None in reflection.
    """
    return wavelength / 2 if index is None else wavelength / (index - 1)


def heights(phases: Plane, *, wavelength: float, index: float | None = None) -> Plane:
    """Returns the relief in metres, from 0 to below one turn, that adds `phases` (radians)."""
    turns = phases / (2 * np.pi)
    return np.mod(-turns if index is None else turns, 1.0) * turn_height(
        wavelength=wavelength, index=index
    )


def added_phases(relief: Plane, *, wavelength: float, index: float | None = None) -> Plane:
    """Returns the phases in radians that a relief in metres adds; not wrapped."""
    phases = relief * (2 * np.pi / turn_height(wavelength=wavelength, index=index))
    return -phases if index is None else phases


def smallest_feature(plane: Shaped[np.ndarray, "h w"]) -> int:
    """Returns the length in pixels of the shortest run of equal values along a row or a column."""
    return min(
        len(list(run))
        for line in itertools.chain(plane.tolist(), plane.T.tolist())
        for _, run in itertools.groupby(line)
    )


def largest_step(heights: Plane) -> float:
    """Returns the largest difference between neighbours in a row or a column, in their unit."""
    return max(float(np.abs(np.diff(heights, axis=axis)).max(initial=0.0)) for axis in (0, 1))
