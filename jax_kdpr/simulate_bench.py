"""Makes frames as a bench would take them, to rehearse the way from camera to object.

    python -m jax_kdpr.simulate_bench --workdir RUN --output DIR --frames 16
    python -m jax_kdpr.calibrate --workdir RUN --input 'DIR/calibration/*.tif' \\
        --dark DIR/dark.tif --flat DIR/flat.tif --bad_pixels DIR/bad_pixels.tif \\
        --scale 3 --output DIR/calibration.json
    python -m jax_kdpr.reconstruct --workdir RUN --input 'DIR/frames/*.tif' \\
        --dark DIR/dark.tif --flat DIR/flat.tif --bad_pixels DIR/bad_pixels.tif \\
        --calibration DIR/calibration.json --output DIR/results

Writes frames/ (L frames of each of the run's first test scenes), calibration/ (L frames without an
object), dark.tif, flat.tif, bad_pixels.tif, and the truth: truth.json (geometry, counts a unit) and
truth.npy (the scenes' images), which `reconstruct --truth` takes beside it.
"""

from pathlib import Path

from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels
from jax_kdpr.core.options import shallow
from jax_kdpr.core.types import Images
from jax_kdpr.interface import cli
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.frames.bench_folder import make_bench, write_bench
from jax_kdpr.lab.frames.geometry import FLIPS, check_geometry
from jax_kdpr.lab.frames.loaded import own_images
from jax_kdpr.lab.frames.simulated_camera import Bench, check_bench
from jax_kdpr.runs.run import Run, load_run

