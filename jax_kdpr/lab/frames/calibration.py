"""Calibrates a bench from known objects: its geometry, its gain and, if asked for, its optics."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.limits import Range
from jax_kdpr.core.types import Image, Images
from jax_kdpr.lab.frames.correction import check_exposure, correct, make_correction
from jax_kdpr.lab.frames.fitting import Fit, Shot, fit_optics
from jax_kdpr.lab.frames.geometry import (
    FLIPS,
    SAMPLINGS,
    Geometry,
    centred_on_light,
    check_geometry,
    pixel_envelope,
    sensor_points,
)
from jax_kdpr.lab.frames.measured import Setup, on_grid, simulate
from jax_kdpr.lab.frames.parameters import Options, is_determined
from jax_kdpr.lab.frames.reading import Frame, iterate_frames
from jax_kdpr.lab.frames.registration import Registration, register
from jax_kdpr.optics.beam import Plane
from jax_kdpr.optics.camera import centred
from jax_kdpr.runs.run import Run

HALF_TURN = 0.01  # relative difference of amplitudes below which a pattern equals its half turn
CALIBRATION = {
    "geometry": {
        **dict.fromkeys(("centre_y", "centre_x", "rotation"), float),
        # Wider than the range of --scale and of the search around it.
        **{"scale": Range(0.01, 10_000), "flip": str, "transpose": bool},
    },
    **dict.fromkeys(("score", "runner_up"), float),
    "counts_per_unit": Range(1e-30, 1e30),
    **{"trusted": bool, "checkpoint": str, "sensor": (int, int)},
    **{"masks": str, "offset": float},
    # Only a fit gives them.
    **{"optics": Maybe({str: dict}), "errors": Maybe({str: (float, float)})},
    "reading": Maybe({"bin": int, "sampling": str, "square_pixels": bool}),
}


class Reading(NamedTuple):
    """How frames were read; a calibration holds for frames that are read alike."""

    bin: int = 1  # camera pixels that are joined each way
    sampling: str = "points"  # one of `geometry.SAMPLINGS`
    square_pixels: bool = True  # whether the envelope of square mask pixels is divided out

    @classmethod
    def of(cls, setup: Setup) -> "Reading":
        """Returns that of a setup."""
        return cls(setup.window.bin, setup.sampling, setup.pixel_side > 0)


class Calibration(NamedTuple):
    """What `reconstruct --calibration` reads."""

    geometry: Geometry  # in pixels of the raw frame
    counts_per_unit: float  # counts of a model sample whose CDP is 1
    score: float
    runner_up: float
    trusted: bool
    checkpoint: str  # digest of the run's checkpoint; another one has other masks
    sensor: tuple[int, int]  # (sh, sw) of the run
    masks: str  # digest of the masks that were shown
    optics: Options | None = None  # those that the fit has found, by section of the config
    offset: float = 0.0  # counts of a raw camera pixel that no light of the model explains
    errors: dict[str, tuple[float, float]] | None = None  # value and error bar of each number
    reading: Reading | None = None  # None: an older file, which does not say


def calibrate(
    frames: list[Frame],
    setup: Setup,
    run: Run,
    image: Image,
    *,
    rotation_range: float,
    scale_range: float,
) -> Calibration:
    """Registers the snapshots of a known object near the setup's geometry.

    There may be several sets of L frames, which are averaged. The snapshot whose fit is furthest
    ahead of other orientations counts. The ranges of rotation (degrees) and of relative scale are
    those of `register`.

    Raises:
        InputError: If the object does not tell the orientations apart, a frame cannot be used, or
            the pattern that was found is cut off.
    """
    window, expected = setup.window, simulate(run, image)
    patterns = np.stack([centred(pattern, run.camera.axis) for pattern in expected])
    check_orientation(patterns)
    sets = np.stack(_read_lights(frames, setup))
    lights = sets.reshape(-1, run.snapshots, *sets.shape[1:]).mean(axis=0)
    seen_as = pixel_envelope(sensor_points(run.sensor), run.camera.spacing, setup.pixel_side)
    found = [
        register(
            window.join(light),
            pattern * seen_as,
            setup.geometry.in_window(window),
            rotation_range=rotation_range,
            scale_range=scale_range,
            sampling=setup.sampling,
        )
        for light, pattern in zip(lights, patterns, strict=True)
    ]
    best = max(found, key=lambda one: one.score - one.runner_up)
    if best.trusted:  # else it is not known where the pattern lies
        check_geometry(best.geometry, window.shape, run.sensor)
    placed = setup._replace(geometry=best.geometry.in_frame(window))
    seen = np.stack([on_grid(light, placed, run) for light in lights])
    # Only the model's grid is checked: elsewhere a whole chip's offset can outweigh all the light.
    if seen.sum() <= 0:
        raise InputError(
            f"{frames[0].name}: no light is left over the dark; check that --dark belongs to this "
            "exposure"
        )
    return _calibration(best, setup, run, float(seen.sum() / expected.sum()))


def calibrate_optics(
    frames: list[Frame], setup: Setup, run: Run, images: Images, names: Sequence[str]
) -> Calibration:
    """Fits the optics of a bench to frames of known objects, L consecutive frames of each.

    The search begins at the setup's scale and the middle of the light, in every orientation.

    Raises:
        InputError: If a name is not in `FITTED`, a frame cannot be used, or the pattern that was
            found is cut off.
    """
    window = setup.window
    lights = [window.join(light) for light in _read_lights(frames, setup)]
    shots = [
        Shot(image, lights[first : first + run.snapshots])
        for image, first in zip(images, range(0, len(lights), run.snapshots), strict=True)
    ]
    found = fit_optics(
        shots,
        run.camera,
        run.phases,
        centred_on_light(setup.geometry.in_window(window), lights),
        names,
        pixel_side=setup.pixel_side,
        sampling=setup.sampling,
    )
    if found.trusted:
        check_geometry(found.geometry, window.shape, run.sensor)
    optics = dict(found.optics)
    if file := run.config.aberrations.file:  # which was known
        optics["aberrations"] = optics.get("aberrations", {}) | {"file": file}
    if not np.isfinite(found.score):
        raise InputError(f"{frames[0].name}: no light is left over the dark; check --dark")
    try:
        run.with_optics(optics)
    except InputError as failure:
        raise InputError(f"--fit: ended where no bench is ({failure}); fit less") from failure
    offset = found.offset / window.bin**2
    calibration = _calibration(found, setup, run, found.counts_per_unit)
    return calibration._replace(optics=optics, offset=offset, errors=found.errors)


def _calibration(
    found: Registration | Fit, setup: Setup, run: Run, counts_per_unit: float
) -> Calibration:
    """Returns what was found in the setup's window, converted to pixels of the raw frame."""
    return Calibration(
        found.geometry.in_frame(setup.window),
        counts_per_unit=counts_per_unit,
        score=found.score,
        runner_up=found.runner_up,
        trusted=found.trusted,
        checkpoint=run.digest,
        sensor=run.sensor,
        masks=masks_digest(run),
        reading=Reading.of(setup),
    )


