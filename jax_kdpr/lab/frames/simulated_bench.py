"""Simulates a bench that is known in every detail: frames as a real camera would write them.

A `Geometry` places the continuous pattern of each CDP (its exact band-limited interpolation) on the
camera. There it is integrated over the camera's pixels, and turned into counts: light times flat
field, shot noise, dark electrons, offset, hot and dead pixels, read noise, clipping and rounding.
"""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float, UInt
from scipy import ndimage

from jax_kdpr.config.schema import OF_BENCH
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import require_pixels
from jax_kdpr.core.options import shallow
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Field, Image, Images, Spectra
from jax_kdpr.lab.frames.geometry import Geometry, Window, default_geometry, pixel_envelope
from jax_kdpr.lab.frames.measured import blank_image, pixel_side, snapshot_energy
from jax_kdpr.lab.frames.own_images import TRUTH_FILE, TRUTH_RECORD
from jax_kdpr.lab.frames.results import write_tiff
from jax_kdpr.optics import cdp, paths
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.runs.run import Run

FINE = 8  # samples of the pattern in a model sample, for splines between them
PIXEL_POINTS = 3  # points each way in a camera pixel
EDGE = 1.0  # model samples beyond the grid that the pattern still reaches
HEADROOM = 0.9  # of full scale, for the brightest pixel if none must saturate
FLAT_LEVEL = 0.6  # of the counts that are left for light, for the flat frame
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
    # Photoelectrons on the model's grid, scene of modulus 1; 0: as many as the exposure and the
    # full well say, or, without a full well, no shot noise.
    photons: float = 0.0
    full_well: float = 0.0  # electrons of the largest count: sets the exposure with `photons`
    dark: float = 0.0  # electrons of a pixel and frame, in expectation
    vignetting: float = 0.2  # loss of light in the corners
    hot: float = 1e-3  # share of pixels
    dead: float = 1e-3
    saturated: float = 0.0  # share of pixels that saturate in the brightest frame

    def room(self, electron: float = 0.0) -> float:
        """Returns the counts left for light; each dark electron takes `electron` of them."""
        return 2**self.bits - 1 - self.offset - self.dark * electron


class Sensor(NamedTuple):
    """One sensor: what is drawn once and does not change from frame to frame."""

    flat: Float[np.ndarray, "h w"]
    dark: Float[np.ndarray, "h w"]  # counts
    dead: Float[np.ndarray, "h w"]  # 0 where dead, else 1


class Exposure(NamedTuple):
    """Counts that light and electrons give, in every frame of a bench."""

    gain: float  # counts of a camera pixel for light 1
    electron: float  # counts for one electron; 0 if not known


def make_bench(
    run: Run,
    *,
    scale: float,
    shift: tuple[float, float] = (0.0, 0.0),
    shape: tuple[int, int] | None = None,
    rotation: float = 0.0,
    flip: str = "none",
    transpose: bool = False,
) -> Bench:
    """Returns a camera on which the pattern is shifted from the middle, in pixels.

    Without a `shape` it is a third larger than the pattern. The rest is as in `Geometry`.
    """
    if shape is None:
        shape = (round(run.sensor[0] * scale * 4 / 3), round(run.sensor[1] * scale * 4 / 3))
    require_pixels("--scale", *shape)
    turn = {"rotation": rotation, "flip": flip, "transpose": transpose}
    centred = default_geometry(Window(0, 0, *shape), run.sensor, scale, **turn)
    y, x = centred.centre_y + shift[0], centred.centre_x + shift[1]
    return Bench(centred._replace(centre_y=y, centre_x=x), shape, pixel_side(run))


