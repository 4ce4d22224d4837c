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
from typing import Any, NamedTuple

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.choices import PropagationKind
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, read_pixels, require
from jax_kdpr.interface import cli
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.frames.geometry import useful_bin
from jax_kdpr.lab.frames.model_noise import PixelNoise, model_noise
from jax_kdpr.optics.propagation import sampling_warnings
from jax_kdpr.optics.sampling import RECORD, Geometry, bench_geometry, geometry_warnings
from jax_kdpr.runs import folder as run_folder

KINDS = {  # of length: which must be plausible
    **{"wavelength": "wavelength", "mask_pitch": "pitch", "camera_pixel": "pitch"},
    **{"focal_length": "distance", "distance": "distance"},
}
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
PROPAGATION = flags.DEFINE_enum(
    "propagation", None, [str(kind) for kind in PropagationKind], "Default: far."
)
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


class Bench(NamedTuple):
    """Arguments of `bench_geometry`, checked."""

    pixels: int
    oversample: int
    kind: str
    wavelength: float
    pitch: float
    distance: float
    camera_pixel: float
    camera_pixels: tuple[int, int] | None
    fill_factor: float


def main(positional: list[str]) -> int:
    """Prints the geometry of the bench that the flags describe."""
    if positional:
        raise InputError(f"expected flags only, got {positional[0]!r}")
    known = _from_run(WORKDIR.value) if WORKDIR.value else {}
    _fill_from_bench(known)
    bench = _bench(known)
    if OUTPUT.value:
        json_files.require_own("--output", Path(OUTPUT.value), RECORD, command="geometry")
    found = bench_geometry(**bench._asdict())
    warnings = warnings_of(bench, found)
    if OUTPUT.value:
        record = {"bench": bench._asdict(), **found._asdict(), "warnings": warnings}
        cli.make_folder("--output", Path(OUTPUT.value).parent)
        json_files.write_json(Path(OUTPUT.value), record)
    print(table(bench, found))
    print(noise_line(bench, found))
    for warning in warnings:
        print(f"warning: {warning}")
    if OUTPUT.value:
        print(f"written: {OUTPUT.value}")
    return 0


def warnings_of(bench: Bench, found: Geometry) -> list[str]:
    """Returns what is sampled too coarsely, by the model and by the camera."""
    lengths = {name: getattr(bench, name) for name in ("wavelength", "pitch", "distance")}
    return [
        *sampling_warnings(bench.pixels, kind=bench.kind, oversample=bench.oversample, **lengths),
        *geometry_warnings(found, oversample=bench.oversample),
    ]


def table(bench: Bench, found: Geometry) -> str:
    """Lays out the numbers, one a line."""
    length = "focal length" if bench.kind == "far" else "distance"
    fits = {None: "", True: ", fits the chip", False: ", does not fit the chip"}[found.fits]
    whole = found.whole_ratio
    lines = {
        "model sample on the camera": _micrometres(found.sensor_pixel),
        "camera pixels per model sample": f"{found.camera_pixels_per_sensor_pixel:.4g}",
        "pattern": f"{found.extent * 1e3:.4g} mm, {found.extent_camera_pixels:.0f} camera pixels"
        + fits,
    }
    if found.whole_ratio_distance is not None:
        lines[f"{length} for {whole} camera pixel(s)"] = f"{found.whole_ratio_distance:.6g} m"
    lines |= {
        f"camera pixel for {whole} a model sample": _micrometres(found.whole_ratio_camera_pixel),
        "finest fringe": _micrometres(found.finest_fringe),
        "oversample that the camera resolves": (
            str(found.oversample_resolved) if found.oversample_resolved else "none: too coarse"
        ),
    }
    lines["--bin for calibrate and reconstruct"] = str(useful_bin(found.camera_pixels_per_fringe))
    if found.mask_pixel_factor is not None:
        lines["mask pixel: intensity left at the edge"] = f"{found.mask_pixel_factor:.3f}"
    lines |= {
        "camera pixel: contrast left of the finest fringe": f"{found.camera_pixel_factor:.3f}",
        "Fresnel number": f"{found.fresnel_number:.4g}",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items())


