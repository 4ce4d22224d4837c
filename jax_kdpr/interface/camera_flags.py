"""Flags that describe a camera and how the pattern lies on it, for `simulate_bench`."""

from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import bench_flags
from jax_kdpr.lab.bench_file import camera_scale
from jax_kdpr.lab.frames.geometry import FLIPS, check_geometry
from jax_kdpr.lab.frames.simulated_bench import Bench, check_bench, make_bench
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(bench_flags)
SCALE = flags.DEFINE_float(
    "scale", 3.1, "Camera pixels in a model sample.", lower_bound=1.0, upper_bound=1000.0
)
ROTATION = flags.DEFINE_float("rotation", 2.0, "Rotation of the pattern on the camera, degrees.")
SHIFT_Y = flags.DEFINE_float(
    "shift_y", 2.3, "Shift of the pattern from the frame's middle, pixels down."
)
SHIFT_X = flags.DEFINE_float("shift_x", -1.6, "The same, pixels to the right.")
FLIP = flags.DEFINE_enum("flip", "none", FLIPS, "How the camera mirrors the pattern.")
TRANSPOSE = flags.DEFINE_bool("transpose", False, "Swap rows and columns of the pattern.")
flags.DEFINE_bool("left_justified", False, "Write the counts into the high bits of 16.")
flags.DEFINE_float(
    "read_noise", 1.0, "Read noise, counts (rms).", lower_bound=0.0, upper_bound=65535.0
)
flags.DEFINE_float(
    "saturated",
    0.0,
    "Share of pixels that are saturated in the brightest frame.",
    lower_bound=0.0,
    upper_bound=0.5,
)
KEYS = {
    **{"camera_pixels": "camera.pixels", "bits": "camera.bits", "offset": "camera.offset"},
    **{"photons": "photons", "dark": "camera.dark", "full_well": "camera.full_well"},
}
for name, key in KEYS.items():
    flags.DEFINE(**bench_flags.of_key(name, key))
COUNTS = ("bits", "offset", "photons", "dark", "full_well")  # fields of `Bench`, with defaults
COUNTS += ("left_justified", "read_noise", "saturated")


def read_camera(run: Run) -> Bench:
    """Returns the camera that the flags, and --bench beside them, describe.

    Raises:
        InputError: If it does not see the whole pattern of the run, or its numbers do not fit.
    """
    known = bench_flags.fill()
    bench_flags.warn_of_panel(known, run.config)
    bench_flags.give({"scale": camera_scale(known, run.config)})
    bench = make_bench(
        run,
        scale=SCALE.value,
        shift=(SHIFT_Y.value, SHIFT_X.value),
        shape=flags.FLAGS.camera_pixels,
        **{"rotation": ROTATION.value, "flip": FLIP.value, "transpose": TRANSPOSE.value},
    )
    check_geometry(bench.geometry, bench.shape, run.sensor)
    given = {name: flags.FLAGS[name].value for name in COUNTS}
    bench = bench._replace(**{name: value for name, value in given.items() if value is not None})
    noise = known.camera.read_noise  # electrons
    if noise is not None and not flags.FLAGS["read_noise"].present:
        if noise and not bench.full_well:
            raise InputError(
                "--bench: camera.read_noise: how many counts an electron gives is not said; give "
                "camera.full_well too, or --read_noise in counts"
            )
        counts = noise * bench.room() / bench.full_well if noise else 0.0
        bench = bench._replace(read_noise=counts)
    check_bench(bench)
    return bench
