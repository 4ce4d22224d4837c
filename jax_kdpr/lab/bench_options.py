"""What bench.toml makes of a config: a training that knows its modulator, its camera, its light."""

import math
from collections.abc import Container
from typing import Any, NamedTuple, cast

import numpy as np

from jax_kdpr.config.schema import Config, check_types, with_values
from jax_kdpr.core.options import foreign_names
from jax_kdpr.core.registry import allow
from jax_kdpr.lab import sampling
from jax_kdpr.lab.bench_file import Bench
from jax_kdpr.lab.frames.geometry import POINT_NOISE, pixel_envelope, sensor_points, useful_bin
from jax_kdpr.optics.device import TURN
from jax_kdpr.optics.lookup_table import device_table
from jax_kdpr.optics.sampling import Geometry, bench_geometry

MOST_BITS = 16  # of `noise.bits`
# Options that stand in place of each other: who keeps one of them means none of the others.
LEVELS = ("device.levels", "device.phase_range", "device.table")


class PixelNoise(NamedTuple):
    """Of one camera pixel, but for the photons."""

    photons: float  # photoelectrons of a frame on the model's grid, its envelope divided out
    read_noise: float  # electrons, standard deviation
    dark: float  # electrons a pixel and frame
    full_well: float  # electrons
    bits: int


def on_bench(
    config: Config, bench: Bench, *, kept: Container[str] = ()
) -> tuple[Config, dict[str, Any], list[str]]:
    """Returns a config with what a bench says of its modulator, lengths and noise.

    Args:
        config: A user's own, of a training; it is not changed.
        bench: What is known of it. Noise wants the light, the camera's pixel and all lengths.
        kept: Paths of options that stay those of the config.

    Returns:
        The config, which options the bench has set in it, by path, and what is to be said of that.

    Raises:
        InputError: If an option is of the wrong type, or the panel's measured table cannot be read.
    """
    config = check_types(config)
    allow(foreign_names(config).values())  # it is the user's own
    options = _length_options(config, bench) | device_options(bench, reads_table=True)
    if any(path in kept for path in LEVELS):
        options = {path: value for path, value in options.items() if path not in LEVELS}
    options = {path: value for path, value in options.items() if path not in kept}
    config = with_values(config, options)
    noise, notes = _noise_of_frames(config, bench)
    if "noise.kind" in kept and config.noise.kind != "camera":
        noise = {}  # nothing would read it
    noise = {path: value for path, value in noise.items() if path not in kept}
    return with_values(config, noise), options | noise, notes


def as_flags(options: dict[str, Any]) -> str:
    """Returns options as `train` takes them; of a table only how many levels it has."""
    shown = {
        path: f"{value:.4g}" if isinstance(value, float) else str(value)
        for path, value in options.items()
    }
    shown |= {
        path: f"({len(value)} levels)"
        for path, value in options.items()
        if isinstance(value, tuple)
    }
    return " ".join(f"--config.{path}={value}" for path, value in shown.items())


def _length_options(config: Config, bench: Bench) -> dict[str, Any]:
    lengths = {
        "wavelength": bench.wavelength,
        "pitch": bench.modulator.mask_pitch,
        "distance": bench.distance,
    }
    return {
        f"propagation.{name}": lengths[name]
        for name in config.propagation.read_lengths
        if lengths[name] is not None
    }


def device_options(bench: Bench, *, reads_table: bool) -> dict[str, Any]:
    """Returns what a training has to know of the modulator, by path.

    Args:
        bench: What is known of it.
        reads_table: Whether a measured table is among them, which a line says; else it is left out.

    Raises:
        InputError: If it cannot be read.
    """
    panel, options = bench.modulator, {}
    top = 2 ** (panel.bits or 8)
    if panel.table:
        if reads_table:
            table = device_table(panel.table)
            options |= {"levels": 0, "phase_range": TURN, "table": table}
    elif panel.gray_2pi and panel.gray_2pi > top:  # the panel does not reach 2 pi
        reached = _rounded(TURN * (top - 1) / panel.gray_2pi)
        options |= {"levels": top, "phase_range": reached}
    elif panel.gray_2pi:
        options["levels"] = panel.gray_2pi
    if panel.magnify > 1:
        options["panel_pixels"] = panel.magnify
    if panel.fill_factor is not None:
        options["fill_factor"] = panel.fill_factor
    return {f"device.{name}": value for name, value in options.items()}


