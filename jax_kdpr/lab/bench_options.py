"""Sets the options of a training to the modulator, the camera and the light of bench.toml."""

import math
from collections.abc import Container
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config, with_values
from jax_kdpr.core import options as core_options
from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.bench_file import Bench, require_way, size_note
from jax_kdpr.lab.frames.geometry import POINT_NOISE, pixel_envelope, sensor_points, useful_bin
from jax_kdpr.lab.frames.measured import blank_image
from jax_kdpr.lab.layout import known_of, make_layout
from jax_kdpr.optics.camera import centred
from jax_kdpr.optics.device import TURN
from jax_kdpr.optics.lookup_table import device_table
from jax_kdpr.optics.noise import NoiseOptions
from jax_kdpr.optics.sampling import Layout, Sampling, camera_warnings, sampling_of
from jax_kdpr.runs.assembly import build_camera, read_planes, start_phases

MOST_BITS = 16  # largest `noise.bits`
EXPOSED = 0.7  # of its full well, the brightest camera pixel of a frame whose light is not known
WELL_EXPOSED = f"with which the brightest camera pixel is at {100 * EXPOSED:g} % of its full well"
MASKS = 16  # random ones, for that
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
        InputError: If the config is not valid, or the panel's measured table cannot be read.
    """
    config = checks.typed(config)
    require_way(bench, config.propagation.kind)
    options = _length_options(config, bench) | device_options(bench)
    if any(path in kept for path in LEVELS):
        options = {path: value for path, value in options.items() if path not in LEVELS}
    options = {path: value for path, value in options.items() if path not in kept}
    config = with_values(config, options)
    noise, notes = _noise_of_frames(config, bench, kept)
    notes += filter(None, [size_note(bench, config.data.size)])
    noise = {path: value for path, value in noise.items() if path not in kept}
    config, options = with_values(config, noise), options | noise
    try:
        core_options.check(config)
    except InputError as failure:
        by_bench = str(failure).partition(":")[0] in options
        said = "; ".join([f"--bench: it sets {failure}", *notes]) if by_bench else str(failure)
        raise InputError(said) from failure
    return config, options, notes


def in_words(options: dict[str, Any]) -> str:
    """Returns a line that says which options a bench has set."""
    return as_flags(options) or "says nothing that a training reads"


def as_flags(options: dict[str, Any]) -> str:
    """Returns options as flags of `train`, but for those that say that there is no limit.

    A table is shown by its number of levels alone.
    """
    shown = {}
    for path, value in options.items():
        if isinstance(value, tuple):
            shown[path] = f"({len(value)} levels)" if value else ""
        elif isinstance(value, float):
            shown[path] = f"{value:.4g}" if _rounded(value) == value else repr(value)
        else:
            shown[path] = str(value)
    if options.get("device.phase_range") == TURN:
        del shown["device.phase_range"]
    return " ".join(f"--config.{path}={value}" for path, value in shown.items() if value)


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


def device_options(bench: Bench) -> dict[str, Any]:
    """Returns the options of the modulator for a training, by path.

    Reading a measured table prints a line.

    Raises:
        InputError: If the table cannot be read.
    """
    panel, options = bench.modulator, {}
    top = 2 ** (panel.bits or 8)
    if panel.table:
        table = device_table(panel.table)
        if len(table) > top:
            raise InputError(
                f"--bench: modulator.bits: {panel.bits or 8} bits have {top} gray levels, and the "
                f"table has {len(table)}; mend one of them"
            )
        options |= {"levels": 0, "phase_range": TURN, "table": table}
    elif panel.gray_2pi:
        reaches_2pi = panel.gray_2pi <= top
        reached = TURN if reaches_2pi else _rounded(TURN * (top - 1) / panel.gray_2pi)
        options |= {"levels": min(panel.gray_2pi, top), "phase_range": reached, "table": ()}
    if panel.magnify > 1:
        options["panel_pixels"] = panel.magnify
    if panel.fill_factor is not None:
        options["fill_factor"] = panel.fill_factor
    if panel.grating:
        # The pattern leaves the axis, on which the light of gaps, zero order and crosstalk stays.
        options |= {"zero_order": 0.0, "gaps": "absorbing", "crosstalk": 0.0}
    return {f"device.{name}": value for name, value in options.items()}


def _noise_of_frames(
    config: Config, bench: Bench, kept: Container[str]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the options `noise.*`, and warnings of coarse sampling or of missing numbers."""
    if "noise.kind" in kept and config.noise.kind != "camera":
        return {}, []  # nothing would read them
    known, camera = known_of(config), bench.camera
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
    layout = make_layout(pixels, lengths)
    found = sampling_of(layout)
    full_well, bits = cast(float, camera.full_well), cast(int, camera.bits)
    photons, notes = bench.photons, camera_warnings(layout, found)
    if photons is None and "noise.photons" in kept:
        photons = 1.0  # of no account
    elif photons is None:
        scale = found.camera_pixels_per_sensor_pixel
        photons = exposed_photons(config, layout, scale, full_well)
        notes.append(f"it does not say photons: {photons:.2g} are taken, {WELL_EXPOSED}")
    read_noise, dark = camera.read_noise or 0.0, camera.dark or 0.0
    of_pixel = PixelNoise(photons, read_noise, dark, full_well, bits)
    options = noise_options(layout, found, of_pixel, bin=camera.bin or 0)
    # What another kind of noise reads goes back to its default: nothing would read it.
    fresh, before = core_options.shallow(NoiseOptions()), core_options.shallow(config.noise)
    unread = {f"noise.{name}": fresh[name] for name in fresh if fresh[name] != before[name]}
    return unread | options, notes


