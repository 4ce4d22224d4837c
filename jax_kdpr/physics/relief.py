"""Phase as height: the surface relief of an etched, printed or moulded mask."""

import itertools

import numpy as np
from jaxtyping import Float, Shaped

Plane = Float[np.ndarray, "h w"]


def turn_height(*, wavelength: float, index: float | None = None) -> float:
    """Returns the height in metres that adds a phase of 2 pi to the light.

    In transmission, against air, lambda / (n - 1), so h = phi lambda / (2 pi (n - 1)); in
    reflection, where light passes the height twice, lambda / 2.

    Args:
        wavelength: In vacuum, metres.
        index: Refractive index n of the material at this wavelength, above 1; None in reflection.
    """
    return wavelength / 2 if index is None else wavelength / (index - 1)


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
