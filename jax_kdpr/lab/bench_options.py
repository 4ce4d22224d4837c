"""Sets the options of a training to the modulator, the camera and the light of bench.toml."""

import math
from collections.abc import Container
from typing import Any, NamedTuple, cast

import numpy as np

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config, check_types, with_values
from jax_kdpr.core.options import foreign_names
from jax_kdpr.core.registry import allow
from jax_kdpr.lab import sampling
from jax_kdpr.lab.bench_file import Bench
from jax_kdpr.lab.frames.geometry import POINT_NOISE, pixel_envelope, sensor_points, useful_bin
from jax_kdpr.lab.frames.measured import blank_image, simulate
from jax_kdpr.optics.device import TURN
from jax_kdpr.optics.lookup_table import device_table
from jax_kdpr.optics.sampling import Geometry, bench_geometry
from jax_kdpr.runs.run import untrained

MOST_BITS = 16  # largest `noise.bits`
EXPOSED = 0.7  # of its full well, the brightest camera pixel of a frame whose light is not known
WELL_EXPOSED = f"with which the brightest camera pixel is at {100 * EXPOSED:g} % of its full well"
# Options that exclude each other: if the user sets one of them, the bench sets none.
LEVELS = ("device.levels", "device.phase_range", "device.table")


class PixelNoise(NamedTuple):
    """Noise of one camera pixel; only `photons` is a number of the whole frame."""

    photons: float  # photoelectrons of a frame on the model's grid, its envelope divided out
    read_noise: float  # electrons, standard deviation
    dark: float  # electrons a pixel and frame
    full_well: float  # electrons
    bits: int


def on_bench(
    config: Config, bench: Bench, *, kept: Container[str] = ()
) -> tuple[Config, dict[str, Any], list[str]]:
    """Returns a config with the modulator, the lengths and the noise of a bench.

    Args:
        config: The user's config of a training; it is not changed.
        bench: The bench. Its noise needs its camera pixel and all its lengths; without `photons`
            a well exposed frame is taken (`exposed_photons`), and a note says so.
        kept: Paths of options that keep their values in the config.

    Returns:
        The new config; the options that the bench has set, by path; and notes for the user.

    Raises:
        InputError: If an option is of the wrong type, or the panel's measured table cannot be read.
    """
    config = check_types(config)
    allow(foreign_names(config).values())  # the config is the user's own
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
    """Returns options as flags of `train`; a table is shown by its number of levels alone."""
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
    """Returns the options of the modulator for a training, by path.

    Args:
        bench: The bench of the modulator.
        reads_table: Whether to read a measured table, which prints a line; else it is left out.

    Raises:
        InputError: If the table cannot be read.
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
    """Returns the options `noise.*`, and warnings of coarse sampling or of missing numbers."""
    known, camera = sampling.known_of(config), bench.camera
    length = "distance" if config.propagation.propagator.reads_lengths else "focal_length"
    lengths = {
        "wavelength": bench.wavelength,
        length: getattr(bench, length),
        "mask_pitch": bench.modulator.mask_pitch,
    } | {name: value for name, value in known.items() if value}
    wanted = {
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
    full_well, bits = cast(float, camera.full_well), cast(int, camera.bits)
    photons, notes = bench.photons, sampling.warnings_of(lies, found)
    if photons is None:
        scale = found.camera_pixels_per_sensor_pixel
        photons = exposed_photons(config, lies, scale, full_well)
        notes.append(f"it does not say photons: {photons:.2g} are taken, {WELL_EXPOSED}")
    read_noise, dark = camera.read_noise or 0.0, camera.dark or 0.0
    of_pixel = PixelNoise(photons, read_noise, dark, full_well, bits)
    return noise_options(lies, found, of_pixel, bin=camera.bin or 0), notes


def exposed_photons(config: Config, bench: sampling.Bench, scale: float, full_well: float) -> float:
    """Returns the photons of a frame whose brightest camera pixel is at `EXPOSED` of its full well.

    The frame has no object, and the masks are those that a training of the config starts from.

    Args:
        config: With the device of the bench.
        bench: Its geometry.
        scale: Camera pixels in a model sample.
        full_well: Of a camera pixel, electrons.

    Returns:
        Photoelectrons on the model's grid, to two digits.

    Raises:
        InputError: If the config is not valid.
    """
    run = untrained(checks.ready(config, has_network=False)).on_one_device()
    patterns = np.fft.fftshift(simulate(run, blank_image(run)), axes=(1, 2))
    envelope = pixel_envelope(sensor_points(run.sensor), *_envelope_of(bench))
    samples = float(np.sum(patterns) / len(patterns) / np.max(patterns * envelope))
    return float(f"{EXPOSED * full_well * scale**2 * samples:.2g}")


def _envelope_of(bench: sampling.Bench) -> tuple[float, float]:
    """Returns the spacing of the model's samples, cycles a mask pitch, and a mask pixel's side."""
    is_near = bench.kind == "angular_spectrum"
    return 1 / (bench.oversample * bench.pixels), 0.0 if is_near else bench.fill_factor**0.5


def noise_options(
    bench: sampling.Bench, found: Geometry, camera: PixelNoise, *, bin: int
) -> dict[str, Any]:
    """Returns the options, by path, that make the model as noisy as frames of a camera.

    `bin` is the number of pixels joined each way; 0 takes what suits the pattern, as
    `reconstruct --bench` does.
    """
    side = round(bench.oversample * bench.pixels)
    noise = model_noise(
        camera,
        scale=found.camera_pixels_per_sensor_pixel,
        bin=bin or useful_bin(found.camera_pixels_per_fringe),
        sensor=(side, side),
        pixel_side=_envelope_of(bench)[1],
    )
    values = {f"noise.{name}": _rounded(value) for name, value in noise.items()}
    return {"noise.kind": "camera", **values}


def model_noise(
    camera: PixelNoise, *, scale: float, bin: int, sensor: tuple[int, int], pixel_side: float
) -> dict[str, float]:
    """Returns the options `noise.*` of a model that is as noisy as a camera's frames.

    `reconstruct` joins bin x bin pixels, reads their spline at the model's samples, and divides by
    the envelope E of square mask pixels. Each sample stands for a = (scale / bin)^2 joined pixels.
    A sample of s electrons (on the grid, envelope divided out) therefore has the variance
    g^2 a s / E, where g is `POINT_NOISE`. If the whole CDP holds S electrons, the same sample of a
    model camera with N photons has the variance s S / N. In the mean over the grid the two are
    equal if N = S / (g^2 a <1 / E>). For noise that does not depend on the light, such as read
    noise, <1 / E^2> takes the place of <1 / E>.

    Args:
        camera: Noise of one of its pixels.
        scale: Camera pixels in a model sample.
        bin: Camera pixels joined each way; the sampling is "points".
        sensor: (sh, sw) of the model.
        pixel_side: Side of the mask's pixels (`geometry.pixel_envelope`).
    """
    envelope = pixel_envelope(sensor_points(sensor), 1 / sensor[0], pixel_side)
    read = math.sqrt(np.mean(1 / envelope**2))
    area = (scale / bin) ** 2
    # Electrons of a joined pixel that one electron of the model stands for.
    gain = POINT_NOISE**2 * float(np.mean(1 / envelope))
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
    """Rounds to the digits that are printed, so that options typed by hand give the same run."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
