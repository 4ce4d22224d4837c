"""Reads bench.toml: the numbers of one bench, for every command that needs some of them.

    wavelength = 532e-9
    [camera]
    pixel_pitch = 3.45e-6

A key that the file leaves out is None, except `magnify`, which is 1. Flags that stand for keys of
the file are made from the same declarations (`interface.bench_flags`).
"""

import math
import tomllib
from dataclasses import field
from pathlib import Path
from typing import Any

from jax_kdpr.config.schema import Config, samples_a_cycle
from jax_kdpr.core import options, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, require_pixels
from jax_kdpr.core.options import option, section
from jax_kdpr.optics.sampling import Layout, sampling_of

SIDE = Range(1, 1_000_000)
ELECTRONS = Range(0, 1e9)
FINEST_GRATING = 2.0  # panel pixels: the shortest period that they show
GRATING_NEEDS_LENS = (
    "a grating separates light behind a lens; without one leave it out, and block the light beside "
    "the mask"
)


def _metres(kind: str, says: str) -> Any:
    return option(None, says, unit="metres", within=POSITIVE_LENGTHS[kind])


def _electrons(says: str, within: Range = ELECTRONS) -> Any:
    return option(None, says, unit="electrons", within=within)


@section
class Modulator:
    """The panel that shows the mask, or what the mask is etched into."""

    pixel_pitch: float | None = _metres("pitch", "pitch of the panel's pixels")
    panel: tuple[int, ...] | None = option(None, "its rows and columns", within=SIDE)
    magnify: int = option(1, "panel pixels per mask pixel, each way", within=Range(1, 4096))
    fill_factor: float | None = option(
        None, "share of a pixel's area that is modulated", within=Range(0, 1, "(]")
    )
    bits: int | None = option(None, "bits of a gray level", within=Range(8, 16))
    gray_2pi: int | None = option(None, "gray level of a phase of 2 pi", within=Range(2, 65536))
    table: str | None = option(None, "file of the measured phase of each gray level")
    correction: str | None = option(None, "file of the panel's flatness correction")
    correction_2pi: int | None = option(
        None, "gray level of 2 pi in that file", within=Range(2, 65536)
    )
    grating: float | None = option(
        None,
        "period of a grating over the mask, across",
        unit="panel pixels",
        within=Range(-1e6, 1e6),
    )

    @property
    def mask_pitch(self) -> float | None:
        """Pitch of the mask's pixels, in metres."""
        return None if self.pixel_pitch is None else self.pixel_pitch * self.magnify

    @property
    def mask_fill_factor(self) -> float | None:
        """Fill factor of a mask pixel; None if its gaps are those of several panel pixels."""
        return self.fill_factor if self.magnify == 1 else None


@section
class Camera:
    """The camera, described by its own pixels, not by the samples of the model."""

    pixel_pitch: float | None = _metres("pitch", "pitch of the camera's pixels")
    pixels: tuple[int, ...] | None = option(None, "rows and columns of the camera", within=SIDE)
    bin: int | None = option(
        None, "camera pixels to join each way; 0: to suit the pattern", within=Range(0, 1024)
    )
    bits: int | None = option(None, "bits of the camera's converter", within=Range(1, 16))
    full_well: float | None = _electrons(
        "full well of a camera pixel: its largest count", Range(1, 1e9)
    )
    read_noise: float | None = _electrons("read noise of a camera pixel (rms)")
    dark: float | None = _electrons("dark signal of a camera pixel and frame")
    offset: float | None = option(None, "black level", unit="counts", within=Range(0, 65535))


@section
class Frames:
    """Files of reference frames; their paths are relative to the folder of bench.toml."""

    dark: str | None = option(None, "frame or frames without light; their mean is subtracted")
    flat: str | None = option(None, "frame or frames of even light; their mean divides")
    bad_pixels: str | None = option(None, "map of bad pixels: not 0 where bad")


