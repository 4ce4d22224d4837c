"""Whether patterns or frames lie wrongly, and how: tried on the first objects of a bench.

A pattern can lie wrongly on the camera (a mask that is shown mirrored), about its own centre. Or
whole frames are turned since their calibration (a setting of the camera, a program that saved
them), about the frame's middle: the centre moves with them, and a rotation changes its sense.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Intensities
from jax_kdpr.lab.frames.geometry import FLIPS, Geometry
from jax_kdpr.lab.frames.measured import Setup, measure_frames
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.lab.frames.recovery import Recover
from jax_kdpr.runs.run import Run

Turn = tuple[bool, bool, bool]  # transposed, rows reversed, columns reversed

TURNS: dict[str, Turn] = {
    "turned by 180 degrees": (False, True, True),
    "flipped vertically": (False, True, False),
    "flipped horizontally": (False, False, True),
    "transposed": (True, False, False),
    "turned by 90 degrees": (True, True, False),
    "turned by 270 degrees": (True, False, True),
    "transposed and turned by 180 degrees": (True, True, True),
}
BETTER = 0.8  # times the misfit: another orientation that comes below is the likelier one


def orientation_warning(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    recover: Recover,
    *,
    batch_size: int,
    shape: tuple[int, int],
    make_setup: Callable[[Geometry], Setup],
    limit: Callable[[int], float],
) -> str:
    """Says which other orientation explains the first objects far better; "" if none does.

    Runs that were trained with errors of the bench stand large misfits, and so does their limit: a
    pattern that lies wrongly may stay below it. Against the right one it loses clearly. Whole
    frames are turned only where the misfit is above its limit: each is read again for it.

    Args:
        groups: The frames of each object; one batch at most is read.
        setup: Of the bench.
        run: The run.
        recover: Of `recovery.make_recover`.
        batch_size: Objects at a time.
        shape: Of a raw frame.
        make_setup: make_setup(geometry) -> the same bench with another geometry; raises
            `InputError` where its grid does not lie in the frame.
        limit: limit(n) -> what the median misfit of n objects may be.
    """
    first = groups[:batch_size]

    def measure(setup: Setup) -> Intensities:
        measured = [one.intensity for one in measure_frames(first, setup, run)]
        return jnp.asarray(np.stack([measured[i % len(first)] for i in range(batch_size)]))

    def misfit(cdps: Intensities) -> float:
        return float(np.median(np.asarray(recover(cdps).misfit)[: len(first)]))

    intensity = measure(setup)
    own = misfit(intensity)
    patterns = {
        name: misfit(turned(intensity, run.camera.axis, *turn)) for name, turn in TURNS.items()
    }
    frames = {}
    for name, turn in TURNS.items() if own > limit(len(first)) else ():
        try:
            other = make_setup(turned_geometry(setup.geometry, shape, *turn))
            frames[name] = misfit(measure(other))
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


def turned(
    intensity: Intensities,
    axis: tuple[int, int],
    transpose: bool,
    reverse_rows: bool,
    reverse_columns: bool,
) -> Intensities:
    """Returns CDPs transposed, then reversed, about the optical axis.

    Args:
        intensity: Of square sensors.
        axis: Of the model (`camera.Camera.axis`).
        transpose: Whether rows and columns change places first.
        reverse_rows: Whether then the order of the rows is reversed.
        reverse_columns: And that of the columns.
    """
    if transpose:
        intensity = jnp.swapaxes(intensity, -1, -2)
    for dimension, place, reverse in ((-2, axis[0], reverse_rows), (-1, axis[1], reverse_columns)):
        if reverse:
            size = intensity.shape[dimension]
            mirrored = (2 * place - jnp.arange(size)) % size
            intensity = jnp.take(intensity, mirrored, axis=dimension)
    return intensity


def turned_geometry(
    geometry: Geometry,
    shape: tuple[int, int],
    transpose: bool,
    reverse_rows: bool,
    reverse_columns: bool,
) -> Geometry:
    """Returns where a pattern lies in frames that are transposed, then reversed.

    Args:
        geometry: Before that.
        shape: (rows, columns) of the frames after it.
        transpose: Whether rows and columns change places first.
        reverse_rows: Whether then the order of the rows is reversed.
        reverse_columns: And that of the columns.
    """
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
