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
truth.npy (the scenes' images), which `reconstruct --truth` takes if truth.json lies beside it. By
default the camera has 12 bits, 64 counts without light and no dark electrons. It is a third larger
than the pattern, and its brightest pixel nearly reaches full scale. Shot noise needs photons or a
full well. --config in place of --workdir names a bench that nothing was trained for, such as that
of a mask file.
"""

from pathlib import Path

from absl import flags

from jax_kdpr.config.checks import read_optics
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Images
from jax_kdpr.interface import camera_flags, cli, system_flags
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.simulated_bench import write_bench
from jax_kdpr.lab.masks.further import with_further
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(system_flags)
CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string("output", None, "Folder to write; new or empty.")
flags.adopt_module_key_flags(camera_flags)
FRAMES = flags.DEFINE_integer(
    "frames",
    16,
    "Number of objects: the first test scenes, or images of --images; by default fewer may do.",
    lower_bound=1,
    upper_bound=100_000,
)
IMAGES = flags.DEFINE_string(
    "images",
    "",
    "Images of objects of yours, as data.dir takes them, but never rescaled, in place of the test "
    "scenes; of complex scenes phase and amplitude by turns.",
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")
TEACHER = flags.DEFINE_integer(
    "teacher",
    0,
    "Shots of each object, for `adapt`: through the run's masks, then through the further ones of "
    "export_mask --teacher; 0: the run's own.",
    lower_bound=0,
    upper_bound=1000,
)
OPTICS = flags.DEFINE_string(
    "optics",
    "",
    "Optics of the bench, in place of the run's: a calibration by calibrate --fit, or JSON "
    'such as {"optics": {"illumination": {"kind": "gaussian", "waist": 0.6}}}.',
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of sensor and noise.", lower_bound=0, upper_bound=2**32 - 1
)


def main(positional: list[str]) -> int:
    """Writes one folder."""
    cli.require_no_more(positional)
    config = system_flags.read_system_config(CONFIG)
    if not OUTPUT.value:
        raise InputError("--output: needed, a new folder")
    output = Path(OUTPUT.value)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {str(output)!r} is not empty; give another folder")
    run = system_flags.read_system(config, data_dir=DATA_DIR.value).on_one_device()
    run = run.with_optics(read_optics(Path(OPTICS.value))) if OPTICS.value else run
    run = with_further(run, TEACHER.value) if TEACHER.value else run
    camera = camera_flags.read_camera(run)
    images = _images(run)
    cli.make_folder("--output", output)
    write_bench(output, run, images, camera, seed=SEED.value)
    print(f"written: {output}/frames, calibration, dark.tif, flat.tif, bad_pixels.tif, truth.*")
    return 0


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


if __name__ == "__main__":
    cli.run(main)
