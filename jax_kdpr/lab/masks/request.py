"""What a mask export may be asked for, and whether it fits the run that it is for."""

import math
from typing import NamedTuple

import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import LENGTHS, Range, require, require_pixels
from jax_kdpr.lab.masks.files import BITS, CONJUGATE, DIRECT, HEIGHT, PHASE, SLM, Coding
from jax_kdpr.lab.masks.layout import Layout, place
from jax_kdpr.optics.lookup_table import read_table

SUFFIXES = {
    "slm": (".png", ".tiff", ".bmp"),
    "height": (".tiff", ".npy", ".csv"),
    "npy": (".npy",),
    "csv": (".csv",),
    "tiff": (".tiff",),
}
# Options that only some formats read.
READ_ONLY_WITH = {
    **dict.fromkeys(("panel", "pixel_pitch", "magnify", "tile", "background"), ("slm",)),
    **dict.fromkeys(("bits", "gray_2pi", "table", "falling"), ("slm",)),
    **dict.fromkeys(("index", "reflection", "levels"), ("height",)),
    "format_file": ("slm", "height"),
    "stack": ("npy", "tiff"),
}


class Request(NamedTuple):
    """What the command line asks for; 0 and "" leave a number or a name to the run or format."""

    format: str  # slm, height, npy, csv or tiff
    format_file: str = ""
    stack: bool = False
    sign: str = CONJUGATE
    flip_vertical: bool = False
    flip_horizontal: bool = False
    rotate: int = 0
    wavelength: float = 0.0  # metres, as the pitches
    mask_pitch: float = 0.0
    pixel_pitch: float = 0.0
    panel: tuple[int, int] | None = None
    magnify: int = 0
    tile: bool = False
    background: int = 0
    bits: int = 8
    gray_2pi: int = 0
    table: str = ""
    falling: bool = False
    index: float = 0.0
    reflection: bool = False
    levels: int = 0


class Plan(NamedTuple):
    """A request that fits the run."""

    name: str  # of the files, to which a number is added
    suffix: str
    stack: bool
    coding: Coding
    layout: Layout
    background: int
    wavelength: float  # metres; 0: not known
    mask_pitch: float  # metres; 0: not known
    pixel_pitch: float
    levels: str  # of the run, on which the file must land exactly, in words; "" for none


def plan_export(request: Request, config: Config) -> Plan:
    """Checks a request against the run that it is for.

    Raises:
        InputError: If an option is wrong, missing, read by nothing, or does not fit the run.
    """
    defaults = Request(request.format)._asdict()
    for option, formats in READ_ONLY_WITH.items():
        if getattr(request, option) != defaults[option] and request.format not in formats:
            raise InputError(
                f"--{option}: is read only with --format {' or '.join(formats)}, got --format "
                f"{request.format}; leave it out"
            )
    suffixes = SUFFIXES[request.format]
    suffix = f".{request.format_file}" if request.format_file else suffixes[0]
    if suffix not in suffixes:
        raise InputError(
            f"--format_file: expected {' or '.join(s[1:] for s in suffixes)} with --format "
            f"{request.format}, got {request.format_file}"
        )
    if suffix == ".bmp" and request.bits != 8:
        raise InputError(
            f"--format_file: bmp has 8 bits, got --bits {request.bits}; take png or tiff"
        )
    _check_numbers(request)
    wavelength = _of_run("wavelength", request.wavelength, config.propagation.wavelength)
    mask_pitch = _of_run("mask_pitch", request.mask_pitch, config.propagation.pitch)
    mask_pitch, magnify = _magnification(request, mask_pitch)
    layout = Layout(
        request.flip_vertical,
        request.flip_horizontal,
        request.rotate % 360,
        magnify,
        request.panel,
        request.tile,
    )
    _check_layout(request, layout)
    match request.format:
        case "slm":
            coding = _slm(request, config)
        case "height":
            coding = _height(request, wavelength)
        case _:
            coding = Coding(PHASE, request.sign)
    require_pixels("--magnify", magnify * config.data.size, magnify * config.data.size)
    place(np.zeros((config.data.size,) * 2, np.uint8), layout)  # refuses a panel that is too small
    return Plan(
        request.format if request.format in (SLM, HEIGHT) else "phases",
        suffix,
        request.stack,
        coding,
        layout,
        request.background,
        wavelength,
        mask_pitch,
        request.pixel_pitch,
        _trained_levels(request, config),
    )


def _check_numbers(request: Request) -> None:
    if request.bits not in BITS:
        raise InputError(f"--bits: expected 8, 10 or 16, got {request.bits}")
    require("--index", request.index, Range(0, 10))
    require("--magnify", request.magnify, Range(0, 8192))
    require("--gray_2pi", request.gray_2pi, Range(0, 2**24))
    require("--levels", request.levels, Range(0, 65536))
    for name in ("wavelength", "mask_pitch", "pixel_pitch"):
        within = LENGTHS[name.removeprefix("mask_").removeprefix("pixel_")]
        require(f"--{name}", getattr(request, name), within, unit="metres")


def _of_run(name: str, given: float, of_run: float) -> float:
    """A length that the run may have been trained with: near fields are."""
    if given and of_run and not math.isclose(given, of_run, rel_tol=1e-6):
        raise InputError(
            f"--{name}: the run was trained with {of_run:g} m, got {given:g}; leave it out"
        )
    return given or of_run