flags.adopt_module_key_flags(bench_file)
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of the trained system.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to write; new or empty.")
FRAMES = flags.DEFINE_integer(
    "frames",
    16,
    "Objects: the run's first test scenes, or of --images; without the flag, fewer will do.",
    lower_bound=1,
    upper_bound=100_000,
)
IMAGES = flags.DEFINE_string(
    "images",
    "",
    "Images of objects of yours, as data.dir takes them, but never stretched, in place of the test "
    "scenes; of complex scenes phase and amplitude by turns.",
)
CAMERA_PIXELS = flags.DEFINE_string(
    "camera_pixels", "", "Of a frame, HEIGHTxWIDTH; default: a third more than the pattern."
)
FULL_WELL = flags.DEFINE_float(
    "full_well",
    0.0,
    "Electrons of the largest count; 0: the brightest pixel nearly fits, and --photons counts.",
    lower_bound=0.0,
    upper_bound=1e9,
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")
SCALE = flags.DEFINE_float(
    "scale", 3.1, "Camera pixels in a model sample.", lower_bound=1.0, upper_bound=1000.0
)
ROTATION = flags.DEFINE_float("rotation", 2.0, "Of the pattern on the camera, degrees.")
SHIFT_Y = flags.DEFINE_float("shift_y", 2.3, "Of the pattern from the frame's middle, pixels.")
SHIFT_X = flags.DEFINE_float("shift_x", -1.6, "Likewise.")
FLIP = flags.DEFINE_enum("flip", "none", FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool("transpose", False, "Whether it swaps rows and columns.")
BITS = flags.DEFINE_integer("bits", 12, "Of the converter.", lower_bound=4, upper_bound=16)
LEFT = flags.DEFINE_bool("left_justified", False, "Write the counts into the high bits of 16.")
OFFSET = flags.DEFINE_float(
    "offset", 64.0, "Counts without light.", lower_bound=0.0, upper_bound=65535.0
)
READ_NOISE = flags.DEFINE_float(
    "read_noise", 1.0, "Standard deviation, counts.", lower_bound=0.0, upper_bound=65535.0
)
PHOTONS = flags.DEFINE_float(
    "photons",
    0.0,
    "Photoelectrons of a frame of a scene of modulus 1, on the model's grid, its envelope divided "
    "out: `counts` of results.json times electrons a count; 0: no shot noise.",
    lower_bound=0.0,
    upper_bound=1e18,
)
DARK = flags.DEFINE_float(
    "dark",
    0.0,
    "Electrons of a pixel and frame without light; wants --full_well or --photons.",
    lower_bound=0.0,
    upper_bound=1e9,
)
SATURATED = flags.DEFINE_float(
    "saturated",
    0.0,
    "Share of pixels that the brightest frame loses.",
    lower_bound=0.0,
    upper_bound=0.5,
)
SEED = flags.DEFINE_integer("seed", 0, "Of sensor and noise.", lower_bound=0, upper_bound=2**32 - 1)


def main(positional: list[str]) -> int:
    """Writes one folder."""
    cli.require_no_more(positional)
    if not WORKDIR.value or not OUTPUT.value:
        raise InputError("--workdir, --output: both are needed, a run folder and a new folder")
    output = Path(OUTPUT.value)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {str(output)!r} is not empty; give another folder")
    run = load_run(Path(WORKDIR.value), data_dir=DATA_DIR.value).on_one_device()
    _fill_from_bench(run)
    bench = _bench(run)
    images = _images(run)
    cli.make_folder("--output", output)
    write_bench(output, run, images, bench, seed=SEED.value)
    print(f"written: {output}/frames, calibration, dark.tif, flat.tif, bad_pixels.tif, truth.*")
    return 0


def _fill_from_bench(run: Run) -> None:
    """Gives the camera's flags the values of --bench; its electrons become counts."""
    bench = bench_file.read_bench()
    scale = bench_file.camera_scale(
        bench,
        pixels=run.config.data.size,
        oversample=run.config.masks.oversample,
        propagation=shallow(run.config.propagation),
    )
    camera = bench.camera
    names = ("bits", "offset", "full_well", "dark")
    bench_file.fill(
        {
            "scale": scale,
            "camera_pixels": bench_file.sides(camera.pixels),
            "photons": bench.photons,
            **{name: getattr(camera, name) for name in names},
        }
    )
    noise = camera.read_noise  # electrons
    if noise and not flags.FLAGS["read_noise"].present:
        if not FULL_WELL.value:
            raise InputError(
                "--bench: camera.read_noise: how many counts an electron gives is not said; give "
                "camera.full_well too, or --read_noise in counts"
            )
        noise *= (2**BITS.value - 1 - OFFSET.value) / FULL_WELL.value  # counts
    bench_file.fill({"read_noise": noise})


def _images(run: Run) -> Images:
    if IMAGES.value:
        if DATA_DIR.value and not run.in_radians:
            raise InputError("--data_dir: nothing would read it beside --images; leave it out")
        images = own_images(run, Path(IMAGES.value), flag="--images", as_trained=True)
        if len(images) > FRAMES.value:
            print(
                f"--images: the first {FRAMES.value} of {len(images)} objects; --frames says more"
            )
    else:
        images = run.scenes(FRAMES.value)
    if FRAMES.present and FRAMES.value > len(images):
        raise InputError(
            f"--frames: expected at most the {len(images)} objects that there are, got "
            f"{FRAMES.value}; lower it, or leave it out"
        )
    return images[: FRAMES.value]


def _bench(run: Run) -> Bench:
    """The camera that the flags describe; it must see the whole pattern."""
    bench = make_bench(
        run,
        scale=SCALE.value,
        rotation=ROTATION.value,
        shift=(SHIFT_Y.value, SHIFT_X.value),
        flip=FLIP.value,
        transpose=TRANSPOSE.value,
        shape=read_pixels("--camera_pixels", CAMERA_PIXELS.value) if CAMERA_PIXELS.value else None,
    )
    check_geometry(
        bench.geometry,
        bench.shape,
        run.sensor,
        flags="--shift_y, --shift_x, --rotation",
        remedy="lower them",
    )
    bench = bench._replace(
        bits=BITS.value,
        left_justified=LEFT.value,
        offset=OFFSET.value,
        read_noise=READ_NOISE.value,
        photons=PHOTONS.value,
        dark=DARK.value,
        full_well=FULL_WELL.value,
        saturated=SATURATED.value,
    )
    check_bench(bench)
    return bench


if __name__ == "__main__":
    cli.run(main)
