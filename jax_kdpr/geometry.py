"""Says how the model's samples lie on a real camera: `python -m jax_kdpr.geometry`.

    python -m jax_kdpr.geometry --wavelength 532e-9 --focal_length 0.2 --mask_pitch 8e-6 \\
        --pixels 96 --camera_pixel 3.45e-6 --camera_pixels 2048x2448
    python -m jax_kdpr.geometry --workdir RUN --wavelength 532e-9 --focal_length 0.2 \\
        --mask_pitch 8e-6 --camera_pixel 3.45e-6

Prints the model sample against the camera pixel, the extent of the pattern, the focal length for
a whole number of camera pixels, what pixels of finite size do at the edge, and what is sampled too
coarsely. Lengths are in metres. In the near field (--propagation fresnel or
angular_spectrum) --distance takes the place of --focal_length. --workdir takes pixels, oversample
and propagation, with its lengths, from a run. --output FILE.json also writes the numbers.
"""

import math
from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels
from jax_kdpr.interface import cli
from jax_kdpr.lab import bench_file, sampling
from jax_kdpr.lab.frames.model_noise import PixelNoise
from jax_kdpr.lab.sampling import Bench
from jax_kdpr.optics.propagation import PROPAGATORS
from jax_kdpr.optics.sampling import RECORD, Geometry, bench_geometry

flags.adopt_module_key_flags(bench_file)
WAVELENGTH = flags.DEFINE_float("wavelength", None, "Metres.")
FOCAL_LENGTH = flags.DEFINE_float("focal_length", None, "Of the lens, metres; far field.")
DISTANCE = flags.DEFINE_float("distance", None, "From mask to sensor, metres; near field.")
MASK_PITCH = flags.DEFINE_float("mask_pitch", None, "Of the mask's pixels, metres.")
FILL_FACTOR = flags.DEFINE_float("fill_factor", None, "Of the mask's pixels, in (0, 1]; default 1.")
PIXELS = flags.DEFINE_integer(
    "pixels", None, "Of the mask, each way.", lower_bound=1, upper_bound=65536
)
OVERSAMPLE = flags.DEFINE_integer(
    "oversample", None, "Of the model, 1 or 2; default 1.", lower_bound=1, upper_bound=2
)
CAMERA_PIXEL = flags.DEFINE_float("camera_pixel", None, "Side of a camera pixel, metres.")
CAMERA_PIXELS = flags.DEFINE_string("camera_pixels", None, "Of the chip: HEIGHTxWIDTH.")
PROPAGATION = flags.DEFINE_enum("propagation", None, list(PROPAGATORS), "Default: far.")
PHOTONS = flags.DEFINE_float(
    "photons",
    None,
    "Photoelectrons of a frame on the model's grid, its envelope divided out: `counts` of "
    "results.json times electrons a count.",
    lower_bound=1.0,
    upper_bound=1e15,
)
FULL_WELL = flags.DEFINE_float(
    "full_well", None, "Of a camera pixel, electrons.", lower_bound=1.0, upper_bound=1e9
)
READ_NOISE = flags.DEFINE_float(
    "read_noise", None, "Of a camera pixel, electrons.", lower_bound=0.0, upper_bound=1e9
)
DARK = flags.DEFINE_float(
    "dark", None, "Electrons of a camera pixel and frame.", lower_bound=0.0, upper_bound=1e9
)
BITS = flags.DEFINE_integer("bits", None, "Of the camera.", lower_bound=1, upper_bound=16)
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder that the rest is taken from.")
OUTPUT = flags.DEFINE_string("output", None, "File for the numbers, .json.")


GEOMETRY = (
    *(WAVELENGTH, FOCAL_LENGTH, DISTANCE, MASK_PITCH, FILL_FACTOR, PIXELS, OVERSAMPLE),
    *(CAMERA_PIXEL, PROPAGATION),
)


def main(positional: list[str]) -> int:
    """Prints the geometry of the bench that the flags describe."""
    cli.require_no_more(positional)
    known = sampling.known_of_run(Path(WORKDIR.value)) if WORKDIR.value else {}
    _fill_from_bench(known)
    chip = CAMERA_PIXELS.value
    bench = sampling.make_bench(
        {flag.name: flag.value for flag in GEOMETRY},
        known,
        camera_pixels=read_pixels("--camera_pixels", chip) if chip else None,
    )
    if OUTPUT.value:
        json_files.require_own("--output", Path(OUTPUT.value), RECORD, command="geometry")
    found = bench_geometry(**bench._asdict())
    warnings = sampling.warnings_of(bench, found)
    if OUTPUT.value:
        record = {"bench": bench._asdict(), **found._asdict(), "warnings": warnings}
        cli.make_folder("--output", Path(OUTPUT.value).parent)
        json_files.write_json(Path(OUTPUT.value), record)
    print(sampling.table(bench, found))
    print(f"noise for train{_noise(bench, found)}")
    for warning in warnings:
        print(f"warning: {warning}")
    if OUTPUT.value:
        print(f"written: {OUTPUT.value}")
    return 0


def _noise(bench: Bench, found: Geometry) -> str:
    """The options of `train` that are as noisy as the camera, or what they want."""
    missing = [f"--{flag.name}" for flag in (PHOTONS, FULL_WELL, BITS) if flag.value is None]
    if missing:
        return f": wants {', '.join(missing)}"
    camera = PixelNoise(**{name: flags.FLAGS[name].value or 0 for name in PixelNoise._fields})
    options = sampling.noise_options(
        bench, found, camera, bin=bench_file.read_bench().camera.bin or 0
    )
    return f", with that --bin: {options}"


def _fill_from_bench(known: dict[str, Any]) -> None:
    """Gives flags the values of --bench, but for what a run says; there the two must agree."""
    bench = bench_file.read_bench()
    near = known.get("propagation", PROPAGATION.value or "far") != "far"
    values: dict[str, Any] = {
        "wavelength": bench.wavelength,
        "mask_pitch": bench.modulator.mask_pitch,
        "fill_factor": bench.modulator.fill_factor,
        "camera_pixel": bench.camera.pixel_pitch,
        "camera_pixels": bench_file.sides(bench.camera.pixels),
        "distance" if near else "focal_length": bench.distance if near else bench.focal_length,
        "photons": bench.photons,
        **{
            name: getattr(bench.camera, name)
            for name in ("full_well", "read_noise", "dark", "bits")
        },
    }
    for name in sorted(set(values) & set(known)):
        value = values.pop(name)
        if value is not None and not math.isclose(value, known[name], rel_tol=1e-6):
            raise InputError(
                f"--bench: {name} is {value:g} there, and {known[name]:g} in the run of --workdir; "
                "train for the bench, or correct the file"
            )
    bench_file.fill(values)


if __name__ == "__main__":
    cli.run(main)
