"""Corrects and resamples the frames of a bench, object by object, to the CDPs that a system takes.

A run of L snapshots takes L frames of each object. In the order of names (2 before 10) the first L
frames show the first object through masks 1 to L, and so on.

Unit: the CDP of a scene of modulus 1 sums to `snapshot_energy` (h * w with ideal masks). Such
scenes need no gain: each frame is scaled to that sum ("auto"), whatever the lamp and the exposure
were. For a scene with an amplitude the sum is unknown. Its counts are divided by the counts a unit,
which are given, or come from a calibration with the same lamp and exposure.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.config.schema import Config
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
    sampling_note,
    sensor_points,
    to_sensor,
)
from jax_kdpr.lab.frames.reading import Frame, iterate_frames
from jax_kdpr.optics.camera import Camera, draws_finely, uncentred
from jax_kdpr.optics.propagation import SHARED_ENVELOPE, shares_envelope
from jax_kdpr.runs.run import Run

# Energy of an object's frames relative to a scene of modulus 1. Outside this range, no exposure
# explains the unit, and 32-bit floats do not hold the squares.
ENERGIES = Range(1e-9, 1e9)


class Setup(NamedTuple):
    """How the frames of a bench become CDPs."""

    references: References
    window: Window  # part of the frames that may be used
    geometry: Geometry  # in pixels of the raw frame
    sampling: str = "points"
    pixel_side: float = 0.0  # of the mask's pixels (`geometry.pixel_envelope`)
    offset: float = 0.0  # counts of a raw pixel to subtract besides the dark
    counts_per_unit: float | None = None  # None: each frame has the energy of a scene of modulus 1


class Measured(NamedTuple):
    """One object's CDPs and what its frames said."""

    name: str  # name of the first frame
    files: list[str]
    intensity: Float[np.ndarray, "k sh sw"]  # model units
    counts: list[float]  # light of each frame on the model's grid
    energy: float  # relative to a scene of modulus 1; 1 by definition with the gain "auto"
    saturation: float  # share of saturated pixels in the window, largest of the frames
    unused_bits: int  # fewest of the frames


def pixel_side(run: Run) -> float:
    """Returns the side of a square mask pixel in mask pitches, for `geometry.pixel_envelope`.

    It is 0 for "angular_spectrum".

    Raises:
        InputError: If the pixels do not share one envelope.
    """
    if run.camera.propagation.propagator.keeps_pitch:
        return 0.0
    space = run.config.propagation
    if space.kind == "fresnel" and not shares_envelope(run.camera.size, space):
        raise InputError(
            f"--workdir: at a distance of {space.distance:g} m, below {SHARED_ENVELOPE} "
            "N p^2 / lambda, each square mask pixel has an envelope of its own, which frames "
            "are not corrected for; take a longer distance or a lens, or, where the mask's "
            "real pixels are finer than the model's, --mask_pixels point"
        )
    return float(np.sqrt(mask_fill_factor(run.config)))


def mask_fill_factor(config: Config) -> float:
    """Returns the share of a mask pixel's area that its square envelope stands for."""
    device = config.device
    # The gaps of several panel pixels are spread over the mask pixel; finer masks are of squares.
    if device.panel_pixels > 1 or draws_finely(device, config.mount, config.propagation):
        return 1.0
    return device.fill_factor


def blank_image(camera: Camera) -> Image:
    """Returns the scene without an object: phase 0, amplitude 1."""
    size = camera.size
    values = {"phase": [0.0], "amplitude": [1.0], "complex": [0.0, 1.0]}[camera.scene.kind]
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (size, size, len(values)))


def simulate(run: Run, image: Image) -> Float[np.ndarray, "k sh sw"]:
    """Returns the noiseless CDPs of a scene through the run's optics."""
    clean = jax.jit(Camera.clean, static_argnums=0)  # compiled once for each camera
    return np.asarray(clean(run.camera, run.optics, image), np.float64)


def snapshot_energy(run: Run) -> Float[np.ndarray, "k"]:
    """Returns the sum of each CDP of a scene of modulus 1: h * w with ideal masks."""
    return simulate(run, blank_image(run.camera)).sum(axis=(1, 2))


def group_frames(frames: list[Frame], snapshots: int) -> list[tuple[Frame, ...]]:
    """Returns the frames of each object.

    Raises:
        InputError: If some frames are left over.
    """
    if len(frames) % snapshots:
        raise InputError(
            f"--input: expected a multiple of {snapshots} frames, {snapshots} snapshots of each "
            f"object in the order of their names, got {len(frames)}; add or leave out frames"
        )
    return [tuple(frames[first : first + snapshots]) for first in range(0, len(frames), snapshots)]


def narrowed(setup: Setup, run: Run) -> Setup:
    """Returns the setup with its window reduced to what the model's grid needs.

    Raises:
        InputError: If the grid does not lie in the window.
    """
    window, geometry = setup.window, setup.geometry
    check_geometry(geometry.in_window(window), window.shape, run.sensor)
    return setup._replace(window=grid_window(window, geometry, run.sensor))


def measure_frames(groups: list[tuple[Frame, ...]], setup: Setup, run: Run) -> Iterator[Measured]:
    """Yields the CDPs of one object after another; memory holds the frames of one object.

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
    """Resamples a corrected frame of the setup's window to counts per model sample."""
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
    """Returns one object's CDPs, from counts on the model's grid; `name` is for messages.

    `counts_per_unit` are the counts of a sample whose CDP is 1; None scales each frame to its
    energy.

    Raises:
        InputError: If a frame holds no light, or no exposure explains the light of the object.
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


def coarseness(setup: Setup, run: Run) -> str:
    """Returns a warning that the camera's pixels do not suit the pattern; empty where they do."""
    bin = setup.window.bin
    camera_pixels = run.camera.finest_period * setup.geometry.scale / bin
    return sampling_note(camera_pixels, bin=bin, sampling=setup.sampling)


def noise_sigma(setup: Setup, run: Run, counts: list[float]) -> Float[np.ndarray, "sh sw"]:
    """Returns the read noise of each model sample, in model units, from the spread of dark frames.

    "area" adds the noise of scale^2 camera pixels. "points" reads one pixel, times scale^2, with
    the `POINT_NOISE` of the spline. The noise grows where the envelope of the mask's pixels is
    divided out. It is 0 if the spread is unknown. `counts` are the light of typical frames on the
    grid.
    """
    spread, bin = setup.references.spread or 0.0, setup.window.bin
    area = (setup.geometry.scale / bin) ** 2
    one = np.sqrt(area) if setup.sampling == "area" else POINT_NOISE * area
    pixel = spread * bin * one  # counts of bin^2 pixels are added: the noise grows with bin
    unit = setup.counts_per_unit or float(np.mean(counts) / np.mean(snapshot_energy(run)))
    envelope = pixel_envelope(sensor_points(run.sensor), run.camera.spacing, setup.pixel_side)
    return uncentred(pixel / unit / envelope, run.camera.axis)