def noise_line(bench: Bench, found: Geometry) -> str:
    """Returns the options of `train` that are as noisy as the camera, or what they want."""
    flags_of = {
        "photons": PHOTONS,
        "full_well": FULL_WELL,
        "bits": BITS,
    }
    missing = [f"--{name}" for name, flag in flags_of.items() if flag.value is None]
    if missing:
        return f"noise for train: wants {', '.join(missing)}"
    camera = PixelNoise(
        photons=PHOTONS.value or 0.0,
        read_noise=READ_NOISE.value or 0.0,
        dark=DARK.value or 0.0,
        full_well=FULL_WELL.value or 0.0,
        bits=BITS.value or 1,
    )
    side = bench.oversample * bench.pixels
    noise = model_noise(
        camera,
        scale=found.camera_pixels_per_sensor_pixel,
        bin=_bin(found),
        sensor=(side, side),
        pixel_side=0.0 if bench.kind == "angular_spectrum" else bench.fill_factor**0.5,
    )
    options = " ".join(f"--config.noise.{name}={value:.4g}" for name, value in noise.items())
    return f"noise for train, with that --bin: --config.noise.kind=camera {options}"


def _bin(found: Geometry) -> int:
    """Returns --bin of the frames, as `bench_flags.fill_from_bench` takes it."""
    return bench_file.read_bench().camera.bin or useful_bin(found.camera_pixels_per_fringe)


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


def _from_run(workdir: str) -> dict[str, Any]:
    config = run_folder.read_config(Path(workdir))
    known: dict[str, Any] = {
        "pixels": config.data.size,
        "oversample": config.masks.oversample,
        "propagation": str(config.propagation.kind),
    }
    if config.propagation.kind != PropagationKind.FAR:
        known |= {
            "wavelength": config.propagation.wavelength,
            "mask_pitch": config.propagation.pitch,
            "distance": config.propagation.distance,
        }
    if config.device.fill_factor < 1:
        known["fill_factor"] = config.device.fill_factor
    return known


def _bench(known: dict[str, Any]) -> Bench:
    """Joins the flags with what a run says; both at once is refused."""
    given = {
        flag.name: flag.value
        for flag in (
            *(WAVELENGTH, FOCAL_LENGTH, DISTANCE, MASK_PITCH, FILL_FACTOR, PIXELS, OVERSAMPLE),
            *(CAMERA_PIXEL, PROPAGATION),
        )
        if flag.value is not None
    }
    twice = [name for name in given if name in known]
    if twice:
        raise InputError(f"--{twice[0]}: the run of --workdir says it already; leave it out")
    values: dict[str, Any] = (
        {"oversample": 1, "propagation": "far", "fill_factor": 1.0} | known | given
    )
    kind = values["propagation"]
    length, unread = ("focal_length", "distance") if kind == "far" else ("distance", "focal_length")
    if unread in values:
        raise InputError(f"--{unread}: is not read with propagation {kind}; give --{length}")
    for name in ("wavelength", length, "mask_pitch", "pixels", "camera_pixel"):
        if name not in values:
            raise InputError(
                f"--{name}: needed, in metres"
                if name != "pixels"
                else "--pixels: needed, of the mask, or --workdir"
            )
        if name in KINDS:
            require(f"--{name}", values[name], POSITIVE_LENGTHS[KINDS[name]], unit="metres")
    require("--fill_factor", values["fill_factor"], Range(0, 1, "(]"))
    chip = CAMERA_PIXELS.value
    return Bench(
        pixels=values["pixels"],
        oversample=values["oversample"],
        kind=kind,
        wavelength=values["wavelength"],
        pitch=values["mask_pitch"],
        distance=values[length],
        camera_pixel=values["camera_pixel"],
        camera_pixels=read_pixels("--camera_pixels", chip) if chip else None,
        fill_factor=values["fill_factor"],
    )


def _micrometres(length: float) -> str:
    return f"{length * 1e6:.4g} um"


if __name__ == "__main__":
    cli.run(main)