def _magnification(request: Request, mask_pitch: float) -> tuple[float, int]:
    """Returns (mask pitch, file pixels each way that show one mask pixel)."""
    if request.format != SLM:
        return mask_pitch, 1
    if not request.pixel_pitch:
        if request.mask_pitch:
            raise InputError(
                "--pixel_pitch: is needed beside --mask_pitch, to know how many panel pixels show "
                "one mask pixel; give it, or --magnify"
            )
        return mask_pitch, request.magnify or 1
    if not mask_pitch:
        magnify = request.magnify or 1
        return magnify * request.pixel_pitch, magnify
    ratio = mask_pitch / request.pixel_pitch
    magnify = round(ratio)
    if magnify < 1 or abs(ratio - magnify) > 1e-6 * ratio:
        raise InputError(
            f"--mask_pitch: expected a multiple of --pixel_pitch {request.pixel_pitch:g} m, got "
            f"{mask_pitch:g}, {ratio:.4g} times that; give --magnify in place of --mask_pitch, or "
            "train for another pitch"
        )
    if request.magnify not in (0, magnify):
        raise InputError(
            f"--magnify: the pitches give {magnify}, got {request.magnify}; leave one of them out"
        )
    return mask_pitch, magnify


def _check_layout(request: Request, layout: Layout) -> None:
    if request.rotate % 90:
        raise InputError(f"--rotate: expected a multiple of 90 degrees, got {request.rotate}")
    if layout.panel is None and request.tile:
        raise InputError("--tile: is read only with --panel; give its size, such as 1080x1920")
    if request.background and (layout.panel is None or request.tile):
        raise InputError("--background: is read only with --panel and without --tile; leave it out")
    if not 0 <= request.background < 2**request.bits:
        raise InputError(
            f"--background: expected a gray level in [0, {2**request.bits - 1}], got "
            f"{request.background}"
        )


def _slm(request: Request, config: Config) -> Coding:
    if request.gray_2pi and request.gray_2pi < 2:
        raise InputError(f"--gray_2pi: expected at least 2, got {request.gray_2pi}")
    measured = bool(request.table or config.device.table)
    limited = config.device.phase_range < 2 * math.pi
    if limited and request.sign == DIRECT:
        raise InputError(
            "--sign: direct writes phi, but the run was trained for a device with p = -phi in "
            f"[0, {config.device.phase_range:.4g}]; leave it out"
        )
    if limited and not measured and not request.gray_2pi:
        reaching = 2 * math.pi / config.device.phase_range * (2**request.bits - 1)
        raise InputError(
            f"--gray_2pi: the run's device reaches {config.device.phase_range:.4g} rad; say which "
            f"gray level 2 pi would have ({reaching:.0f} if the largest level reaches that), or "
            "give --table"
        )
    levels = config.device.levels
    if levels and not (measured or limited or request.gray_2pi) and 2**request.bits % levels:
        raise InputError(
            f"--gray_2pi: the run was trained for {levels} levels a turn, which are not among "
            f"those of {2**request.bits}; give the gray level at which the panel reaches 2 pi, "
            f"such as {levels}, or --table"
        )
    for option in ("gray_2pi", "falling"):
        if measured and getattr(request, option):
            raise InputError(
                f"--{option}: the phases of the gray levels come from "
                f"{'--table' if request.table else 'the device.table of the run'}; leave it out"
            )
    table: tuple[float, ...] = ()
    if request.table:
        table = read_table(request.table)
    elif measured:
        # What the run calls phi: e^{-j phi}.
        sign = -1 if request.sign == CONJUGATE else 1
        table = tuple(sign * phase for phase in config.device.table)
    if len(table) > 2**request.bits:
        raise InputError(
            f"--bits: {request.bits} bits have {2**request.bits} gray levels, the table has "
            f"{len(table)}; give --bits {'10' if len(table) <= 1024 else '16'}"
        )
    return Coding(
        SLM,
        request.sign,
        bits=request.bits,
        gray_2pi=request.gray_2pi or 2**request.bits,
        falling=request.falling,
        table=table,
    )


def _height(request: Request, wavelength: float) -> Coding:
    if not wavelength:
        raise InputError("--wavelength: a height needs it, in metres, such as 635e-9")
    if request.reflection == (request.index != 0):
        raise InputError(
            "--index: expected the material's index for a mask in transmission, or --reflection; "
            f"got {'both' if request.reflection else 'neither'}"
        )
    if not request.reflection and request.index <= 1:
        raise InputError(f"--index: expected above 1, got {request.index:g}")
    if request.levels == 1 or request.levels < 0:
        raise InputError(f"--levels: expected 0 (any height) or at least 2, got {request.levels}")
    return Coding(
        HEIGHT,
        request.sign,
        wavelength=wavelength,
        index=None if request.reflection else request.index,
        levels=request.levels,
    )


def _trained_levels(request: Request, config: Config) -> str:
    """No measured table holds ideal levels: there the nearest must do, and its error is stated."""
    if config.device.table:
        return f"device.table of {len(config.device.table)} levels"
    if config.device.levels and not request.table:
        return f"device.levels = {config.device.levels}"
    return ""
