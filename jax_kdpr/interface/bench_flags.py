"""Flags that say how frames were taken; `calibrate` and `reconstruct` share them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import shallow
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.frames import loaded
from jax_kdpr.lab.frames.correction import Correction, make_correction
from jax_kdpr.lab.frames.geometry import (
    SAMPLINGS,
    Geometry,
    Window,
    binning_note,
    check_geometry,
    grid_window,
    in_window,
    make_window,
    sampling_note,
    useful_bin,
)
from jax_kdpr.lab.frames.measured import Setup
from jax_kdpr.lab.frames.reading import (
    Frame,
    Moments,
    found_line,
    iterate_frames,
    read_mean,
    read_moments,
)
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_camera
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(bench_file)
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of the trained system.")
INPUT = flags.DEFINE_string(
    "input",
    None,
    "Frames, such as 'frames/*.tif': grey TIFF (also of many pages), PNG, BMP, PGM, NPY, NPZ, FITS "
    "or HDF5 ('scan.h5::/entry/data'), raw counts; L snapshots of each object follow each other by "
    "name, 2 before 10.",
)
DARK = flags.DEFINE_string("dark", "", "Frame or frames without light; their mean is subtracted.")
FLAT = flags.DEFINE_string("flat", "", "Frame or frames of even light; their mean divides.")
BAD_PIXELS = flags.DEFINE_string("bad_pixels", "", "Map of bad pixels: not 0 where bad.")
CROP = flags.DEFINE_string("crop", "", "Y,X,H,W: the part of the frame to use, pixels.")
BIN = flags.DEFINE_integer(
    "bin", 1, "Camera pixels each way to add up first.", lower_bound=1, upper_bound=4096
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
    "square: divide out what square mask pixels take from the pattern's edge, in the far field; "
    "point: nothing, for a mask that is finer than the model's.",
)


class Lengths(NamedTuple):
    """What a bench and its run say together of sizes."""

    scale: float | None  # camera pixels in a model sample, if they say it
    pitch: float  # of the mask, metres; 0 if they do not


def fill_from_bench(workdir: Path) -> Lengths:
    """Gives --dark, --flat, --bad_pixels and --bin the values of --bench where they have none.

    Raises:
        InputError: If --bench or the run cannot be read.
    """
    bench, config = bench_file.read_bench(), run_folder.read_config(workdir)
    scale = bench_file.camera_scale(
        bench,
        pixels=config.data.size,
        oversample=config.masks.oversample,
        propagation=shallow(config.propagation),
    )
    period = build_camera(config).finest_period
    suitable = useful_bin(period * scale) if scale else None
    bench_file.fill(shallow(bench.frames) | {"bin": bench.camera.bin or suitable})
    if scale and not flags.FLAGS["scale"].present:
        scale = bench_file.as_flag("scale", scale)
    return Lengths(scale, config.propagation.pitch or bench.modulator.mask_pitch or 0.0)


class FrameKind(NamedTuple):
    """What all raw frames of a bench share."""

    shape: tuple[int, int]
    type: np.dtype


class References(NamedTuple):
    """What a sensor gives without light and of even light; None for what is not known."""

    dark: Moments | None
    flat: np.ndarray | None
    bad: np.ndarray | None  # not 0 where bad

    @property
    def spread(self) -> float | None:
        """Standard deviation of a dark pixel from frame to frame, counts, if it is known."""
        return self.dark.spread if self.dark else None


def require(flag: flags.FlagHolder, hint: str) -> str:
    """Returns a flag that must be given.

    Raises:
        InputError: If it is not.
    """
    if not flag.value:
        raise InputError(f"--{flag.name}: needed, {hint}")
    return flag.value


def numbers(flag: flags.FlagHolder, names: str) -> list[float] | None:
    """Returns the numbers of a flag such as "Y,X"; None if it is not given.

    Raises:
        InputError: If they are not as many, or no numbers.
    """
    if not flag.value:
        return None
    try:
        values = [float(part) for part in flag.value.split(",")]
    except ValueError:
        values = []
    if len(values) != names.count(",") + 1 or not np.all(np.isfinite(values)):
        raise InputError(f"--{flag.name}: expected {names}, got {flag.value!r}")
    return values


def read_window(shape: tuple[int, int]) -> Window:
    """Returns the window of --crop and --bin, of frames of a size.

    Raises:
        InputError: If it does not lie in them.
    """
    crop = numbers(CROP, "Y,X,H,W")
    if crop is not None and any(value != int(value) for value in crop):
        raise InputError(f"--crop: expected whole pixels, got {CROP.value!r}")
    return make_window(
        shape,
        None if crop is None else (int(crop[0]), int(crop[1]), int(crop[2]), int(crop[3])),
        BIN.value,
    )


def read_references(kind: FrameKind) -> References:
    """Reads what --dark, --flat and --bad_pixels name, for frames of a kind.

    Raises:
        InputError: If something of it cannot be used.
    """
    dark = read_moments(DARK.value, flag="--dark") if DARK.value else None
    if dark and dark.type.kind == kind.type.kind == "u" and dark.type != kind.type:
        raise InputError(
            f"--dark: expected {kind.type} pixels, as the frames have, got {dark.type}; take both "
            "at one bit depth"
        )
    return References(
        dark,
        read_mean(FLAT.value, flag="--flat") if FLAT.value else None,
        read_mean(BAD_PIXELS.value, flag="--bad_pixels") if BAD_PIXELS.value else None,
    )


def correct_with(references: References, kind: FrameKind, window: Window) -> Correction:
    """Returns how frames are corrected in a window of them; raises as `make_correction`."""
    dark = references.dark
    return make_correction(
        kind.shape,
        dark=dark.mean if dark else None,
        flat=references.flat,
        bad=references.bad,
        dark_step=dark.step if dark else 1,
        window=window,
    )


def make_setup(
    run: Run,
    kind: FrameKind,
    references: References,
    window: Window,
    gain: float | None,
    geometry: Geometry,
) -> Setup:
    """Returns the bench in the part of the frames that a geometry needs.

    Raises:
        InputError: If its grid does not lie in the window, or as `make_correction`.
    """
    shape = window.height // window.bin, window.width // window.bin
    check_geometry(in_window(geometry, window), shape, run.sensor)
    used = grid_window(window, geometry, run.sensor)
    correction = correct_with(references, kind, used)
    return Setup(correction, used, geometry, SAMPLING.value, pixel_side(run), gain)


def notes(run: Run, geometry: Geometry, window: Window) -> list[str]:
    """Returns warnings that hold before any frame is read; prints as `check_sampling`."""
    coarse = check_sampling(run, geometry, window)
    no_dark = "" if DARK.value else "no --dark: the camera's offset counts as light"
    return [note for note in (coarse, no_dark) if note]


def pixel_side(run: Run) -> float:
    """Returns the side of the mask's pixels that --mask_pixels stands for."""
    return loaded.pixel_side(run) if MASK_PIXELS.value == "square" else 0.0


def check_sampling(run: Run, geometry: Geometry, window: Window) -> str:
    """Prints which --bin would use more light, if one would.

    Returns:
        A warning that the camera's pixels are too coarse for the pattern; empty where they are not.
    """
    camera_pixels = run.finest_period * geometry.scale / window.bin
    spare = binning_note(camera_pixels, bin=window.bin, sampling=SAMPLING.value)
    if spare:
        print(f"note: {spare}")
    return sampling_note(camera_pixels)


def require_apart(output: Path, frames: list[Frame]) -> None:
    """Refuses to write results into a folder of raw frames: theirs are named as the frames are.

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


def frame_kind(frames: list[Frame]) -> FrameKind:
    """Reads the first frame for the kind of all, and says what there is."""
    first = next(iterate_frames(frames[:1]))
    print(found_line("--input", frames, first, first.dtype, "the first"))
    return FrameKind((first.shape[0], first.shape[1]), first.dtype)