def masks_digest(run: Run) -> str:
    """Returns a digest of the masks that a run shows."""
    return Plane.of(np.asarray(run.camera.written(run.phases))).digest


def _read_lights(frames: list[Frame], setup: Setup) -> list[Float[np.ndarray, "h w"]]:
    """Returns the corrected frames, cropped to the setup's window."""
    correction, lights = make_correction(setup.references, setup.window), []
    for frame, whole in zip(frames, iterate_frames(frames), strict=True):
        raw = setup.window.crop(whole)
        check_exposure(raw, frame.name)
        lights.append(correct(raw, correction))
    return lights


def check_orientation(patterns: Float[np.ndarray, "k sh sw"]) -> None:
    """Refuses an object whose patterns all equal their half turn: no fit could be trusted.

    The pattern of every real field equals its half turn, such as that of a mask of phases 0 and pi
    without an object.

    Args:
        patterns: Expected patterns, with their zero frequency at [sh // 2, sw // 2].

    Raises:
        InputError: If no amplitude differs by more than `HALF_TURN` from its half turn.
    """
    first = [1 - samples % 2 for samples in patterns.shape[1:]]  # 1: index 0 has no counterpart
    amplitude = np.sqrt(np.maximum(patterns[:, first[0] :, first[1] :], 0.0))
    difference = np.linalg.norm(amplitude - amplitude[:, ::-1, ::-1], axis=(1, 2))
    if np.all(difference <= HALF_TURN * np.linalg.norm(amplitude, axis=(1, 2))):
        raise InputError(
            "--object: the expected pattern looks the same turned by 180 degrees, so that its "
            "orientation cannot be found; put a known object without symmetry into the beam, and "
            "give its image"
        )