def check_bench(bench: Bench) -> None:
    """Refuses numbers that the counts cannot hold, or that nothing would read.

    Raises:
        InputError: If there is such a number; the message names the flag of `simulate_bench`.
    """
    bits, full_well, dark = bench.bits, bench.full_well, bench.dark
    half = 2**bits / 2
    for is_wrong, said in (
        (
            bench.offset >= half,
            f"offset: expected below {half:g} counts of --bits {bits}; lower it",
        ),
        (
            bench.left_justified and bits <= 8,
            "left_justified: 8-bit files have no high bits to spare; give --bits 9 to 16",
        ),
        (
            dark and not (full_well or bench.photons),
            "dark: how many counts an electron gives is not said; give --full_well",
        ),
        (
            full_well and dark >= full_well / 2,
            f"dark: expected below half of --full_well {full_well:g}, got {dark:g}; lower it",
        ),
        (
            bench.saturated and full_well and bench.photons,
            "saturated: --full_well and --photons set the exposure; leave out one of the three",
        ),
    ):
        if is_wrong:
            raise InputError(f"--{said}")


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
        axis: Optical axis of the model (`camera.Camera.axis`). At [0, 0] the field is the spectrum
            of what lies in the window of the object; else it is an image of limited bandwidth.
    """
    samples = np.array(spectra.shape)
    if axis == (0, 0):
        coefficients = np.fft.ifft2(spectra, norm="ortho")
    else:
        coefficients = np.conj(np.fft.fftshift(np.fft.fft2(spectra, norm="ortho")))
    fine = np.fft.fft2(coefficients, tuple(FINE * samples)) / np.sqrt(samples.prod())
    pattern = ndimage.spline_filter(np.abs(fine) ** 2, order=3, mode="grid-wrap")
    # On a large camera the pattern may reach only a few rows and columns.
    corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]]) * (samples / 2 + EDGE)[:, None]
    found = bench.geometry.camera_points(corners)
    low, high = np.floor(found.min(axis=1)) - 1, np.ceil(found.max(axis=1)) + 2
    ends = np.clip([low, high], 0, bench.shape).astype(int)
    reached = tuple(slice(start, stop) for start, stop in ends.T)
    rows, columns = np.mgrid[reached].astype(float)
    offsets = (np.arange(PIXEL_POINTS) + 0.5) / PIXEL_POINTS - 0.5
    total = np.zeros(rows.shape)
    for dy in offsets:
        for dx in offsets:
            u = bench.geometry.model_points(np.stack([rows + dy, columns + dx]))
            place = (u + np.reshape(axis, (2, 1, 1))) * FINE
            seen = ndimage.map_coordinates(
                pattern, place, order=3, mode="grid-wrap", prefilter=False
            )
            inside = np.all(np.abs(u) <= (samples / 2 + EDGE).reshape(2, 1, 1), axis=0)
            envelope = pixel_envelope(u, 1 / samples[0], bench.pixel_side)
            total += np.where(inside, seen * envelope, 0.0)
    light = np.zeros(bench.shape)
    light[reached] = np.maximum(total, 0.0) / (PIXEL_POINTS * bench.geometry.scale) ** 2
    return light


def find_exposure(
    lights: Iterable[Float[np.ndarray, "k h w"]], bench: Bench, sensor: Sensor, *, energy: float
) -> Exposure:
    """Returns one exposure for all frames, so that the gain of a calibration holds for each.

    If full well and photons are given, they set the exposure, and light beyond the full well is
    lost. Else it is the longest for which the brightest pixel still fits; with `bench.saturated`,
    the frame of that pixel loses that share of its pixels. `lights` are in model units per camera
    pixel, and `energy` is the sum of the CDP of a scene of modulus 1, which holds `bench.photons`.

    Raises:
        InputError: If `bench.saturated` is more than the share of the pixels that see light.
    """
    electron = bench.room() / bench.full_well if bench.full_well else 0.0
    if bench.full_well and bench.photons:
        return Exposure(electron * bench.photons / energy, electron)

    def level_of(light: np.ndarray) -> float:
        seen = light * sensor.flat * sensor.dead
        brightest = seen[np.argmax(seen.max(axis=(1, 2)))]
        return float(np.quantile(brightest, 1.0 - bench.saturated))

    level = max(map(level_of, lights))
    if not level:
        raise InputError(
            f"--saturated: {bench.saturated:g} of the pixels cannot saturate, fewer of them see "
            "light; lower it, or give fewer --camera_pixels"
        )
    # If `photons` sets the counts of an electron, dark electrons take up range as light does.
    dark = bench.dark * energy / bench.photons if bench.photons else 0.0
    gain = (1.0 if bench.saturated else HEADROOM) * bench.room(electron) / (level + dark)
    return Exposure(gain, electron or (gain * energy / bench.photons if bench.photons else 0.0))


def expose(
    light: Float[np.ndarray, "h w"],
    exposure: Exposure,
    bench: Bench,
    sensor: Sensor,
    rng: np.random.Generator,
) -> UInt[np.ndarray, "h w"]:
    """Takes one frame of light (model units per camera pixel): uint8 up to 8 bits, else uint16."""
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


def as_the_camera_sees(
    camera: Camera, bench: Bench
) -> tuple[Bench, Callable[[Field, Optics], Spectra]]:
    """Returns a bench, and its spectra(field, optics), which show more than the model's window.

    If the optical axis is at [0, 0], these are the spectra of all light behind the masks, at the
    masks' own fineness, with samples one cycle of the object's side apart. Else they are the
    model's.
    """
    if camera.axis != (0, 0):
        return bench, lambda field, optics: cdp.cdp_forward(
            field, optics.masks, oversample=camera.oversample, path=optics.path
        )
    fine = paths.pixels_within(camera.optics(jnp.zeros((1, camera.size, camera.size))).path)
    geometry = bench.geometry._replace(scale=bench.geometry.scale / camera.step)
    side = bench.pixel_side if fine == 1 else 1.0  # finer pixels are squares

    def spectra(field: Field, optics: Optics) -> Spectra:
        masks = cdp.as_phasors(optics.masks)
        at_mask = paths.before_mask(field, optics.path)
        return cdp.cdp_forward(paths.spread_pixels(at_mask, fine), masks) / fine

    return bench._replace(geometry=geometry, pixel_side=side), spectra


def write_bench(output: Path, run: Run, images: Images, bench: Bench, *, seed: int) -> None:
    """Writes the folder that the help of `simulate_bench` describes."""
    rng = np.random.default_rng(seed)
    sensor = make_sensor(bench, rng)
    for folder in ("frames", "calibration"):
        (output / folder).mkdir(parents=True, exist_ok=True)

    sees, spectra_of = as_the_camera_sees(run.camera, bench)
    optics = run.optics

    def lights(image: Image) -> np.ndarray:
        """Returns the light of each snapshot of one scene [k h w]."""
        spectra = np.asarray(spectra_of(scene_field(image, run.camera.scene), optics))
        return np.stack([camera_light(one, sees, axis=run.camera.axis) for one in spectra])

    def take(light: np.ndarray, name: str) -> None:
        for k, one in enumerate(light):
            frame = expose(one, exposure, bench, sensor, rng)
            write_tiff(output / f"{name}_{k:02d}.tif", frame)

    # All objects are computed twice, so that memory holds one at a time.
    blank = lights(blank_image(run.camera))
    objects = map(lights, progress(images, desc="exposure", unit="object"))
    energy = float(np.mean(snapshot_energy(run)))
    exposure = find_exposure(itertools.chain([blank], objects), bench, sensor, energy=energy)
    if bench.full_well and not bench.photons:
        photons = exposure.gain * energy / exposure.electron
        bench = bench._replace(photons=photons)
        print(f"photons of a frame: {photons:.3g}, by the full well and the exposure")
    for number, image in enumerate(progress(images, desc="frames", unit="object")):
        take(lights(image), f"frames/object_{number:05d}")
    take(blank, "calibration/blank")
    # The references have no shot noise; the flat's light is in counts.
    quiet, even_gain = bench._replace(photons=0.0), exposure._replace(gain=1.0)
    for name, level, count in (("dark", 0.0, DARK_FRAMES), ("flat", FLAT_LEVEL, FLAT_FRAMES)):
        light = np.full(bench.shape, level * bench.room(exposure.electron))
        shots = [expose(light, even_gain, quiet, sensor, rng) for _ in range(count)]
        write_tiff(output / f"{name}.tif", np.stack(shots))
    write_tiff(output / "bad_pixels.tif", np.where(sensor.dead > 0, 0, 255).astype(np.uint8))
    whole_files.write_whole(output / TRUTH_FILE, lambda file: np.save(file, np.asarray(images)))
    known = {"counts_per_unit": exposure.gain, "counts_per_electron": exposure.electron}
    scene = {"scene": shallow(run.camera.scene)}
    scene["optics"] = {name: shallow(getattr(run.config, name)) for name in OF_BENCH}
    truth = {**bench._asdict(), "geometry": bench.geometry._asdict(), **known, **scene}
    json_files.write_json(output / TRUTH_RECORD, truth)
