"""Finds where the pattern lies on the camera, from a frame of a known object.

* The coarse search tries every orientation, rotation and scale of a grid in the bright part of the
  frame, with all shifts at once by cross-correlation.
* The fine search refines centre, rotation and scale of the best fits in each orientation, by the
  method of Nelder and Mead.

Patterns are compared by Pearson's correlation of their amplitudes, which does not depend on gain or
offset.

The fit is trusted if its correlation is at least `MIN_SCORE`, and if its `lead` over the best fit
in another orientation is at least `MIN_LEAD`. The other seven orientations are known to be wrong
and are searched just as thoroughly, so that the best of them shows what chance gives on this
pattern: much, on that of a weak mask with its bright centre.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import fft, ndimage, optimize

from jax_kdpr.core.progress import progress
from jax_kdpr.lab.frames.geometry import (
    ORIENTATIONS,
    Geometry,
    frame_spline,
    sample_spline,
    sensor_points,
)

MIN_SCORE = 0.8
MIN_LEAD = 1.6  # wrong weak masks reach 1.05 (tests/test_plate.py)
EDGE_SHIFT = 0.7  # model samples by which one step of the grid moves the pattern's edge

Scored = tuple[float, Geometry]  # (correlation, geometry)


def lead(score: float, other: float) -> float:
    """Returns how many times as much of the variance another fit leaves unexplained, 1 - r^2.

    Both are correlations r of amplitudes; those of weak masks are all close to 1.
    """
    return (1 - other**2) / max(1 - score**2, 1e-12)


class Registration(NamedTuple):
    """What was found."""

    geometry: Geometry
    score: float  # correlation of the amplitudes, 1 for a perfect fit
    runner_up: float  # of the best fit in another orientation

    @property
    def trusted(self) -> bool:
        """Whether to trust the fit; see the module."""
        return self.score >= MIN_SCORE and lead(self.score, self.runner_up) >= MIN_LEAD


def register(
    light: Float[np.ndarray, "h w"],
    pattern: Float[np.ndarray, "sh sw"],
    guess: Geometry,
    *,
    rotation_range: float = 10.0,
    scale_range: float = 0.15,
    sampling: str = "points",
) -> Registration:
    """Finds the geometry in which a frame (corrected, joined) shows a known pattern.

    The pattern is the expected CDP, zero frequency at [sh // 2, sw // 2]. The search goes by
    `rotation_range` degrees, and by a relative `scale_range`, to either side of the guess. The
    centre may lie anywhere in the frame, and all eight orientations are tried.
    """
    target = np.sqrt(np.maximum(pattern, 0.0))
    half = max(pattern.shape) / 2
    rotations = guess.rotation + _steps(rotation_range, np.rad2deg(EDGE_SHIFT / half))
    scales = guess.scale * (1.0 + _steps(scale_range, EDGE_SHIFT / half))
    part, corner = _bright_part(light, 2 * half * float(scales.max()))
    amplitude = np.sqrt(np.maximum(part, 0.0))
    smooth = ndimage.gaussian_filter(amplitude, 0.4 * guess.scale)
    coarse = _search(smooth, target, list(product(rotations, scales)))
    spline = frame_spline(part, sampling=sampling)
    best: list[Scored] = []
    for fits in progress(coarse, desc="fine", unit="orientation"):
        fits.sort(key=lambda fit: fit[0], reverse=True)
        refined = [_refine(spline, target, start, sampling) for _, start in fits[:3]]
        best.append(max(refined, key=lambda fit: fit[0]))
    best.sort(key=lambda fit: fit[0], reverse=True)
    found = best[0][1]
    found = found._replace(centre_y=found.centre_y + corner[0], centre_x=found.centre_x + corner[1])
    return Registration(found, score=best[0][0], runner_up=best[1][0])


def _steps(reach: float, step: float) -> Float[np.ndarray, "n"]:
    """Returns values from -reach to reach, 0 among them, at most `step` apart."""
    return np.linspace(-reach, reach, 2 * int(np.ceil(reach / step)) + 1)


def _bright_part(
    light: Float[np.ndarray, "h w"], extent: float
) -> tuple[Float[np.ndarray, "ph pw"], tuple[int, int]]:
    """Returns the part of a frame around its brightest square, and its first row and column.

    The pattern is at most `extent` pixels wide, and its light may be anywhere in it. The middle of
    the square is therefore up to half its side from the middle of the pattern, and the pattern's
    corners reach half a diagonal further. A constant offset changes nothing.
    """
    side = int(np.ceil(extent))
    reach = int(np.ceil(side / 2 + side / np.sqrt(2)))
    sums = _box_sums(light, (min(side, light.shape[0]), min(side, light.shape[1])))
    first = np.unravel_index(np.argmax(sums), sums.shape)
    low = [max(0, int(start) + side // 2 - reach) for start in first]
    rows, columns = (slice(start, start + 2 * reach) for start in low)
    return light[rows, columns], (low[0], low[1])


def _search(
    smooth: Float[np.ndarray, "h w"],
    target: Float[np.ndarray, "sh sw"],
    turns: list[tuple[float, float]],
) -> list[list[Scored]]:
    """Returns the best centre of every (rotation, scale), in one list per orientation.

    A centre is found to a model sample. The frame is read once for all orientations, on a grid of
    model samples that covers it; the target is mirrored and transposed instead. All places of the
    target on that grid are scored at once, by normalised cross-correlation.
    """
    height, width = smooth.shape
    reach = int(np.ceil(np.hypot(height, width) / 2 / min(scale for _, scale in turns)))
    reach = max(reach, max(target.shape) // 2 + 1)
    grid = sensor_points((2 * reach + 1, 2 * reach + 1))
    oriented = [_oriented(target, *orientation) for orientation in ORIENTATIONS]
    padded: int = fft.next_fast_len(2 * reach + 1, real=True)  # type: ignore[assignment]
    size = (padded, padded)
    spectra = [np.asarray(fft.rfft2(one - one.mean(), size)).conj() for one, _ in oriented]
    norm = float(np.sum((target - target.mean()) ** 2))
    found: list[list[Scored]] = [[] for _ in ORIENTATIONS]
    for rotation, scale in progress(turns, desc="coarse", unit="turn"):
        upright = Geometry((height - 1) / 2, (width - 1) / 2, float(rotation), float(scale))
        seen = ndimage.map_coordinates(
            smooth, upright.camera_points(grid), order=1, mode="constant", cval=0.0
        )
        light = np.asarray(fft.rfft2(seen, size))
        deviations = {one.shape: _deviations(seen, one.shape) for one, _ in oriented}
        for number, (one, zero) in enumerate(oriented):
            deviation = deviations[one.shape]
            products = np.asarray(fft.irfft2(light * spectra[number], size))
            scores = products[: deviation.shape[0], : deviation.shape[1]] / deviation
            place = np.unravel_index(np.argmax(scores), scores.shape)
            centre = upright.camera_points(np.array(place) + np.array(zero) - float(reach))
            y, x = centre.tolist()
            flip, transpose = ORIENTATIONS[number]
            lie = upright._replace(centre_y=y, centre_x=x, flip=flip, transpose=transpose)
            found[number].append((float(scores[place]) / np.sqrt(norm), lie))
    return found


def _oriented(
    target: Float[np.ndarray, "sh sw"], flip: str, transpose: bool
) -> tuple[Float[np.ndarray, "oh ow"], tuple[int, int]]:
    """Returns the target as seen in an orientation, and the place of its zero frequency."""
    seen = target.T if transpose else target
    zero = [samples // 2 for samples in seen.shape]
    for axis, mirrors in enumerate((("vertical", "both"), ("horizontal", "both"))):
        if flip in mirrors:
            seen = np.flip(seen, axis)
            zero[axis] = seen.shape[axis] - 1 - zero[axis]
    return seen, (zero[0], zero[1])


def _deviations(
    seen: Float[np.ndarray, "gh gw"], shape: tuple[int, ...]
) -> Float[np.ndarray, "oh ow"]:
    """Returns the norm of the deviations from the mean, for each part of `seen` of this shape."""
    size = shape[0] * shape[1]
    variance = _box_sums(seen**2, shape) - _box_sums(seen, shape) ** 2 / size
    floor = 1e-3 * max(float(variance.max()), 1e-30)  # parts of the frame without any light
    return np.sqrt(np.maximum(variance, floor))


def _box_sums(
    image: Float[np.ndarray, "h w"], shape: tuple[int, ...]
) -> Float[np.ndarray, "oh ow"]:
    """Returns the sum over each part of an image that has this shape."""
    total = np.pad(image.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    rows = total[shape[0] :] - total[: -shape[0]]
    return rows[:, shape[1] :] - rows[:, : -shape[1]]


def _refine(
    spline: Float[np.ndarray, "h w"],
    target: Float[np.ndarray, "sh sw"],
    start: Geometry,
    sampling: str,
) -> Scored:
    """Refines the four numbers by Nelder and Mead's method; 1 is a model sample at the edge."""
    half = max(target.shape) / 2

    def moved(x: np.ndarray) -> Geometry:
        return start._replace(
            centre_y=start.centre_y + float(x[0]) * start.scale,
            centre_x=start.centre_x + float(x[1]) * start.scale,
            rotation=start.rotation + float(np.rad2deg(x[2] / half)),
            scale=start.scale * (1.0 + float(x[3]) / half),
        )

    def loss(x: np.ndarray) -> float:
        seen = sample_spline(spline, moved(x), target.shape, sampling=sampling)  # type: ignore[arg-type]
        amplitude = np.sqrt(np.maximum(seen, 0.0))
        if amplitude.std() == 0:
            return 1.0
        return -float(np.corrcoef(amplitude.ravel(), target.ravel())[0, 1])

    simplex = np.concatenate([np.zeros((1, 4)), 0.5 * np.eye(4)])
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6, "maxiter": 300}
    found = optimize.minimize(loss, np.zeros(4), method="Nelder-Mead", options=options)
    return -float(found.fun), moved(found.x)
