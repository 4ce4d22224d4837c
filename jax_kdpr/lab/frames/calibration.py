"""A calibration: the geometry and the gain of a bench, from frames of a known object."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.types import Image
from jax_kdpr.lab.frames.correction import check_exposure, check_light, correct
from jax_kdpr.lab.frames.geometry import (
    FLIPS,
    Geometry,
    check_geometry,
    crop,
    in_window,
    join,
    pixel_envelope,
    sensor_points,
)
from jax_kdpr.lab.frames.loaded import simulate
from jax_kdpr.lab.frames.measured import Setup, on_grid
from jax_kdpr.lab.frames.reading import Frame, iterate_frames
from jax_kdpr.lab.frames.registration import Registration, register
from jax_kdpr.optics.camera import centred
from jax_kdpr.runs.run import Run

HALF_TURN = 0.01  # relative difference of amplitudes below which a pattern is its own half turn


CALIBRATION = {
    "geometry": {
        **dict.fromkeys(("centre_y", "centre_x", "rotation"), float),
        # Wider than --scale and what is searched around it.
        **{"scale": Range(0.01, 10_000), "flip": str, "transpose": bool},
    },
    **dict.fromkeys(("score", "runner_up"), float),
    "counts_per_unit": Range(1e-30, 1e30),
    **{"trusted": bool, "checkpoint": str, "sensor": (int, int)},
}


class Calibration(NamedTuple):
    """What `reconstruct --calibration` reads."""

    geometry: Geometry  # in pixels of the raw frame
    counts_per_unit: float  # counts of a model sample whose CDP is 1
    score: float
    runner_up: float
    trusted: bool
    checkpoint: str  # digest of the run's: another one has other masks
    sensor: tuple[int, int]  # (sh, sw) of the run


def calibrate(
    frames: list[Frame],
    setup: Setup,
    run: Run,
    image: Image,
    *,
    rotation_range: float,
    scale_range: float,
) -> Calibration:
    """Registers the snapshots of a known object: the geometry of the best fit of them.

    Args:
        frames: One a snapshot.
        setup: Its geometry is the guess.
        run: The run.
        image: Of the object.
        rotation_range: See `registration.register`.
        scale_range: Likewise.

    Raises:
        InputError: If the object does not tell the orientations apart, a frame cannot be used, or
            the pattern that was found is cut off.
    """
    expected = simulate(run, image)
    check_orientation(np.stack([centred(pattern, run.camera.axis) for pattern in expected]))
    lights = []
    for frame, whole in zip(frames, iterate_frames(frames), strict=True):
        raw = crop(whole, setup.window)
        check_exposure(raw, frame.name)
        lights.append(correct(raw, setup.correction))
    seen_as = pixel_envelope(sensor_points(run.sensor), run.sensor, setup.pixel_side)
    found: list[Registration] = []
    for light, pattern in zip(lights, expected, strict=True):
        found.append(
            register(
                join(light, setup.window),
                centred(pattern, run.camera.axis) * seen_as,
                in_window(setup.geometry, setup.window),
                rotation_range=rotation_range,
                scale_range=scale_range,
                sampling=setup.sampling,
            )
        )
    best = max(found, key=lambda one: one.score - one.runner_up)
    if best.trusted:  # else it is not known where the pattern lies
        check_geometry(
            best.geometry,
            (setup.window.height // setup.window.bin, setup.window.width // setup.window.bin),
            run.sensor,
            flags="--input",
            remedy="give a larger --crop, or move the camera so that it sees the whole pattern",
        )
    geometry = _in_frame(best.geometry, setup)
    placed = setup._replace(geometry=geometry)
    seen = np.stack([on_grid(light, placed, run) for light in lights])
    # Not earlier: far from the pattern a whole chip's offset can outweigh all the light.
    check_light(seen, frames[0].name)
    return Calibration(
        geometry,
        counts_per_unit=float(seen.sum() / expected.sum()),
        score=best.score,
        runner_up=best.runner_up,
        trusted=best.trusted,
        checkpoint=run.digest,
        sensor=run.sensor,
    )


def check_orientation(patterns: Float[np.ndarray, "k sh sw"]) -> None:
    """Refuses an object whose patterns are all their own half turn: no fit could be trusted.

    So is the pattern of every real field: of a mask of phases 0 and pi without an object.

    Args:
        patterns: Expected, zero frequency at [sh // 2, sw // 2].

    Raises:
        InputError: If no amplitude differs by more than `HALF_TURN` from its half turn.
    """
    if all(_half_turn_error(pattern) <= HALF_TURN for pattern in patterns):
        raise InputError(
            "--object: the expected pattern looks the same turned by 180 degrees, so that its "
            "orientation cannot be found; put a known object without symmetry into the beam, and "
            "give its image"
        )


def _half_turn_error(pattern: Float[np.ndarray, "sh sw"]) -> float:
    """Relative difference of the amplitudes; a first row of even sizes has no counterpart."""
    first = [1 - samples % 2 for samples in pattern.shape]
    amplitude = np.sqrt(np.maximum(pattern[first[0] :, first[1] :], 0.0))
    difference = np.linalg.norm(amplitude - amplitude[::-1, ::-1])
    return float(difference / max(np.linalg.norm(amplitude), 1e-30))


def _in_frame(geometry: Geometry, setup: Setup) -> Geometry:
    """The inverse of `in_window`: raw pixels."""
    window = setup.window
    return geometry._replace(
        centre_y=(geometry.centre_y + 0.5) * window.bin - 0.5 + window.y,
        centre_x=(geometry.centre_x + 0.5) * window.bin - 0.5 + window.x,
        scale=geometry.scale * window.bin,
    )


def write_calibration(path: Path, found: Calibration) -> None:
    """Writes calibration.json, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write_json(path, {**found._asdict(), "geometry": found.geometry._asdict()})


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        InputError: If it is missing, damaged or of another kind.
    """
    try:
        values = json_files.read_json(path, CALIBRATION)
        geometry = {name: values["geometry"][name] for name in Geometry._fields}
        known = {name: values[name] for name in Calibration._fields}
        found = Calibration(
            **{**known, "geometry": Geometry(**geometry), "sensor": tuple(values["sensor"])}
        )
        if found.geometry.flip not in FLIPS:
            raise InputError(f"flip: expected one of {', '.join(FLIPS)}")
        return found
    except InputError as failure:
        raise InputError(
            f"--calibration: {str(path)!r} is no calibration that can be read; make it with "
            "jax_kdpr.calibrate"
        ) from failure


def in_words(found: Calibration) -> str:
    """Returns two lines: where the pattern lies, and how sure that is."""
    geometry = found.geometry
    return (
        f"centre {geometry.centre_y:.2f}, {geometry.centre_x:.2f}; rotation "
        f"{geometry.rotation:.3f} degrees; scale {geometry.scale:.4f}; flip {geometry.flip}"
        f"{', transposed' if geometry.transpose else ''}; {found.counts_per_unit:.5g} counts a unit"
        f"\nscore {found.score:.3f}, best of another orientation {found.runner_up:.3f}"
    )


def calibration_notes(calibration: Calibration, run: Run, source: str) -> list[str]:
    """Returns what speaks against the use of a calibration for a run.

    Args:
        calibration: From `read_calibration`.
        run: The run.
        source: What the notes call it.

    Raises:
        InputError: If it is for another sensor grid.
    """
    if calibration.sensor != run.sensor:
        raise InputError(
            f"--calibration: expected a sensor grid of {run.sensor[0]} x {run.sensor[1]}, got "
            f"{calibration.sensor[0]} x {calibration.sensor[1]}; calibrate with this run"
        )
    notes = []
    if not calibration.trusted:
        notes.append(f"{source} says of itself that it is not to be trusted")
    if calibration.checkpoint != run.digest:
        notes.append(
            f"{source} is of another checkpoint ({calibration.checkpoint[:12]}, the run's is "
            f"{run.digest[:12]}): where its masks were others, calibrate again"
        )
    return notes
