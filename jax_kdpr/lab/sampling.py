"""How the samples of a design lie on the camera of a bench, in words (`optics.sampling`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, require
from jax_kdpr.lab.frames.geometry import useful_bin
from jax_kdpr.lab.frames.model_noise import PixelNoise, model_noise
from jax_kdpr.optics.propagation import PROPAGATORS, PropagationOptions, sampling_warnings
from jax_kdpr.optics.sampling import Geometry, geometry_warnings
from jax_kdpr.runs import folder as run_folder

KINDS = {  # of length: which must be plausible
    **{"wavelength": "wavelength", "mask_pitch": "pitch", "camera_pixel": "pitch"},
    **{"focal_length": "distance", "distance": "distance"},
}
DEFAULTS = {"oversample": 1, "propagation": "far", "fill_factor": 1.0}


class Bench(NamedTuple):
    """Arguments of `bench_geometry`, checked."""

    pixels: int
    oversample: int
    kind: str
    wavelength: float
    pitch: float
    distance: float
    camera_pixel: float
    camera_pixels: tuple[int, int] | None
    fill_factor: float


def known_of_run(workdir: Path) -> dict[str, Any]:
    """Returns what a run says of its bench, by the flags of the command geometry.

    Raises:
        InputError: If it is no run.
    """
    config = run_folder.read_config(workdir)
    known: dict[str, Any] = {
        "pixels": config.data.size,
        "oversample": config.masks.oversample,
        "propagation": config.propagation.kind,
    }
    if config.propagation.propagator.reads_lengths:
        known |= {
            "wavelength": config.propagation.wavelength,
            "mask_pitch": config.propagation.pitch,
            "distance": config.propagation.distance,
        }
    if config.device.fill_factor < 1:
        known["fill_factor"] = config.device.fill_factor
    return known


def make_bench(
    given: Mapping[str, Any], known: Mapping[str, Any], *, camera_pixels: tuple[int, int] | None
) -> Bench:
    """Joins what a person gives with what a run says.

    Args:
        given: By the flags of the command geometry; None for what is left open.
        known: From `known_of_run`, or nothing.
        camera_pixels: (height, width) of the chip, if known.

    Raises:
        InputError: If something is said twice, missing, read by nothing, or not plausible.
    """
    given = {name: value for name, value in given.items() if value is not None}
    twice = [name for name in given if name in known]
    if twice:
        raise InputError(f"--{twice[0]}: the run of --workdir says it already; leave it out")
    values = {**DEFAULTS, **known, **given}
    kind = values["propagation"]
    length, unread = "focal_length", "distance"
    if PROPAGATORS[kind].reads_lengths:
        length, unread = unread, length
    if unread in values:
        raise InputError(f"--{unread}: is not read with propagation {kind}; give --{length}")
    for name in ("wavelength", length, "mask_pitch", "pixels", "camera_pixel"):
        if name not in values:
            what = "of the mask, or --workdir" if name == "pixels" else "in metres"
            raise InputError(f"--{name}: needed, {what}")
        if name in KINDS:
            require(f"--{name}", values[name], POSITIVE_LENGTHS[KINDS[name]], unit="metres")
    require("--fill_factor", values["fill_factor"], Range(0, 1, "(]"))
    return Bench(
        kind=kind,
        pitch=values["mask_pitch"],
        distance=values[length],
        camera_pixels=camera_pixels,
        **{
            name: values[name]
            for name in ("pixels", "oversample", "wavelength", "camera_pixel", "fill_factor")
        },
    )


def warnings_of(bench: Bench, found: Geometry) -> list[str]:
    """Returns what is sampled too coarsely, by the model and by the camera."""
    space = PropagationOptions(
        kind=bench.kind, wavelength=bench.wavelength, pitch=bench.pitch, distance=bench.distance
    )
    return [
        *sampling_warnings(bench.pixels, space, oversample=bench.oversample),
        *geometry_warnings(found, oversample=bench.oversample),
    ]


def table(bench: Bench, found: Geometry) -> str:
    """Lays out the numbers, one a line."""
    length = "distance" if PROPAGATORS[bench.kind].reads_lengths else "focal length"
    fits = {None: "", True: ", fits the chip", False: ", does not fit the chip"}[found.fits]
    whole = found.whole_ratio
    lines = {
        "model sample on the camera": _micrometres(found.sensor_pixel),
        "camera pixels per model sample": f"{found.camera_pixels_per_sensor_pixel:.4g}",
        "pattern": f"{found.extent * 1e3:.4g} mm, {found.extent_camera_pixels:.0f} camera pixels"
        + fits,
    }
    if found.whole_ratio_distance is not None:
        lines[f"{length} for {whole} camera pixel(s)"] = f"{found.whole_ratio_distance:.6g} m"
    lines |= {
        f"camera pixel for {whole} a model sample": _micrometres(found.whole_ratio_camera_pixel),
        "finest fringe": _micrometres(found.finest_fringe),
        "oversample that the camera resolves": (
            str(found.oversample_resolved) if found.oversample_resolved else "none: too coarse"
        ),
        "--bin for calibrate and reconstruct": str(useful_bin(found.camera_pixels_per_fringe)),
    }
    if found.mask_pixel_factor is not None:
        lines["mask pixel: intensity left at the edge"] = f"{found.mask_pixel_factor:.3f}"
    lines |= {
        "camera pixel: contrast left of the finest fringe": f"{found.camera_pixel_factor:.3f}",
        "Fresnel number": f"{found.fresnel_number:.4g}",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items())


def noise_options(bench: Bench, found: Geometry, camera: PixelNoise, *, bin: int) -> str:
    """Returns the options of `train` that are as noisy as frames of a camera.

    Args:
        bench: The bench.
        found: Its geometry.
        camera: Of its pixels.
        bin: Pixels joined each way; 0 for what suits the pattern, as `reconstruct --bench` does.
    """
    side = bench.oversample * bench.pixels
    noise = model_noise(
        camera,
        scale=found.camera_pixels_per_sensor_pixel,
        bin=bin or useful_bin(found.camera_pixels_per_fringe),
        sensor=(side, side),
        pixel_side=0.0 if bench.kind == "angular_spectrum" else bench.fill_factor**0.5,
    )
    options = " ".join(f"--config.noise.{name}={value:.4g}" for name, value in noise.items())
    return f"--config.noise.kind=camera {options}"


def _micrometres(length: float) -> str:
    return f"{length * 1e6:.4g} um"
