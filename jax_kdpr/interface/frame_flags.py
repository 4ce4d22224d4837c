"""Flags that say how frames were taken; `calibrate`, `reconstruct` and `adapt` share them."""

from pathlib import Path

import numpy as np
from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import bench_flags, cli, system_flags
from jax_kdpr.lab.bench_file import Bench, camera_scale, require_same_lengths
from jax_kdpr.lab.frames import measured
from jax_kdpr.lab.frames.correction import References
from jax_kdpr.lab.frames.geometry import (
    SAMPLINGS,
    default_geometry,
    make_window,
    useful_bin,
)
from jax_kdpr.lab.frames.measured import Setup
from jax_kdpr.lab.frames.reading import Frame, found_line, iterate_frames, read_mean, read_moments
from jax_kdpr.runs.assembly import build_camera
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(bench_flags)
flags.adopt_module_key_flags(system_flags)
INPUT = flags.DEFINE_string(
    "input",
    None,
    "Frames, such as 'frames/*.tif': grey TIFF (also of many pages), PNG, BMP, PGM, NPY, NPZ, "
    "FITS, MATLAB or HDF5 ('scan.h5::/entry/data'), raw counts; L snapshots of each object follow "
    "each other by name, 2 before 10.",
)
DARK = flags.DEFINE(**bench_flags.of_key("dark", "frames.dark"))
FLAT = flags.DEFINE(**bench_flags.of_key("flat", "frames.flat"))
BAD_PIXELS = flags.DEFINE(**bench_flags.of_key("bad_pixels", "frames.bad_pixels"))
CROP = flags.DEFINE_string("crop", "", "Y,X,H,W: the part of the frame to use, pixels.")
BIN = flags.DEFINE_integer(
    "bin", 1, "Camera pixels to join each way, first.", lower_bound=1, upper_bound=4096
)
SCALE = flags.DEFINE_float(
    "scale", None, "Camera pixels in a model sample.", lower_bound=0.1, upper_bound=1000.0
)
SAMPLING = flags.DEFINE_enum(
    "sampling",
    "points",
    SAMPLINGS,
    "points: read the pattern at the model's samples, as the model does; area: add up the light "
    "over a model sample, for noisy frames or a system trained for it.",
)
MASK_PIXELS = flags.DEFINE_enum(
    "mask_pixels",
    "square",
    ["square", "point"],
    "square: divide out the envelope of square mask pixels, in the far field; point: do not, for a "
    "mask that is finer than the model's.",
)


def fill_from_bench(config: Config) -> Bench:
    """Sets flags that are left out to what --bench says, or to what follows with a run's config.

    Returns:
        The bench, as `bench_flags.read`.

    Raises:
        InputError: If --bench cannot be read, or is not the bench of the config.
    """
    bench = bench_flags.fill()
    require_same_lengths(bench, config)
    bench_flags.warn_of_panel(bench, config)
    scale = camera_scale(bench, config)
    suitable = useful_bin(build_camera(config).finest_period * scale) if scale else None
    bench_flags.give({"scale": scale, "bin": bench.camera.bin or suitable})
    return bench


def read_setup(frames: list[Frame], run: Run) -> Setup:
    """Returns the setup of the flags, its pattern in the middle; prints what frames there are.

    Their size and type are those of the first frame.

    Raises:
        InputError: If the window does not lie in the frames, or something else cannot be used.
    """
    first = next(iterate_frames(frames[:1]))
    print(found_line("--input", frames, first, first.dtype, "the first"))
    shape = (first.shape[0], first.shape[1])
    y, x, height, width = cli.numbers(CROP, "Y,X,H,W", int) or (0, 0, *shape)
    window = make_window(shape, (y, x, height, width), BIN.value)
    geometry = default_geometry(window, run.sensor, SCALE.value)
    return Setup(_read_references(first), window, geometry, SAMPLING.value, mask_side(run))


def mask_side(run: Run) -> float:
    """Returns the side of square mask pixels, by --mask_pixels; raises as `measured.pixel_side`."""
    return measured.pixel_side(run) if MASK_PIXELS.value == "square" else 0.0


def _read_references(frame: np.ndarray) -> References:
    """Reads what --dark, --flat and --bad_pixels name, for frames like this one."""
    dark = read_moments(DARK.value, flag="--dark") if DARK.value else None
    if dark and dark.type.kind == frame.dtype.kind == "u" and dark.type != frame.dtype:
        raise InputError(
            f"--dark: expected {frame.dtype} pixels, as the frames have, got {dark.type}; take "
            "both at one bit depth"
        )
    known = {
        flag.name: read_mean(flag.value, flag=f"--{flag.name}") if flag.value else None
        for flag in (FLAT, BAD_PIXELS)
    }
    return References(
        (frame.shape[0], frame.shape[1]),
        dark.mean if dark else None,
        *known.values(),
        dark_step=dark.step if dark else 1,
        spread=dark.spread if dark else None,
    )


def require_apart(output: Path, frames: list[Frame]) -> None:
    """Refuses to write results into a folder of raw frames, since results are named like frames.

    Raises:
        InputError: If `output` is the folder of a frame, or of --dark, --flat or --bad_pixels.
    """
    references = [Path(flag.value) for flag in (DARK, FLAT, BAD_PIXELS) if flag.value]
    for path in [*(frame.path for frame in frames), *references]:
        if path.resolve().parent == output.resolve():
            raise InputError(
                f"--output: {str(output)!r} is the folder of {path.name}, and results must not "
                "overwrite raw frames; give a folder of its own"
            )
