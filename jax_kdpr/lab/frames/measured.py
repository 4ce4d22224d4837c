"""Frames of one bench, corrected and resampled, group by group: the CDPs that a system takes.

A run of L snapshots takes L frames an object: the first L by name (2 before 10) show the first
object through masks 1 to L, and so on.

Unit: a CDP of a scene of modulus 1 sums to `snapshot_energy` (h * w with ideal masks). Such scenes
need no gain: each frame is scaled to that sum ("auto"), whatever lamp or exposure did. The sum over
a scene with an amplitude is unknown; there counts are divided by the counts a unit, from a
calibration (of the same lamp and exposure) or given.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.lab.frames.correction import Correction, check_exposure, check_light, correct
from jax_kdpr.lab.frames.geometry import (
    POINT_NOISE,
    Geometry,
    Window,
    crop,
    in_window,
    join,
    pixel_envelope,
    sensor_points,
    to_sensor,
)
from jax_kdpr.lab.frames.loaded import snapshot_energy
from jax_kdpr.lab.frames.reading import Frame, iterate_frames
from jax_kdpr.runs.run import Run

# Of a frame, relative to a scene of modulus 1: beyond, the unit is no matter of an exposure, and
# 32-bit floats do not hold the squares.
ENERGIES = Range(1e-9, 1e9)


class Setup(NamedTuple):
    """How the frames of a bench become CDPs."""

    correction: Correction  # of the window alone
    window: Window
    geometry: Geometry  # in pixels of the raw frame
    sampling: str
    pixel_side: float  # of the mask (`geometry.pixel_envelope`)
    counts_per_unit: float | None  # None scales each frame to the energy of a scene of modulus 1


class Measured(NamedTuple):
    """One object's CDPs and what its frames said."""

    name: str  # of the first frame
    files: list[str]
    intensity: Float[np.ndarray, "k sh sw"]  # model units
    counts: list[float]  # of light on the model's grid, a frame
    energy: float  # over that of a scene of modulus 1; 1 by definition with the gain "auto"
    saturation: float  # largest share of saturated pixels of the window
    unused_bits: int  # fewest


def group_frames(frames: list[Frame], snapshots: int) -> list[tuple[Frame, ...]]:
    """Returns the frames of each object.

    Raises:
        InputError: If some are left over.
    """
    if len(frames) % snapshots:
        raise InputError(
            f"--input: expected a multiple of {snapshots} frames, {snapshots} snapshots of each "
            f"object in the order of their names, got {len(frames)}; add or leave out frames"
        )
    return [tuple(frames[first : first + snapshots]) for first in range(0, len(frames), snapshots)]


def measure_frames(groups: list[tuple[Frame, ...]], setup: Setup, run: Run) -> Iterator[Measured]:
    """Yields each object's CDPs, one after the other: memory holds one object's frames.

    Raises:
        InputError: If a frame cannot be used.
    """
    energies = snapshot_energy(run)
    pixels = iterate_frames([frame for group in groups for frame in group])
    for group in groups:
        parts, said = [], []
        for frame in group:
            raw = crop(next(pixels), setup.window)
            said.append(check_exposure(raw, frame.name))
            light = correct(raw, setup.correction)
            check_light(light, frame.name)
            parts.append(on_grid(light, setup, run))
        light = np.stack(parts)
        cdps = in_model_units(light, energies, setup.counts_per_unit, name=group[0].name)
        yield Measured(
            name=group[0].name,
            files=[str(frame.path) for frame in group],
            intensity=cdps.astype(np.float32),
            counts=[float(value) for value in light.sum(axis=(1, 2))],
            energy=float(cdps.sum() / energies.sum()),
            saturation=max(one.saturation for one in said),
            unused_bits=min(one.unused_bits for one in said),
        )


def in_model_units(
    light: Float[np.ndarray, "k sh sw"],
    energies: Float[np.ndarray, "k"],
    counts_per_unit: float | None,
    *,
    name: str,
) -> Float[np.ndarray, "k sh sw"]:
    """Returns one object's CDPs, from counts on the model's grid.

    Args:
        light: The counts.
        energies: `snapshot_energy`.
        counts_per_unit: Of a sample whose CDP is 1; None scales each frame to its energy.
        name: Of the object, for messages.

    Raises:
        InputError: If a frame holds no light, or the object a light that no exposure explains.
    """
    counts = light.sum(axis=(1, 2))
    if np.any(counts <= 0):
        raise InputError(
            f"{name}: no light falls on the model's grid; check --centre, --crop and --dark"
        )
    scale = energies / counts if counts_per_unit is None else 1 / counts_per_unit
    cdps = light * np.reshape(scale, (-1, 1, 1))
    energy = float(cdps.sum() / energies.sum())
    if not ENERGIES.holds(energy):
        raise InputError(
            f"{name}: it holds {energy:.3g} times the light of a scene of modulus 1, expected "
            "about as much, or less of an amplitude; check --gain or --calibration"
        )
    return cdps


def on_grid(light: Float[np.ndarray, "h w"], setup: Setup, run: Run) -> Float[np.ndarray, "sh sw"]:
    """Returns a corrected frame on the model's grid, in counts a model sample."""
    return to_sensor(
        join(light, setup.window),
        in_window(setup.geometry, setup.window),
        run.sensor,
        sampling=setup.sampling,
        axis=run.camera.axis,
        pixel_side=setup.pixel_side,
    )


def noise_sigma(
    spread: float | None, setup: Setup, run: Run, counts: list[float]
) -> Float[np.ndarray, "sh sw"]:
    """Returns the read noise in each model sample, model units, from the spread of dark frames.

    "area" adds the noise of scale^2 camera pixels; "points" reads one, times scale^2, with
    `POINT_NOISE` of the spline. It grows where the envelope of the mask's pixels is divided out.

    Args:
        spread: Standard deviation of a dark pixel from frame to frame, counts; None if unknown.
        setup: Of the bench.
        run: The run.
        counts: Of light on the grid, of typical frames.
    """
    if spread is None:
        return np.zeros(run.sensor)
    area = in_window(setup.geometry, setup.window).scale ** 2
    joined = setup.window.bin  # counts of bin^2 pixels are added: the noise grows with bin
    one = np.sqrt(area) if setup.sampling == "area" else POINT_NOISE * area
    pixel = spread * joined * one
    unit = setup.counts_per_unit or float(np.mean(counts) / np.mean(snapshot_energy(run)))
    envelope = pixel_envelope(sensor_points(run.sensor), run.sensor, setup.pixel_side)
    middle = [place - n // 2 for place, n in zip(run.camera.axis, run.sensor, strict=True)]
    return np.roll(pixel / unit / envelope, middle, axis=(0, 1))
