"""Flags that say how masks become files, for `export_mask`."""

from typing import Any

from absl import flags

from jax_kdpr.core.limits import read_pixels
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.masks.files import CONJUGATE, DIRECT, SLM
from jax_kdpr.lab.masks.request import SUFFIXES, Request

flags.adopt_module_key_flags(bench_file)
FORMAT = flags.DEFINE_enum("format", None, list(SUFFIXES), "slm, height, npy, csv or tiff.")
flags.DEFINE_enum(
    "sign", CONJUGATE, [CONJUGATE, DIRECT], "conjugate writes p = -phi, direct p = phi."
)
flags.DEFINE_float("wavelength", 0.0, "Metres; height needs it.")
flags.DEFINE_float("mask_pitch", 0.0, "Metres from one mask pixel to the next.")
flags.DEFINE_bool("flip_vertical", False, "Exchange top and bottom.")
flags.DEFINE_bool("flip_horizontal", False, "Exchange left and right.")
flags.DEFINE_integer("rotate", 0, "Degrees counter-clockwise, a multiple of 90; after the flips.")
flags.DEFINE_string("format_file", "", "slm: png, tiff or bmp; height: tiff, npy or csv.")
flags.DEFINE_bool("stack", False, "npy, tiff: all masks in one file [k h w].")

PANEL = flags.DEFINE_string("panel", "", "slm: HEIGHTxWIDTH in pixels; default: just the mask.")
flags.DEFINE_float("pixel_pitch", 0.0, "slm: metres from one panel pixel to the next.")
flags.DEFINE_integer("magnify", 0, "slm: panel pixels each way that show one mask pixel.")
flags.DEFINE_bool("tile", False, "slm: repeat the mask over the panel instead of centring it.")
flags.DEFINE_integer("background", 0, "slm: gray level around a centred mask.")
flags.DEFINE_integer("bits", 8, "slm: 8, 10 (right-justified in 16) or 16.")
GRAY_2PI = flags.DEFINE_integer(
    "gray_2pi", 0, "slm: gray level of a phase of 2 pi, which is level 0 again; default: 2^bits."
)
flags.DEFINE_string("table", "", "slm: measured phase of each gray level, CSV or NPY (radians).")
flags.DEFINE_bool("falling", False, "slm: phase 0 is the brightest level, as slmsuite has it.")

flags.DEFINE_float("index", 0.0, "height: refractive index, in transmission.")
flags.DEFINE_bool("reflection", False, "height: in reflection.")
flags.DEFINE_integer("levels", 0, "height: etch levels; 0: any height.")

# What a flag says in another way is not taken from bench.toml beside it.
INSTEAD = {"table": ["gray_2pi"], "gray_2pi": ["table"], "mask_pitch": ["magnify"]}


def fill_from_bench() -> None:
    """Gives flags what their format reads of --bench; a run's own lengths are checked against it.

    Raises:
        InputError: If --bench cannot be read.
    """
    bench = bench_file.read_bench()
    modulator = bench.modulator
    values: dict[str, Any] = {"wavelength": bench.wavelength}
    if FORMAT.value == SLM:
        panel = {"panel": bench_file.sides(modulator.panel)}
        names = ("pixel_pitch", "magnify", "bits", "gray_2pi", "table")
        values |= panel | {name: getattr(modulator, name) for name in names}
        for flag, others in INSTEAD.items():
            if flags.FLAGS[flag].present:
                values |= dict.fromkeys(others)
    else:
        values["mask_pitch"] = modulator.mask_pitch
    bench_file.fill(values)


def read_request() -> Request:
    """Returns what the flags ask for; raises `InputError` where --panel is no size."""
    values: dict[str, Any] = {
        name: flags.FLAGS[name].value for name in Request._fields if name != "panel"
    }
    return Request(**values, panel=read_pixels("--panel", PANEL.value) if PANEL.value else None)