@section
class Bench:
    """Everything that bench.toml can say."""

    wavelength: float | None = _metres("wavelength", "wavelength of the light")
    focal_length: float | None = _metres("distance", "focal length of the lens, far field")
    distance: float | None = _metres("distance", "from mask to sensor, in the near field")
    photons: float | None = _electrons(
        "of a frame (object of modulus 1) on the model's grid, with the envelope divided out: "
        "`counts` of results.json times electrons a count",
        Range(1, 1e15),
    )
    modulator: Modulator = field(default_factory=Modulator)
    camera: Camera = field(default_factory=Camera)
    frames: Frames = field(default_factory=Frames)


def read_bench(path: Path) -> Bench:
    """Reads bench.toml.

    Raises:
        InputError: If the file cannot be read, or has an unknown key or an impossible value.
    """
    try:
        values = tomllib.loads(whole_files.read_bytes(path).decode())
        bench = options.build(Bench, values, known=list(options.flatten(Bench())))
        options.check(bench)
        for name, sides in (
            ("modulator.panel", bench.modulator.panel),
            ("camera.pixels", bench.camera.pixels),
        ):
            if sides is not None and len(sides) != 2:
                raise InputError(f"{name}: expected [rows, columns], got {list(sides)}")
            require_pixels(name, *(sides or (1, 1)))
        if bench.modulator.table and bench.modulator.gray_2pi is not None:
            raise InputError("modulator.table: says what gray_2pi would say; leave out one of them")
        if None not in (bench.focal_length, bench.distance):
            raise InputError("focal_length, distance: a lens, or free space; leave out one of them")
        panel, camera = bench.modulator, bench.camera
        if panel.correction_2pi is not None and not panel.correction:
            raise InputError("modulator.correction_2pi: is read only with correction; leave it out")
        if panel.grating and bench.distance is not None:
            raise InputError(f"modulator.grating: {GRATING_NEEDS_LENS}")
        require_grating("modulator.grating", panel.grating or 0.0, panel.magnify)
        if camera.bits and camera.offset and camera.offset >= 2**camera.bits / 2:
            raise InputError(
                f"camera.offset: expected below {2**camera.bits // 2} counts, half of those of "
                f"{camera.bits} bits, got {camera.offset:g}"
            )
    except UnicodeDecodeError as failure:
        raise InputError(f"--bench: {path}: expected a text, such as bench.toml") from failure
    except OSError as failure:
        said = f"cannot be read ({failure.strerror}); give the path of a bench.toml"
        raise InputError(f"--bench: {path}: {said}") from failure
    except tomllib.TOMLDecodeError as failure:
        said = f"{failure}; texts stand in quotes, with / in paths, not \\"
        raise InputError(f"--bench: {path}: {said}") from failure
    except (ValueError, RecursionError) as failure:
        said = str(failure).removeprefix("config: ")
        raise InputError(f"--bench: {path}: {said}") from failure
    for owner, name in (
        *((bench.frames, name) for name in options.shallow(bench.frames)),
        (bench.modulator, "table"),
        (bench.modulator, "correction"),
    ):
        if file := getattr(owner, name):
            setattr(owner, name, str(path.parent / file))
    return bench


def require_grating(named: str, period: float, magnify: int) -> None:
    """Refuses a grating that the panel cannot show, or that leaves the axis within the pattern.

    Raises:
        InputError: If it is one.
    """
    if period and not FINEST_GRATING <= abs(period) < 2 * magnify:
        advice = "take a longer one" if abs(period) < FINEST_GRATING else "take a shorter one"
        if 2 * magnify <= FINEST_GRATING:
            advice = "show each mask pixel by more panel pixels (magnify)"
        raise InputError(
            f"{named}: expected a period of {FINEST_GRATING:g} panel pixels or more, which they "
            f"can show, and below {2 * magnify}, twice those of a mask pixel, so that the pattern "
            f"leaves the axis; got {period:g}; {advice}"
        )


def require_way(bench: Bench, kind: str) -> None:
    """Refuses a bench without a lens beside a far field, and a grating beside a near one.

    Raises:
        InputError: If it has a distance in place of a focal length, or a grating and no far field.
    """
    if bench.modulator.grating and kind != "far":
        raise InputError(f"--bench: modulator.grating: {GRATING_NEEDS_LENS}")
    if bench.distance is not None and kind == "far":
        raise InputError(
            "--bench: it has a distance and no lens, and the propagation is far, through a lens; "
            "give --config.propagation.kind=fresnel (geometry: --propagation), or a focal_length"
        )


