"""bench.toml: the numbers of one bench, for all commands that want some of them.

    wavelength = 532e-9
    [camera]
    pixel_pitch = 3.45e-6

`--bench bench.toml` gives what the flags of a command leave open; a flag goes before it. What the
file does not say is None.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr.core import options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, require_pixels, shown
from jax_kdpr.core.options import option
from jax_kdpr.optics.propagation import PROPAGATORS
from jax_kdpr.optics.sampling import bench_geometry

BENCH = flags.DEFINE_string("bench", "", "bench.toml: numbers that the flags leave open.")
ELECTRONS = Range(0, 1e9)


@dataclass(kw_only=True, slots=True)
class Modulator:
    """The panel that shows the mask, or what the mask is etched into."""

    pixel_pitch: float | None = option(
        None, "from pixel to pixel", unit="metres", within=POSITIVE_LENGTHS["pitch"]
    )
    panel: tuple[int, ...] | None = option(None, "its rows and columns", within=Range(1, 1_000_000))
    magnify: int = option(1, "its pixels each way that show one mask pixel", within=Range(1, 65536))
    fill_factor: float | None = option(
        None, "share of its area that is modulated", within=Range(0, 1, "(]")
    )
    bits: int | None = option(None, "of its gray levels", within=Range(8, 16))
    gray_2pi: int | None = option(None, "gray level of a phase of 2 pi", within=Range(1, 65536))
    table: str | None = option(None, "file of the measured phase of each gray level")

    @property
    def mask_pitch(self) -> float | None:
        """From mask pixel to mask pixel, metres."""
        return None if self.pixel_pitch is None else self.pixel_pitch * self.magnify


@dataclass(kw_only=True, slots=True)
class Camera:
    """Of its pixels, not of the model's samples."""

    pixel_pitch: float | None = option(
        None, "from pixel to pixel", unit="metres", within=POSITIVE_LENGTHS["pitch"]
    )
    pixels: tuple[int, ...] | None = option(
        None, "its rows and columns", within=Range(1, 1_000_000)
    )
    bin: int | None = option(
        None, "pixels each way to join; 0: what suits the pattern", within=Range(0, 1024)
    )
    bits: int | None = option(None, "of its converter", within=Range(1, 16))
    full_well: float | None = option(
        None, "that a pixel holds", unit="electrons", within=Range(1, 1e9)
    )
    read_noise: float | None = option(
        None, "standard deviation", unit="electrons", within=ELECTRONS
    )
    dark: float | None = option(None, "of a pixel and frame", unit="electrons", within=ELECTRONS)
    offset: float | None = option(None, "without light", unit="counts", within=Range(0, 65535))


@dataclass(kw_only=True, slots=True)
class Frames:
    """Files; relative to the folder of bench.toml."""

    dark: str | None = option(None, "without light")
    flat: str | None = option(None, "of even light")
    bad_pixels: str | None = option(None, "map of bad pixels")


@dataclass(kw_only=True, slots=True)
class Bench:
    """All of it."""

    wavelength: float | None = option(
        None, "of the light", unit="metres", within=POSITIVE_LENGTHS["wavelength"]
    )
    focal_length: float | None = option(
        None, "of the lens, far field", unit="metres", within=POSITIVE_LENGTHS["distance"]
    )
    distance: float | None = option(
        None, "from mask to sensor, near field", unit="metres", within=POSITIVE_LENGTHS["distance"]
    )
    photons: float | None = option(
        None,
        "of a frame, on the model's grid: `counts` of results.json times electrons a count",
        unit="photoelectrons",
        within=Range(1, 1e15),
    )
    modulator: Modulator = field(default_factory=Modulator)
    camera: Camera = field(default_factory=Camera)
    frames: Frames = field(default_factory=Frames)


def read_bench() -> Bench:
    """Reads the file of --bench; without the flag a bench of which nothing is said.

    Raises:
        InputError: If it cannot be read, has a key that is none, or a value that cannot be meant.
    """
    if not BENCH.value:
        return Bench()
    path = Path(BENCH.value)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        raise InputError(f"--bench: {path}: cannot be read as TOML ({failure})") from failure
    try:
        bench = options.build(Bench, values, known=list(options.flatten(Bench())))
        options.check(bench)
        _check_pairs(bench)
    except InputError as failure:
        raise InputError(f"--bench: {path}: {failure}") from failure
    for name, value in options.shallow(bench.frames).items():
        setattr(bench.frames, name, str(path.parent / value) if value else None)
    table = bench.modulator.table
    bench.modulator.table = str(path.parent / table) if table else None
    return bench


def _check_pairs(bench: Bench) -> None:
    pairs = {"modulator.panel": bench.modulator.panel, "camera.pixels": bench.camera.pixels}
    for name, sides in pairs.items():
        if sides is None:
            continue
        if len(sides) != 2:
            raise InputError(f"{name}: expected [rows, columns], got {list(sides)}")
        require_pixels(name, *sides)
    bits, offset = bench.camera.bits, bench.camera.offset
    if bits is not None and offset is not None and offset >= 2**bits / 2:
        raise InputError(
            f"camera.offset: expected below half of the counts of {bits} bits, got {offset:g}"
        )


def fill(values: Mapping[str, Any]) -> None:
    """Gives flags that the command line leaves open their values; None gives none.

    Raises:
        InputError: If a flag would not take its value.
    """
    for name, value in values.items():
        if value is not None and not flags.FLAGS[name].present:
            flags.FLAGS[name].value = as_flag(name, value)


def as_flag(name: str, value: Any) -> Any:
    """Returns a value of the file as a flag takes it.

    Raises:
        InputError: If the flag would refuse it.
    """
    try:
        return flags.FLAGS[name].parser.parse(value)
    except (TypeError, ValueError) as failure:
        raise InputError(
            f"--bench: {BENCH.value}: it gives --{name} {shown(value)}: {failure}"
        ) from failure


def sides(pixels: tuple[int, ...] | None) -> str | None:
    """Returns a size as flags take it: "1080x1920"; None if there is none."""
    return None if pixels is None else "x".join(map(str, pixels))


def camera_scale(
    bench: Bench, *, pixels: int, oversample: int, propagation: Mapping[str, Any]
) -> float | None:
    """Returns how many camera pixels there are to a sample of the model; None if it is not said.

    Args:
        bench: Its lengths.
        pixels: N, of the mask, each way.
        oversample: Of the model.
        propagation: Of the model; of a near field the lengths, in place of the bench's.
    """
    lengths: dict[str, Any] = {key: propagation[key] for key in ("wavelength", "pitch", "distance")}
    if not PROPAGATORS[propagation["kind"]].reads_lengths:
        lengths = {
            "wavelength": bench.wavelength,
            "pitch": bench.modulator.mask_pitch,
            "distance": bench.focal_length,
        }
    if not all(lengths.values()) or not bench.camera.pixel_pitch:
        return None
    found = bench_geometry(
        pixels=pixels,
        oversample=oversample,
        kind=propagation["kind"],
        camera_pixel=bench.camera.pixel_pitch,
        **lengths,
    )
    return found.camera_pixels_per_sensor_pixel
