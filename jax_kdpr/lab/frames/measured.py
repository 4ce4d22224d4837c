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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.types import Image
from jax_kdpr.lab.frames.correction import (
    References,
    check_exposure,
    correct,
    make_correction,
)
from jax_kdpr.lab.frames.geometry import (
    POINT_NOISE,
    Geometry,
    Window,
    check_geometry,
    grid_window,
    pixel_envelope,
    sensor_points,
    to_sensor,
)
from jax_kdpr.lab.frames.reading import Frame, iterate_frames
from jax_kdpr.optics import cdp
from jax_kdpr.optics.camera import uncentred
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.optics.propagation import SHARED_ENVELOPE, shares_envelope
from jax_kdpr.runs.run import Run

# Of a frame, relative to a scene of modulus 1: beyond, the unit is no matter of an exposure, and
# 32-bit floats do not hold the squares.
ENERGIES = Range(1e-9, 1e9)


class Setup(NamedTuple):
    """How the frames of a bench become CDPs."""

    references: References
    window: Window  # that may be used of the frames
    geometry: Geometry  # in pixels of the raw frame
    sampling: str = "points"
    pixel_side: float = 0.0  # of the mask (`geometry.pixel_envelope`)
    offset: float = 0.0  # counts of a raw pixel to take away beside the dark
    counts_per_unit: float | None = None  # None: each frame has the energy of a scene of modulus 1


class Measured(NamedTuple):
    """One object's CDPs and what its frames said."""

    name: str  # of the first frame
    files: list[str]
    intensity: Float[np.ndarray, "k sh sw"]  # model units
    counts: list[float]  # of light on the model's grid, a frame
    energy: float  # over that of a scene of modulus 1; 1 by definition with the gain "auto"
    saturation: float  # largest share of saturated pixels of the window
    unused_bits: int  # fewest


def pixel_side(run: Run) -> float:
    """Side of a square mask pixel in mask pitches (`geometry.pixel_envelope`); 0 where near.

    Raises:
        InputError: If the pixels have no envelope in common.
    """
    if run.camera.propagation.propagator.axis_in_middle:
        return 0.0
    space = run.config.propagation
    if space.kind == "fresnel" and not shares_envelope(run.camera.size, space):
        raise InputError(
            f"--workdir: at a distance of {space.distance:g} m, below {SHARED_ENVELOPE} "
            "N p^2 / lambda, each square mask pixel has an envelope of its own, which frames "
            "are not corrected for; take a longer distance or a lens, or, where the mask's "
            "real pixels are finer than the model's, --mask_pixels point"
        )
    device = run.config.device
    # Of many panel pixels the gaps are spread over the mask pixel; finer masks are made of squares.
    if device.panel_pixels > 1 or run.camera.draws_finely:
        return 1.0
    return float(np.sqrt(device.fill_factor))


def blank_image(run: Run) -> Image:
    """Returns the scene without an object: phase 0, amplitude 1."""
    size = run.camera.size
    values = {"phase": [0.0], "amplitude": [1.0], "complex": [0.0, 1.0]}[run.camera.scene.kind]
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (size, size, len(values)))


def simulate(run: Run, image: Image) -> Float[np.ndarray, "k sh sw"]:
    """Returns the noiseless CDPs of a scene through the run's optics."""
    measure = jax.jit(cdp.measure_intensity, static_argnames="oversample")
    field, optics = scene_field(image, run.camera.scene), run.optics
    oversample = run.camera.oversample
    cdps = measure(field, optics.masks, oversample=oversample, transfer=optics.transfer)
    return np.asarray(cdps, np.float64)


def snapshot_energy(run: Run) -> Float[np.ndarray, "k"]:
    """Returns the sum of each CDP of a scene of modulus 1: h * w with ideal masks."""
    return simulate(run, blank_image(run)).sum(axis=(1, 2))


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


def narrowed(setup: Setup, run: Run) -> Setup:
    """Returns the setup with the part of its window that the model's grid needs.

    Raises:
        InputError: If the grid does not lie in the window.
    """
    window, geometry = setup.window, setup.geometry
    check_geometry(geometry.in_window(window), window.shape, run.sensor)
    return setup._replace(window=grid_window(window, geometry, run.sensor))


def measure_frames(groups: list[tuple[Frame, ...]], setup: Setup, run: Run) -> Iterator[Measured]:
    """Yields each object's CDPs, one after the other: memory holds one object's frames.

    Raises:
        InputError: If the setup (`narrowed`, `make_correction`) or a frame cannot be used.
    """
    setup = narrowed(setup, run)
    correction = make_correction(setup.references, setup.window)
    energies = snapshot_energy(run)
    pixels = iterate_frames([frame for group in groups for frame in group])
    for group in groups:
        parts, said = [], []
        for frame in group:
            raw = setup.window.crop(next(pixels))
            said.append(check_exposure(raw, frame.name))
            parts.append(on_grid(correct(raw, correction), setup, run))
        light = np.stack(parts)
        cdps = in_model_units(light, energies, setup.counts_per_unit, name=group[0].name)
        yield Measured(
            name=group[0].name,
            files=[str(frame.path) for frame in group],
            intensity=cdps.astype(np.float32),
            counts=light.sum(axis=(1, 2)).tolist(),
            energy=float(cdps.sum() / energies.sum()),
            saturation=max(one.saturation for one in said),
            unused_bits=min(one.unused_bits for one in said),
        )


def on_grid(light: Float[np.ndarray, "h w"], setup: Setup, run: Run) -> Float[np.ndarray, "sh sw"]:
    """Returns a corrected frame of the setup's window, in counts a model sample."""
    return to_sensor(
        setup.window.join(light - setup.offset),
        setup.geometry.in_window(setup.window),
        run.sensor,
        sampling=setup.sampling,
        axis=run.camera.axis,
        spacing=run.camera.spacing,
        pixel_side=setup.pixel_side,
    )


def in_model_units(
    light: Float[np.ndarray, "k sh sw"],
    energies: Float[np.ndarray, "k"],
    counts_per_unit: float | None,
    *,
    name: str,
) -> Float[np.ndarray, "k sh sw"]:
    """Returns one object's CDPs, from counts on the model's grid; its name is for messages.

    Counts a unit are those of a sample whose CDP is 1; None scales each frame to its energy.

    Raises:
        InputError: If a frame holds no light, or the object a light that no exposure explains.
    """
    counts = light.sum(axis=(1, 2))
    if np.any(counts <= 0):
        raise InputError(
            f"{name}: no light is left over the dark on the model's grid; check that --dark is of "
            "this exposure, and --centre"
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


def noise_sigma(setup: Setup, run: Run, counts: list[float]) -> Float[np.ndarray, "sh sw"]:
    """Returns the read noise in each model sample, model units, from the spread of dark frames.

    "area" adds the noise of scale^2 camera pixels; "points" reads one, times scale^2, with
    `POINT_NOISE` of the spline. It grows where the envelope of the mask's pixels is divided out.
    Where the spread is unknown it is 0. The counts are those on the grid of typical frames.
    """
    spread, bin = setup.references.spread or 0.0, setup.window.bin
    area = (setup.geometry.scale / bin) ** 2
    one = np.sqrt(area) if setup.sampling == "area" else POINT_NOISE * area
    pixel = spread * bin * one  # counts of bin^2 pixels are added: the noise grows with bin
    unit = setup.counts_per_unit or float(np.mean(counts) / np.mean(snapshot_energy(run)))
    envelope = pixel_envelope(sensor_points(run.sensor), run.camera.spacing, setup.pixel_side)
    return uncentred(pixel / unit / envelope, run.camera.axis)