def exposed_photons(config: Config, layout: Layout, scale: float, full_well: float) -> float:
    """Returns the photons of a frame whose brightest camera pixel is at `EXPOSED` of its full well.

    The frame has no object. Unless the config begins at masks of its own, the mask is random: the
    median over `MASKS` draws, which do not depend on the seed, for the peak varies from mask to
    mask.

    Args:
        config: With the device of the bench.
        layout: How the model's samples lie on the camera.
        scale: Camera pixels in a model sample.
        full_well: Of a camera pixel, electrons.

    Returns:
        Photoelectrons on the model's grid, to two digits.

    Raises:
        InputError: If the config is not valid.
    """
    config = checks.ready(config, has_network=False)
    camera, size = build_camera(config), config.data.size
    rng = np.random.default_rng(0)
    masks = jnp.asarray(rng.uniform(0, TURN, (MASKS, size, size)), jnp.float32)
    if config.masks.start != "random":
        masks = start_phases(config, masks[:1], read_planes(config))
    shoot = jax.jit(lambda phases: camera.clean(camera.optics(phases), blank_image(camera))[0])
    patterns = [centred(np.asarray(shoot(mask[None])), camera.axis) for mask in masks]
    points = sensor_points(patterns[0].shape)
    envelope = pixel_envelope(
        points, 1 / (layout.oversample * layout.pixels), _mask_pixel_side(layout)
    )
    samples = np.median([one.sum() / (one * envelope).max() for one in patterns])
    return float(f"{EXPOSED * full_well * scale**2 * samples:.2g}")


def _mask_pixel_side(layout: Layout) -> float:
    """Returns the side of a mask pixel in mask pitches; 0 where it has no envelope."""
    return 0.0 if layout.space.propagator.keeps_pitch else layout.fill_factor**0.5


def noise_options(
    layout: Layout, found: Sampling, camera: PixelNoise, *, bin: int
) -> dict[str, Any]:
    """Returns the options, by path, that make the model as noisy as frames of a camera.

    `bin` is the number of pixels joined each way; 0 takes what suits the pattern, as
    `reconstruct --bench` does.
    """
    side = round(layout.oversample * layout.pixels)
    noise = model_noise(
        camera,
        scale=found.camera_pixels_per_sensor_pixel,
        bin=bin or useful_bin(found.camera_pixels_per_fringe),
        sensor=(side, side),
        pixel_side=_mask_pixel_side(layout),
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
