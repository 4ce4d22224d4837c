"""A calibration: the geometry and the gain of a bench, from frames of a known object."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jax_kdpr import json_files
from jax_kdpr.camera import centred
from jax_kdpr.errors import InputError
from jax_kdpr.frames.correction import check_exposure, check_light, correct
from jax_kdpr.frames.geometry import (
    FLIPS,
    Geometry,
    check_geometry,
    crop,
    in_window,
    join,
    pixel_envelope,
    sensor_points,
)
from jax_kdpr.frames.loaded import LoadedRun, simulate
from jax_kdpr.frames.measured import Setup, on_grid
from jax_kdpr.frames.reading import Frame, iterate_frames
from jax_kdpr.frames.registration import Registration, register
from jax_kdpr.types import Image

HALF_TURN = 0.01  # relative difference of amplitudes below which a pattern is its own half turn


class Calibration(NamedTuple):
    """What `reconstruct --calibration` reads."""

    geometry: Geometry  # in pixels of the raw frame
    counts_per_unit: float  # counts of a model pixel whose CDP is 1
    score: float
    runner_up: float
    trusted: bool
    checkpoint: str  # digest of the run's: another one has other masks
    sensor: tuple[int, int]  # (sh, sw) of the run


def calibrate(
    frames: list[Frame],
    setup: Setup,
    run: LoadedRun,
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
        checkpoint=run.trained.digest,
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


def _check_values(found: Calibration) -> None:
    """Raises `ValueError` or `TypeError` unless every value is one that calibrate can write."""
    centre_y, centre_x, rotation, scale, flip, transpose = found.geometry
    real = (centre_y, centre_x, rotation, scale, found.counts_per_unit, found.score)
    if not all(map(math.isfinite, (*real, found.runner_up))):
        raise ValueError("a number is not finite")
    if scale <= 0 or found.counts_per_unit <= 0:
        raise ValueError("scale and counts_per_unit are above 0")
    if flip not in FLIPS or not all(type(one) is bool for one in (transpose, found.trusted)):
        raise ValueError("no orientation")
    if not isinstance(found.checkpoint, str) or not all(
        type(samples) is int for samples in found.sensor
    ):
        raise TypeError("no digest, or no sensor")


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        InputError: If it is missing, damaged or of another kind.
    """
    try:
        values: dict[str, Any] = json_files.read_json(path)
        rows, columns = values["sensor"]
        geometry = Geometry(**values["geometry"])
        found = Calibration(**{**values, "geometry": geometry, "sensor": (rows, columns)})
        _check_values(found)
        return found
    except (InputError, TypeError, KeyError, ValueError) as failure:
        raise InputError(
            f"--calibration: {str(path)!r} is no calibration that can be read; make it with "
            "jax_kdpr.calibrate"
        ) from failure
