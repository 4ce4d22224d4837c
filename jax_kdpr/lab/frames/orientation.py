"""Tests on the first objects of a bench whether patterns or frames have a wrong orientation.

A pattern can be mirrored or turned about its own centre, for example if the mask is shown mirrored.
Or whole frames have been mirrored or turned about the frame's middle since their calibration, by a
setting of the camera or a program that saved them. Then the centre of the pattern moves too, and a
mirrored rotation changes its sense.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Intensities
from jax_kdpr.lab.frames.geometry import FLIPS, Geometry
from jax_kdpr.lab.frames.measured import Setup, measure_frames
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.lab.frames.recovery import Recover
from jax_kdpr.runs.run import Run

Turn = tuple[bool, bool, bool]  # transposed, then rows reversed, then columns reversed

TURNS: dict[str, Turn] = {
    "turned by 180 degrees": (False, True, True),
    "flipped vertically": (False, True, False),
    "flipped horizontally": (False, False, True),
    "transposed": (True, False, False),
    "turned by 90 degrees": (True, True, False),
    "turned by 270 degrees": (True, False, True),
    "transposed and turned by 180 degrees": (True, True, True),
}
BETTER = 0.8  # times the misfit: an orientation with less than this is more likely


def orientation_warning(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    recover: Recover,
    *,
    batch_size: int,
    limit: Callable[[int], float],
) -> str:
    """Returns a warning that another orientation explains the first objects far better; else "".

    A run that was trained with errors of the bench has large misfits, and hence a large limit: a
    pattern in a wrong orientation may stay below it. But the right orientation has a clearly
    smaller misfit. Whole frames are turned only if the misfit is above its limit, since each frame
    is read again for that.
    """
    first = groups[:batch_size]

    def measure(setup: Setup) -> Intensities:
        measured = [one.intensity for one in measure_frames(first, setup, run)]
        return jnp.asarray(np.stack([measured[i % len(first)] for i in range(batch_size)]))

    def misfit(cdps: Intensities) -> float:
        return float(np.median(np.asarray(recover(cdps).misfit)[: len(first)]))

    intensity = measure(setup)
    own = misfit(intensity)
    turns = progress(TURNS.items(), desc="orientation", unit="turn", leave=False)
    patterns = {name: misfit(turned(intensity, run.camera.axis, turn)) for name, turn in turns}
    frames = {}
    for name, turn in TURNS.items() if own > limit(len(first)) else ():
        geometry = turned_geometry(setup.geometry, setup.references.shape, turn)
        try:
            frames[name] = misfit(measure(setup._replace(geometry=geometry)))
        except InputError:  # the pattern would not lie in the frame
            continue
    best = min(patterns, key=lambda name: patterns[name])
    lowest = min(frames, key=lambda name: frames[name], default="")
    if lowest and frames[lowest] < min(patterns[best], BETTER * own):
        return (
            f"the frames fit far better {lowest}: median misfit {frames[lowest]:.3f} against "
            f"{own:.3f}; turn them back to how they were when the calibration was made, or "
            "calibrate again"
        )
    if patterns[best] > BETTER * own:
        return ""
    return (
        f"the patterns fit far better {best}: median misfit {patterns[best]:.3f} against {own:.3f};"
        " check --flip, --transpose, --rotate or the calibration, and how the mask was shown"
    )


def turned(intensity: Intensities, axis: tuple[int, int], turn: Turn) -> Intensities:
    """Returns CDPs of square sensors, turned about the optical axis (`camera.Camera.axis`)."""
    transpose, *reverse = turn
    if transpose:
        intensity = jnp.swapaxes(intensity, -1, -2)
    for dimension in (0, 1):
        if reverse[dimension]:
            size = intensity.shape[dimension - 2]
            mirrored = (2 * axis[dimension] - jnp.arange(size)) % size
            intensity = jnp.take(intensity, mirrored, axis=dimension - 2)
    return intensity


def turned_geometry(geometry: Geometry, shape: tuple[int, int], turn: Turn) -> Geometry:
    """Returns the geometry of a pattern in turned frames, whose shape is (rows, columns)."""
    transpose, reverse_rows, reverse_columns = turn
    y, x, rotation, scale, flip, transposed = geometry
    vertical, horizontal = flip in ("vertical", "both"), flip in ("horizontal", "both")
    if transpose:
        y, x, rotation = x, y, -rotation
        vertical, horizontal, transposed = horizontal, vertical, not transposed
    if reverse_rows:
        y, rotation, vertical = shape[0] - 1 - y, -rotation, not vertical
    if reverse_columns:
        x, rotation, horizontal = shape[1] - 1 - x, -rotation, not horizontal
    return Geometry(y, x, rotation, scale, FLIPS[vertical + 2 * horizontal], transposed)
