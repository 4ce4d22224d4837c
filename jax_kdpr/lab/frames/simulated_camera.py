"""A bench that is known in every detail: frames as a real camera would write them.

The continuous pattern of each CDP (its band-limited interpolation, exact) is laid on the camera by
a `Geometry`, integrated over the camera's pixels, and turned into counts: light times flat field,
shot noise, dark electrons, offset, hot and dead pixels, read noise, clipping and rounding.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import Complex, Float, UInt
from scipy import ndimage

from jax_kdpr.core import whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.frames.geometry import Geometry, camera_points, model_points, pixel_envelope

FINE = 8  # samples of the pattern in a model sample, for splines between them
PIXEL_POINTS = 3  # each way, in a camera pixel
EDGE = 1.0  # model samples past the grid that the pattern still reaches
HEADROOM = 0.9  # of full scale for the brightest pixel, where none shall saturate
FLAT_LEVEL = 0.6  # of the counts that are left for light, of the flat frame
DARK_FRAMES = 8
FLAT_FRAMES = 4


class Bench(NamedTuple):
    """A camera and how the pattern lies on it."""

    geometry: Geometry
    shape: tuple[int, int]  # of a frame, pixels
    pixel_side: float = 0.0  # of the mask's pixels (`geometry.pixel_envelope`)
    bits: int = 12
    left_justified: bool = False
    offset: float = 64.0  # counts without light
    read_noise: float = 1.0  # standard deviation, counts
    photons: float = 0.0  # photoelectrons on the model's grid, scene of modulus 1; 0: no shot noise
    full_well: float = 0.0  # electrons of the largest count: sets the exposure with `photons`
    dark: float = 0.0  # electrons of a pixel and frame, in expectation
    vignetting: float = 0.2  # loss of light in the corners
    hot: float = 1e-3  # share of pixels
    dead: float = 1e-3
    saturated: float = 0.0  # share of pixels that the brightest frame loses


class Sensor(NamedTuple):
    """One sensor, drawn once: what does not change from frame to frame."""

    flat: Float[np.ndarray, "h w"]
    dark: Float[np.ndarray, "h w"]  # counts
    dead: Float[np.ndarray, "h w"]  # 0 where dead, else 1


class Exposure(NamedTuple):
    """What light and electrons give, in every frame of a bench."""

    gain: float  # counts of a camera pixel for light 1
    electron: float  # counts; 0 where it is not known


def check_bench(bench: Bench) -> None:
    """Refuses, by the flags of `simulate_bench`, what its counts cannot hold or nothing would read.

    Raises:
        InputError: If there is such a number.
    """
    bits, full_well, dark = bench.bits, bench.full_well, bench.dark
    if bench.offset >= 2**bits / 2:
        raise InputError(
            f"--offset: expected below half of the {2**bits} counts of --bits {bits}, got "
            f"{bench.offset:g}; lower it"
        )
    if bench.left_justified and bits <= 8:
        raise InputError(
            f"--left_justified: frames of {bits} bits are written as 8-bit files, which have no "
            "high bits to spare; give --bits 9 to 16, or leave it out"
        )
    if dark and not (full_well or bench.photons):
        raise InputError("--dark: how many counts an electron gives is not said; give --full_well")
    if full_well and dark >= full_well / 2:
        raise InputError(
            f"--dark: expected below half of the {full_well:g} electrons of --full_well, got "
            f"{dark:g}; lower it"
        )
    if bench.saturated and full_well and bench.photons:
        raise InputError(
            "--saturated: nothing would read it beside --full_well and --photons, which set the "
            "exposure; leave out one of the three"
        )


def make_sensor(bench: Bench, rng: np.random.Generator) -> Sensor:
    """Draws the flat field and the bad pixels of a sensor."""
    height, width = bench.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    flat = (1.0 - bench.vignetting * (y**2 + x**2) / 2) * (
        1.0 + 0.01 * rng.normal(size=bench.shape)
    )
    flat /= flat.mean()  # so that the gain is that of frames divided by their flat
    hot = rng.random(bench.shape) < bench.hot
    dark = bench.offset + hot * 0.5 * 2**bench.bits
    dead = np.where(rng.random(bench.shape) < bench.dead, 0.0, 1.0)
    return Sensor(flat, dark, dead)


def camera_light(
    spectra: Complex[np.ndarray, "sh sw"], bench: Bench, *, axis: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
    """Returns the light of one snapshot in each camera pixel, in model units.

    Args:
        spectra: Complex field on the model's grid (`cdp.cdp_forward`).
        bench: Its geometry, shape and mask pixels are read.
        axis: Of the model (`camera.Camera.axis`). At [0, 0] the field is the spectrum of what
            lies in the window of the object; else it is a picture, and its own spectrum ends.
    """
    samples = np.array(spectra.shape)
    if axis == (0, 0):
        coefficients = np.fft.ifft2(spectra, norm="ortho")
    else:
        coefficients = np.conj(np.fft.fftshift(np.fft.fft2(spectra, norm="ortho")))
    fine = np.fft.fft2(coefficients, tuple(FINE * samples)) / np.sqrt(samples.prod())
    pattern = ndimage.spline_filter(np.abs(fine) ** 2, order=3, mode="grid-wrap")
    reached = _reached(bench, samples)
    rows, columns = np.mgrid[reached].astype(float)
    offsets = (np.arange(PIXEL_POINTS) + 0.5) / PIXEL_POINTS - 0.5
    total = np.zeros(rows.shape)
    for dy in offsets:
        for dx in offsets:
            u = model_points(bench.geometry, np.stack([rows + dy, columns + dx]))
            place = (u + np.reshape(axis, (2, 1, 1))) * FINE
            seen = ndimage.map_coordinates(
                pattern, place, order=3, mode="grid-wrap", prefilter=False
            )
            inside = np.all(np.abs(u) <= (samples / 2 + EDGE).reshape(2, 1, 1), axis=0)
            envelope = pixel_envelope(u, spectra.shape, bench.pixel_side)
            total += np.where(inside, seen * envelope, 0.0)
    light = np.zeros(bench.shape)
    light[reached] = np.maximum(total, 0.0) / (PIXEL_POINTS * bench.geometry.scale) ** 2
    return light


def _reached(bench: Bench, samples: np.ndarray) -> tuple[slice, ...]:
    """Rows and columns of the camera that a pattern of so many samples can reach: often few."""
    corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]]) * (samples / 2 + EDGE)[:, None]
    found = camera_points(bench.geometry, corners)
    low, high = np.floor(found.min(axis=1)) - 1, np.ceil(found.max(axis=1)) + 2
    ends = np.clip([low, high], 0, bench.shape).astype(int)
    return tuple(slice(start, stop) for start, stop in ends.T)


def find_exposure(
    lights: Iterable[Float[np.ndarray, "n h w"]], bench: Bench, sensor: Sensor, *, energy: float
) -> Exposure:
    """Returns one exposure for all frames, so that the gain of a calibration holds for each.

    With full well and photons so many counts as they are: what exceeds the full well is lost. Else
    the longest: the brightest pixel just fits; with `bench.saturated`, the frame that has it loses
    that share of its pixels.

    Args:
        lights: Of every frame, in model units a camera pixel.
        bench: The camera.
        sensor: Its sensor.
        energy: Sum of a CDP of modulus 1, model units: what `bench.photons` are.

    Raises:
        InputError: If `bench.saturated` is more than the share of the pixels that see light.
    """
    electron = _room(bench) / bench.full_well if bench.full_well else 0.0
    if bench.full_well and bench.photons:
        return Exposure(electron * bench.photons / energy, electron)
    level = max(_brightest(light, bench, sensor) for light in lights)
    if not level:
        raise InputError(
            f"--saturated: {bench.saturated:g} of the pixels cannot saturate, fewer of them see "
            "light; lower it, or give fewer --camera_pixels"
        )
    # Where photons say what an electron is, dark ones take room as light does.
    dark = bench.dark * energy / bench.photons if bench.photons else 0.0
    gain = (1.0 if bench.saturated else HEADROOM) * _room(bench, electron) / (level + dark)
    return Exposure(gain, electron or (gain * energy / bench.photons if bench.photons else 0.0))


def _room(bench: Bench, electron: float = 0.0) -> float:
    """Counts that are left for light beside the offset and, if `electron` counts, the dark."""
    return 2**bench.bits - 1 - bench.offset - bench.dark * electron


def _brightest(light: np.ndarray, bench: Bench, sensor: Sensor) -> float:
    """What just fits of the brightest snapshot [k h w]: its brightest pixel, or a quantile."""
    seen = light * sensor.flat * sensor.dead
    brightest = seen[np.argmax(seen.max(axis=(1, 2)))]
    return float(np.quantile(brightest, 1.0 - bench.saturated))


def expose(
    light: Float[np.ndarray, "h w"],
    exposure: Exposure,
    bench: Bench,
    sensor: Sensor,
    rng: np.random.Generator,
) -> UInt[np.ndarray, "h w"]:
    """Takes one frame: uint8 up to 8 bits, else uint16.

    Args:
        light: In model units a camera pixel.
        exposure: Of all frames.
        bench: The camera.
        sensor: Its sensor.
        rng: For the noise.
    """
    signal = exposure.gain * light * sensor.flat
    if bench.photons:
        signal = exposure.electron * rng.poisson(signal / exposure.electron)
    if bench.dark:
        signal = signal + exposure.electron * rng.poisson(bench.dark, light.shape)
    counts = sensor.dead * (signal + sensor.dark + bench.read_noise * rng.normal(size=light.shape))
    counts = np.clip(np.round(counts), 0, 2**bench.bits - 1).astype(np.uint16)
    if bench.bits <= 8:
        return counts.astype(np.uint8)
    return counts << (16 - bench.bits) if bench.left_justified else counts


def write_references(
    folder: Path, exposure: Exposure, bench: Bench, sensor: Sensor, rng: np.random.Generator
) -> None:
    """Writes dark.tif and flat.tif, of several pages each, and bad_pixels.tif (255 where dead)."""
    quiet, even_gain = bench._replace(photons=0.0), exposure._replace(gain=1.0)
    nothing = np.zeros(bench.shape)
    even = np.full(bench.shape, FLAT_LEVEL * _room(bench, exposure.electron))
    dark = [expose(nothing, exposure, quiet, sensor, rng) for _ in range(DARK_FRAMES)]
    flat = [expose(even, even_gain, quiet, sensor, rng) for _ in range(FLAT_FRAMES)]
    write_tiff(folder / "dark.tif", np.stack(dark))
    write_tiff(folder / "flat.tif", np.stack(flat))
    write_tiff(folder / "bad_pixels.tif", np.where(sensor.dead > 0, 0, 255).astype(np.uint8))


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    """Writes a grey TIFF under a temporary name first, so that it is whole or not there."""
    whole_files.write_whole(
        path, lambda file: tifffile.imwrite(file, pixels, photometric="minisblack")
    )
