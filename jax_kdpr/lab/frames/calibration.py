"""Calibrates a bench from known objects: its geometry, its gain and, if asked for, its optics."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from jax_kdpr.lab.frames.registration import MIN_SCORE, Registration, lead, register
from jax_kdpr.optics.beam import Plane
from jax_kdpr.optics.camera import centred
from jax_kdpr.runs.run import Run

SAME = 0.01  # relative difference of amplitudes below which patterns are equal
SIGN_LEAD = 1.3  # `registration.lead` of one sign of the mask over the other
DOUBT = (
    "do not trust this calibration: its score is low, or another orientation fits nearly as well; "
    "check the object, the mask that is shown, the exposure, and --scale"
)
WRONG_SIGN = (
    "do not trust this calibration: the mask of the other sign fits better ({other:.3f} against "
    "{score:.3f}); export with the other --sign, or negate the mask of a plate"
)
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
    **{"other_sign": Maybe(float), "tells_sign": Maybe(bool), "doubt": Maybe(str)},
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
    other_sign: float | None = None  # score of the mask of the other sign, where that was tried
    # False: with the other sign the mask explains the frames as well. None: that was not tried.
    tells_sign: bool | None = None
    doubt: str = ""  # why it is not to be trusted

    @property
    def has_wrong_sign(self) -> bool:
        """Whether the frames are those of the mask of the other sign."""
        return self.other_sign is not None and _is_ahead(self.other_sign, self.score)


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
    ahead of other orientations counts, and the mask of the other sign is tried on it. The ranges of
    rotation (degrees) and of relative scale are those of `register`.

    Raises:
        InputError: If the object does not tell the orientations apart, a frame cannot be used, or
            the pattern that was found is cut off.
    """
    window, expected = setup.window, simulate(run, image)
    patterns = _centred(expected, run)
    check_orientation(patterns)
    sets = np.stack(_read_lights(frames, setup))
    lights = sets.reshape(-1, run.snapshots, *sets.shape[1:]).mean(axis=0)
    seen_as = pixel_envelope(sensor_points(run.sensor), run.camera.spacing, setup.pixel_side)
    guess = setup.geometry.in_window(window)
    wide = {"rotation_range": rotation_range, "scale_range": scale_range}

    def fitted(shot: int, pattern: Float[np.ndarray, "sh sw"], near: Geometry, **ranges: float):
        joined = window.join(lights[shot])
        return register(joined, pattern * seen_as, near, sampling=setup.sampling, **ranges)

    found = [fitted(shot, pattern, guess, **wide) for shot, pattern in enumerate(patterns)]
    shot = max(range(len(found)), key=lambda n: lead(found[n].score, found[n].runner_up))
    best = found[shot]
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
    # Where the place is known, the other sign only lets it lie in another orientation.
    narrow = {"rotation_range": 0.0, "scale_range": 0.0}
    near, ranges = (best.geometry, narrow) if best.trusted else (guess, wide)
    sign = _sign(
        best,
        patterns[shot],
        _centred(simulate(_negated(run), image), run)[shot],
        lambda pattern: fitted(shot, pattern, near, **ranges),
    )
    found_here = _calibration(best, setup, run, float(seen.sum() / expected.sum()))
    return found_here._replace(**sign)


def _is_ahead(other: float, score: float) -> bool:
    """Returns whether the score of the mask of the other sign shows that it is the right one."""
    return other >= MIN_SCORE and lead(other, score) >= SIGN_LEAD


def _sign(
    best: Registration,
    pattern: Float[np.ndarray, "sh sw"],
    negated: Float[np.ndarray, "sh sw"],
    fit: Callable[[Float[np.ndarray, "sh sw"]], Registration],
) -> dict[str, Any]:
    """Returns what a frame says of the mask's sign, as fields of `Calibration`.

    Args:
        best: The fit of the pattern of the design.
        pattern: This pattern.
        negated: That of the mask of the other sign.
        fit: Fits a pattern to the same frame.
    """
    if _are_same(negated, pattern):  # such as that of a mask of 0 and pi
        return {"tells_sign": True}
    if _are_same(negated, _half_turn(pattern)):  # as in the far field without an object
        return {"tells_sign": False}
    other = fit(negated).score
    if _is_ahead(other, best.score):
        doubt = WRONG_SIGN.format(other=other, score=best.score)
        return {"other_sign": other, "tells_sign": True, "trusted": False, "doubt": doubt}
    return {"other_sign": other, "tells_sign": lead(best.score, other) >= SIGN_LEAD}


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
        doubt="" if found.trusted else DOUBT,
    )


def _centred(cdps: Float[np.ndarray, "k sh sw"], run: Run) -> Float[np.ndarray, "k sh sw"]:
    """Returns CDPs with their zero frequency at [sh // 2, sw // 2], as a camera sees them."""
    return np.stack([centred(one, run.camera.axis) for one in cdps])


def _negated(run: Run) -> Run:
    """Returns a run with masks of the other sign."""
    params, state = run.variables
    return dataclasses.replace(run, variables=({**params, "phases": -run.phases}, state))


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
        InputError: If each of them is `SAME` as its half turn.
    """
    if all(_are_same(pattern, _half_turn(pattern)) for pattern in patterns):
        raise InputError(
            "--object: the expected pattern looks the same turned by 180 degrees, so that its "
            "orientation cannot be found; put a known object without symmetry into the beam, and "
            "give its image"
        )


def _half_turn(pattern: Float[np.ndarray, "sh sw"]) -> Float[np.ndarray, "sh sw"]:
    """Returns a pattern turned by 180 degrees about [sh // 2, sw // 2]; index 0 may wrap round."""
    even = [1 - samples % 2 for samples in pattern.shape]
    return np.roll(pattern[::-1, ::-1], even, axis=(0, 1))


def _are_same(one: Float[np.ndarray, "sh sw"], other: Float[np.ndarray, "sh sw"]) -> bool:
    """Returns whether the amplitudes of patterns differ by at most `SAME`, relative to them.

    Row and column 0 of an even size have no counterpart in a half turn, and do not count.
    """
    first = [1 - samples % 2 for samples in one.shape]
    ours, theirs = (np.sqrt(np.maximum(x[first[0] :, first[1] :], 0.0)) for x in (one, other))
    return bool(np.linalg.norm(ours - theirs) <= SAME * np.linalg.norm(ours))


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
    known = found.other_sign is not None
    sign = f", of the mask of the other sign {found.other_sign:.3f}" if known else ""
    return (
        f"centre {geometry.centre_y:.2f}, {geometry.centre_x:.2f}; rotation "
        f"{geometry.rotation:.3f} degrees; scale {geometry.scale:.4f}; flip {geometry.flip}"
        f"{', transposed' if geometry.transpose else ''}; {found.counts_per_unit:.5g} counts a unit"
        f"{f', offset {found.offset:.3g} counts' if found.offset else ''}"
        f"\nscore {found.score:.3f}, best of another orientation {found.runner_up:.3f}"
        f"{sign}{fitted}"
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
        notes.append(f"{source} says of itself: {calibration.doubt or DOUBT}")
    if calibration.masks != masks_digest(run):
        notes.append(
            f"{source} is of another checkpoint ({calibration.checkpoint[:12]}, the run's is "
            f"{run.digest[:12]}), of other masks: calibrate again"
        )
    return notes
