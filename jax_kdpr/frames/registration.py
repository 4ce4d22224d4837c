"""Where the pattern lies on the camera, found from a frame of an object that is known.

    coarse: every orientation, rotation and scale of a grid, all shifts at once by cross-correlation
    fine:   centre, rotation and scale of the best of each orientation, by Nelder and Mead

Patterns are compared by Pearson's correlation of their amplitudes: no gain, no offset enters.

The fit is trusted if its correlation is at least `MIN_SCORE` and at least `MIN_LEAD` above that of
the best fit in another orientation. The other seven orientations are wrong by design and have been
searched as hard, so their best says what chance gives on this pattern.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage, optimize

from jax_kdpr.frames.geometry import (
    FLIPS,
    SPLINE,
    Geometry,
    camera_points,
    sample_spline,
    sensor_points,
)

MIN_SCORE = 0.8
MIN_LEAD = 0.15
EDGE_SHIFT = 0.7  # model pixels by which one step of the grid moves the pattern's edge


class Registration(NamedTuple):
    """What was found."""

    geometry: Geometry
    score: float  # correlation of the amplitudes, 1 for a perfect fit
    runner_up: float  # of the best fit in another orientation

    @property
    def trusted(self) -> bool:
        """Whether to believe it; see above."""
        return self.score >= MIN_SCORE and self.score - self.runner_up >= MIN_LEAD


def register(
    light: Float[np.ndarray, "h w"],
    pattern: Float[np.ndarray, "sh sw"],
    guess: Geometry,
    *,
    rotation_range: float = 10.0,
    scale_range: float = 0.15,
    sampling: str = "points",
) -> Registration:
    """Finds the geometry in which a frame shows a known pattern.

    Args:
        light: Corrected frame, after `geometry.join`.
        pattern: Expected CDP, zero frequency at [sh // 2, sw // 2].
        guess: Its scale and rotation are where the search begins; the centre is found anywhere in
            the frame, and all eight orientations are tried.
        rotation_range: Degrees to search on either side.
        scale_range: Relative change of scale to search on either side.
        sampling: As `geometry.to_sensor`.
    """
    amplitude = np.sqrt(np.maximum(light, 0.0))
    target = np.sqrt(np.maximum(pattern, 0.0))
    half = max(pattern.shape) / 2
    rotations = guess.rotation + _steps(rotation_range, np.rad2deg(EDGE_SHIFT / half))
    scales = guess.scale * (1.0 + _steps(scale_range, EDGE_SHIFT / half))
    spline = ndimage.spline_filter(light, order=SPLINE, mode="mirror")
    smooth = ndimage.gaussian_filter(amplitude, 0.4 * guess.scale)
    best: list[tuple[float, Geometry]] = []
    for flip, transpose in product(FLIPS, (False, True)):
        coarse = [
            _best_shift(
                smooth, target, Geometry(0.0, 0.0, float(rotation), float(scale), flip, transpose)
            )
            for rotation, scale in product(rotations, scales)
        ]
        coarse.sort(key=lambda found: found[0], reverse=True)
        refined = [_refine(spline, target, start, sampling) for _, start in coarse[:3]]
        best.append(max(refined, key=lambda found: found[0]))
    best.sort(key=lambda found: found[0], reverse=True)
    return Registration(best[0][1], score=best[0][0], runner_up=best[1][0])


def _steps(reach: float, step: float) -> Float[np.ndarray, "n"]:
    """Values from -reach to reach, 0 among them, at most `step` apart."""
    count = int(np.ceil(reach / step))
    return np.linspace(-reach, reach, 2 * count + 1)


def _best_shift(
    smooth: Float[np.ndarray, "h w"], target: Float[np.ndarray, "sh sw"], geometry: Geometry
) -> tuple[float, Geometry]:
    """The best centre for one orientation, rotation and scale, to a model pixel.

    The frame is read on a grid of model pixels that covers it, and every place of the target on
    that grid is scored at once: normalised cross-correlation.
    """
    height, width = smooth.shape
    middle = geometry._replace(centre_y=(height - 1) / 2, centre_x=(width - 1) / 2)
    reach = int(np.ceil(np.hypot(height, width) / 2 / geometry.scale))
    reach = max(reach, max(target.shape) // 2 + 1)
    grid = (2 * reach + 1, 2 * reach + 1)
    seen = ndimage.map_coordinates(
        smooth, camera_points(middle, sensor_points(grid)), order=1, mode="constant", cval=0.0
    )
    scores = _cross_correlation(seen, target)
    row, column = np.unravel_index(np.argmax(scores), scores.shape)
    # Where the target's zero frequency falls, from the middle of the grid.
    u = np.array([row + target.shape[0] // 2 - reach, column + target.shape[1] // 2 - reach])
    centre = camera_points(middle, u.astype(float))
    return float(scores[row, column]), geometry._replace(
        centre_y=float(centre[0]), centre_x=float(centre[1])
    )


def _cross_correlation(
    seen: Float[np.ndarray, "gh gw"], target: Float[np.ndarray, "sh sw"]
) -> Float[np.ndarray, "oh ow"]:
    """Pearson's correlation of the target with each part of `seen` of its size."""
    template = target - target.mean()
    kept = tuple(slice(0, g - t + 1) for g, t in zip(seen.shape, target.shape, strict=True))

    def sums(image, kernel):
        product = np.fft.rfft2(image) * np.conj(np.fft.rfft2(kernel, image.shape))
        return np.fft.irfft2(product, image.shape)[kept]

    window = np.ones_like(target)
    variance = sums(seen**2, window) - sums(seen, window) ** 2 / target.size
    floor = 1e-3 * max(float(variance.max()), 1e-30)  # parts of the frame without any light
    return sums(seen, template) / np.sqrt(np.maximum(variance, floor) * np.sum(template**2))


def _refine(
    spline: Float[np.ndarray, "h w"],
    target: Float[np.ndarray, "sh sw"],
    start: Geometry,
    sampling: str,
) -> tuple[float, Geometry]:
    """Nelder and Mead on the four numbers, each in units of one model pixel at the edge."""
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