def write_calibration(path: Path, found: Calibration) -> None:
    """Writes calibration.json, whole or not at all."""
    values = {**found._asdict(), "geometry": found.geometry._asdict()}
    if found.reading:
        values["reading"] = found.reading._asdict()
    known = {name: value for name, value in values.items() if value is not None}
    json_files.write_json(path, known)


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        InputError: If the file is missing, damaged or of another kind.
    """
    try:
        values = json_files.read_json(path, CALIBRATION)
        geometry = {name: values["geometry"][name] for name in Geometry._fields}
        if geometry["flip"] not in FLIPS:
            raise InputError(f"flip: expected one of {', '.join(FLIPS)}")
        values |= {"geometry": Geometry(**geometry), "sensor": tuple(values["sensor"])}
        if "reading" in values:
            values["reading"] = Reading(*(values["reading"][name] for name in Reading._fields))
            if values["reading"].bin < 1 or values["reading"].sampling not in SAMPLINGS:
                raise InputError(f"reading: expected a bin and one of {', '.join(SAMPLINGS)}")
        return Calibration(**{k: values[k] for k in Calibration._fields if k in values})
    except InputError as failure:
        raise InputError(
            f"--calibration: {str(path)!r} is no calibration that can be read; make it with "
            "jax_kdpr.calibrate"
        ) from failure


def in_words(found: Calibration) -> str:
    """Returns where the pattern lies, how sure that is, and each fitted number on its own line."""
    geometry = found.geometry
    bars = (found.errors or {}).items()
    fitted = "".join(f"\n{name} {value:.4g} +- {error:.2g}" for name, (value, error) in bars)
    return (
        f"centre {geometry.centre_y:.2f}, {geometry.centre_x:.2f}; rotation "
        f"{geometry.rotation:.3f} degrees; scale {geometry.scale:.4f}; flip {geometry.flip}"
        f"{', transposed' if geometry.transpose else ''}; {found.counts_per_unit:.5g} counts a unit"
        f"{f', offset {found.offset:.3g} counts' if found.offset else ''}"
        f"\nscore {found.score:.3f}, best of another orientation {found.runner_up:.3f}{fitted}"
    )


def undetermined(found: Calibration) -> list[str]:
    """Returns a warning for each fitted number that the frames do not determine."""
    return [
        f"{name} is not determined: {value:.3g} +- {error:.2g}; leave it out of --fit, or add "
        "frames of other objects (a flat mask says nothing of itself)"
        for name, (value, error) in (found.errors or {}).items()
        if not is_determined(name, value, error)
    ]


def calibration_notes(calibration: Calibration, run: Run, source: str) -> list[str]:
    """Returns doubts about the use of a calibration for a run; they call it `source`.

    Raises:
        InputError: If it is for another sensor grid, or has optics and the run is adapted already.
    """
    if calibration.sensor != run.sensor:
        raise InputError(
            f"--calibration: expected a sensor grid of {run.sensor[0]} x {run.sensor[1]}, got "
            f"{calibration.sensor[0]} x {calibration.sensor[1]}; calibrate with this run"
        )
    if calibration.optics and run.is_adapted:
        raise InputError(
            f"--calibration: {source} has optics, and the run holds those of its bench already; "
            f"give {run.workdir}/calibration.json, or one without --fit"
        )
    notes = []
    if not calibration.trusted:
        notes.append(f"{source} says of itself that it is not to be trusted")
    if calibration.masks != masks_digest(run):
        notes.append(
            f"{source} is of another checkpoint ({calibration.checkpoint[:12]}, the run's is "
            f"{run.digest[:12]}), of other masks: calibrate again"
        )
    return notes