def size_note(bench: Bench, pixels: int) -> str:
    """Returns a warning if the panel is too small for masks of N pixels each way; else ""."""
    panel, side = bench.modulator.panel, pixels * bench.modulator.magnify
    if panel is None or side <= min(panel):
        return ""
    return (
        f"{pixels} mask pixels of {bench.modulator.magnify} panel pixels are {side}, more than the "
        f"panel of {panel[0]} x {panel[1]}; take a smaller modulator.magnify"
    )


def panel_note(bench: Bench, config: Config) -> str:
    """Returns a warning if the run's device has other panel pixels than the bench; else ""."""
    magnify, device = bench.modulator.magnify, config.device
    is_etched = magnify == 1  # or the bench does not describe a panel
    if is_etched or not device.crosstalk or device.panel_pixels == magnify:
        return ""
    return (
        f"modulator.magnify is {magnify} panel pixels to a mask pixel, device.panel_pixels "
        f"{device.panel_pixels}: the crosstalk of {device.crosstalk:g} panel pixels is taken for "
        f"{device.crosstalk / device.panel_pixels:g} mask pixels; set "
        f"--config.device.panel_pixels={magnify} (in the training, where there is one)"
    )


NEAR = 5e-3  # relative error of a distance that a scale tells, beyond which it is told


def require_same_lengths(bench: Bench, config: Config) -> None:
    """Refuses a bench whose lengths are not those that a config was made for.

    Raises:
        InputError: If a length of the near field, or of a gap, differs.
    """
    known = {
        "wavelength": bench.wavelength,
        "pitch": bench.modulator.mask_pitch,
        "distance": bench.distance,
    }
    for name in config.propagation.read_lengths:
        ours, theirs = known[name], getattr(config.propagation, name)
        if ours and theirs and not math.isclose(ours, theirs, rel_tol=1e-6):
            said = "modulator.pixel_pitch times magnify" if name == "pitch" else name
            raise InputError(
                f"--bench: its {said} is {ours:g} m, and propagation.{name} {theirs:g} m; correct "
                "the file, or train for this bench"
            )


def distance_note(bench: Bench, config: Config, scale: float) -> str:
    """Returns a warning that the scale found means another distance; empty if it does not.

    Without a lens, a model sample is lambda z / (M p) wide, so that the scale tells z.

    Args:
        bench: The bench; its camera's pixels must be known.
        config: Config of the run.
        scale: Camera pixels per model sample, as found.
    """
    propagator, distance = config.propagation.propagator, config.propagation.distance
    expected = camera_scale(bench, config)
    if not propagator.reads_lengths or propagator.keeps_pitch or not expected:
        return ""
    found = distance * scale / expected
    if abs(found / distance - 1) < NEAR:
        return ""
    return (
        f"the scale means a distance of {found:.4g} m from mask to camera, and the model has "
        f"{distance:.4g} m: measure it again, and train for it, or fit the difference by "
        "--fit defocus"
    )


def camera_scale(bench: Bench, config: Config) -> float | None:
    """Returns the number of camera pixels per model sample of a run; None if a length is missing.

    In the near field the lengths are those of the run.
    """
    space = config.propagation
    lengths = bench.wavelength, bench.modulator.mask_pitch, bench.focal_length
    if space.propagator.reads_lengths:
        lengths = space.wavelength, space.pitch, space.distance
    wavelength, pitch, distance = lengths
    if not (wavelength and pitch and distance and bench.camera.pixel_pitch):
        return None
    layout = Layout(
        pixels=config.data.size,
        oversample=samples_a_cycle(config),
        kind=space.kind,
        wavelength=wavelength,
        pitch=pitch,
        distance=distance,
        camera_pixel=bench.camera.pixel_pitch,
    )
    return sampling_of(layout).camera_pixels_per_sensor_pixel
