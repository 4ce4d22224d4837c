"""A calibration: the geometry and the gain of a bench, from frames of a known object."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_kdpr import run_folder
from jax_kdpr.camera import centred
from jax_kdpr.errors import InputError
from jax_kdpr.frames.correction import check_exposure, check_light, correct
from jax_kdpr.frames.geometry import Geometry, check_geometry, crop, in_window, join
from jax_kdpr.frames.loaded import LoadedRun, simulate
from jax_kdpr.frames.measured import Setup, on_grid
from jax_kdpr.frames.reading import Frame, iterate_frames
from jax_kdpr.frames.registration import Registration, register
from jax_kdpr.types import Image


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
        InputError: If a frame cannot be used, or the pattern that was found is cut off.
    """
    expected = simulate(run, image)
    lights = []
    for frame, whole in zip(frames, iterate_frames(frames), strict=True):
        raw = crop(whole, setup.window)
        check_exposure(raw, frame.name)
        lights.append(correct(raw, setup.correction))
    found: list[Registration] = []
    for light, pattern in zip(lights, expected, strict=True):
        found.append(
            register(
                join(light, setup.window),
                centred(pattern, run.camera.axis),
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
    run_folder.write_json(path, {**found._asdict(), "geometry": found.geometry._asdict()})


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        InputError: If it is missing, damaged or of another kind.
    """
    try:
        values: dict[str, Any] = run_folder.read_json(path)
        rows, columns = values["sensor"]
        geometry = Geometry(**values["geometry"])
        return Calibration(**{**values, "geometry": geometry, "sensor": (rows, columns)})
    except (InputError, TypeError, KeyError, ValueError) as failure:
        raise InputError(
            f"--calibration: {str(path)!r} is no calibration that can be read; make it with "
            "jax_kdpr.calibrate"
        ) from failure
