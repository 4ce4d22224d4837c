"""Flags that describe a camera and how the pattern lies on it, for `simulate_bench`."""

from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels
from jax_kdpr.core.options import shallow
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.frames.bench_folder import make_bench
from jax_kdpr.lab.frames.geometry import FLIPS, check_geometry
from jax_kdpr.lab.frames.simulated_camera import Bench, check_bench
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(bench_file)
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
SCALE = flags.DEFINE_float(
    "scale", 3.1, "Camera pixels in a model sample.", lower_bound=1.0, upper_bound=1000.0
)
ROTATION = flags.DEFINE_float("rotation", 2.0, "Of the pattern on the camera, degrees.")
SHIFT_Y = flags.DEFINE_float("shift_y", 2.3, "Of the pattern from the frame's middle, pixels.")
SHIFT_X = flags.DEFINE_float("shift_x", -1.6, "Likewise.")
FLIP = flags.DEFINE_enum("flip", "none", FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool("transpose", False, "Whether it swaps rows and columns.")
BITS = flags.DEFINE_integer("bits", 12, "Of the converter.", lower_bound=4, upper_bound=16)
flags.DEFINE_bool("left_justified", False, "Write the counts into the high bits of 16.")
OFFSET = flags.DEFINE_float(
    "offset", 64.0, "Counts without light.", lower_bound=0.0, upper_bound=65535.0
)
flags.DEFINE_float(
    "read_noise", 1.0, "Standard deviation, counts.", lower_bound=0.0, upper_bound=65535.0
)
flags.DEFINE_float(
    "photons",
    0.0,
    "Photoelectrons of a frame of a scene of modulus 1, on the model's grid, its envelope divided "
    "out: `counts` of results.json times electrons a count; 0: no shot noise.",
    lower_bound=0.0,
    upper_bound=1e18,
)
flags.DEFINE_float(
    "dark",
    0.0,
    "Electrons of a pixel and frame without light; wants --full_well or --photons.",
    lower_bound=0.0,
    upper_bound=1e9,
)
flags.DEFINE_float(
    "saturated",
    0.0,
    "Share of pixels that the brightest frame loses.",
    lower_bound=0.0,
    upper_bound=0.5,
)
COUNTS = (
    *("bits", "left_justified", "offset", "read_noise", "photons", "dark", "full_well"),
    "saturated",
)  # of `Bench`, each a flag


def read_camera(run: Run) -> Bench:
    """Returns the camera that the flags, and --bench beside them, describe.

    Raises:
        InputError: If it does not see the whole pattern of the run, or its numbers do not fit.
    """
    _fill_from_bench(run)
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
    bench = bench._replace(**{name: flags.FLAGS[name].value for name in COUNTS})
    check_bench(bench)
    return bench


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