def _noise_of_frames(config: Config, bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """Options `noise.*`, and what speaks against the bench, or that it does not say enough."""
    known, camera = sampling.known_of(config), bench.camera
    length = "distance" if config.propagation.propagator.reads_lengths else "focal_length"
    lengths = {
        "wavelength": bench.wavelength,
        length: getattr(bench, length),
        "mask_pitch": bench.modulator.mask_pitch,
    } | {name: value for name, value in known.items() if value}
    wanted = {
        "photons": bench.photons,
        "camera.full_well": camera.full_well,
        "camera.bits": camera.bits,
        "camera.pixel_pitch": camera.pixel_pitch,
        "wavelength": lengths["wavelength"],
        "modulator.pixel_pitch": lengths["mask_pitch"],
        length: lengths[length],
    }
    if missing := [name for name, value in wanted.items() if value is None]:
        return {}, [f"it does not say {', '.join(missing)}: the noise stays that of the config"]
    pixels = {"camera_pixel": camera.pixel_pitch, "camera_pixels": camera.pixels}
    lies = sampling.make_bench(pixels, lengths)
    found = bench_geometry(**lies._asdict())
    of_pixel = PixelNoise(
        cast(float, bench.photons),
        camera.read_noise or 0.0,
        camera.dark or 0.0,
        cast(float, camera.full_well),
        cast(int, camera.bits),
    )
    options = noise_options(lies, found, of_pixel, bin=camera.bin or 0)
    return options, sampling.warnings_of(lies, found)


def noise_options(
    bench: sampling.Bench, found: Geometry, camera: PixelNoise, *, bin: int
) -> dict[str, Any]:
    """Returns the options, by path, that are as noisy as frames of a camera.

    Of pixels joined each way, 0 stands for what suits the pattern, as with `reconstruct --bench`.
    """
    side = round(bench.oversample * bench.pixels)
    noise = model_noise(
        camera,
        scale=found.camera_pixels_per_sensor_pixel,
        bin=bin or useful_bin(found.camera_pixels_per_fringe),
        sensor=(side, side),
        pixel_side=0.0 if bench.kind == "angular_spectrum" else bench.fill_factor**0.5,
    )
    values = {f"noise.{name}": _rounded(value) for name, value in noise.items()}
    return {"noise.kind": "camera", **values}


def model_noise(
    camera: PixelNoise, *, scale: float, bin: int, sensor: tuple[int, int], pixel_side: float
) -> dict[str, float]:
    """Returns the options `noise.*` of a model that is as noisy as a camera's frames.

    `reconstruct` joins bin x bin pixels, reads their spline at the model's samples, which stand for
    a = (scale / bin)^2 joined pixels each, and divides by the envelope E of square mask pixels. A
    sample of s electrons (on the grid, envelope divided out) so has the variance g^2 a s / E, with
    g `POINT_NOISE`; one of a camera of the model with N photons, of S in all, s S / N. Over the
    grid they are equal in the mean where N = S / (g^2 a <1 / E>). What does not depend on the
    light, such as read noise, has <1 / E^2> in place of <1 / E>.

    Args:
        camera: Of its pixels.
        scale: Camera pixels in a model sample.
        bin: Pixels joined each way; sampling "points".
        sensor: (sh, sw) of the model.
        pixel_side: Of the mask's pixels (`geometry.pixel_envelope`).
    """
    envelope = pixel_envelope(sensor_points(sensor), 1 / sensor[0], pixel_side)
    read = math.sqrt(np.mean(1 / envelope**2))
    area = (scale / bin) ** 2
    gain = POINT_NOISE**2 * float(np.mean(1 / envelope))  # electrons of a joined pixel for one
    spread = read * POINT_NOISE / gain
    bits = camera.bits + math.log2(bin / (POINT_NOISE * read))
    return {
        "photons": camera.photons / (gain * area),
        "read_noise": camera.read_noise * bin * spread,
        "dark": camera.dark * bin**2 * spread**2,
        "full_well": camera.full_well * bin**2 / gain,
        "bits": min(max(round(bits), 1), MOST_BITS),
    }


def _rounded(value: float | int) -> float | int:
    """To the digits that are printed: the same options given by hand are the same run."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
