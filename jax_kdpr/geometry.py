"""Says how the model's samples lie on a real camera: `python -m jax_kdpr.geometry`.

    python -m jax_kdpr.geometry --wavelength 532e-9 --focal_length 0.2 --mask_pitch 8e-6 \\
        --pixels 96 --camera_pixel 3.45e-6 --camera_pixels 2048x2448
    python -m jax_kdpr.geometry --workdir RUN --wavelength 532e-9 --focal_length 0.2 \\
        --mask_pitch 8e-6 --camera_pixel 3.45e-6

Prints the size of a model sample in camera pixels, the extent of the pattern, the focal length for
a whole number of camera pixels, what pixels of finite size do at the edge, and what is sampled too
coarsely; then the options of noise and device for `train`, as far as the flags or --bench give
them. Lengths are in metres. In the near field (--propagation fresnel or angular_spectrum)
--distance takes the place of --focal_length. --workdir takes pixels, oversample and propagation,
with its lengths, from a run. --output FILE.json also writes the numbers.
"""

from pathlib import Path

from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.options import shallow
from jax_kdpr.interface import bench_flags, cli
from jax_kdpr.lab import layout
from jax_kdpr.lab.bench_file import Bench, require_way, size_note
from jax_kdpr.lab.bench_options import PixelNoise, as_flags, device_options, noise_options
from jax_kdpr.lab.masks.shown import ShownOptions, grating_note, plan_addition
from jax_kdpr.optics.mask_files.format import SLM, MaskFormat
from jax_kdpr.optics.propagation import PROPAGATORS
from jax_kdpr.optics.sampling import sampling_of
from jax_kdpr.runs import folder

flags.adopt_module_key_flags(bench_flags)
KEYS = {  # flag: key of bench.toml
    **{name: name for name in ("wavelength", "focal_length", "distance")},
    **{"mask_pitch": "modulator.mask_pitch", "fill_factor": "modulator.mask_fill_factor"},
    **{"camera_pixel": "camera.pixel_pitch", "camera_pixels": "camera.pixels"},
}
NOISE = {
    **{"photons": "photons", "full_well": "camera.full_well", "bits": "camera.bits"},
    **{"read_noise": "camera.read_noise", "dark": "camera.dark"},
}
NEEDED = ("photons", "full_well", "bits")  # for the noise
WITHOUT_LIGHT = "without photons, train --bench takes a well exposed frame"
for name, key in (KEYS | NOISE).items():
    says = "From mask pixel to mask pixel, metres." if name == "mask_pitch" else ""
    flags.DEFINE(**bench_flags.of_key(name, key, says=says))
flags.DEFINE_integer("pixels", None, "Mask pixels, each way.", lower_bound=1, upper_bound=65536)
flags.DEFINE_integer(
    "oversample",
    None,
    "Samples in the finest fringe: 1 or 2; default 1.",
    lower_bound=1,
    upper_bound=2,
)
flags.DEFINE_enum("propagation", None, list(PROPAGATORS), "Default: far.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder that the rest is taken from.")
OUTPUT = flags.DEFINE_string("output", None, "File for the numbers, .json.")


def main(positional: list[str]) -> int:
    """Prints the geometry of the bench that the flags describe."""
    cli.require_no_more(positional)
    known = layout.known_of(folder.read_config(Path(WORKDIR.value))) if WORKDIR.value else {}
    kind = known.get("propagation", flags.FLAGS.propagation or "far")
    unread = "focal_length" if PROPAGATORS[kind].reads_lengths else "distance"
    said = bench_flags.fill(**{unread: None})
    if not flags.FLAGS.focal_length:
        require_way(said, kind)
    names = (*KEYS, "pixels", "oversample", "propagation")
    given = {name: flags.FLAGS[name].value for name in names}
    bench = layout.make_layout(given, known)
    output = Path(OUTPUT.value) if OUTPUT.value else None
    if output:
        json_files.require_own("--output", output, layout.RECORD, command="geometry")
    found = sampling_of(bench)
    warnings = layout.warnings_of(bench, found)
    warnings += filter(None, [size_note(said, bench.pixels)])
    _check_panel(said, bench.pixels)
    of_device = device_options(said)
    if output:
        record = {"bench": bench._asdict(), **found._asdict(), "warnings": warnings}
        cli.make_folder("--output", output.parent)
        json_files.write_json(output, record)
    magnify = layout.suitable_magnify(bench, said.modulator)
    print(layout.table(bench, found, magnify=magnify))
    missing = [f"--{name}" for name in NEEDED if flags.FLAGS[name].value is None]
    if missing:
        wants = "" if missing == ["--photons"] else f"wants {', '.join(missing)}; "
        print(f"noise for train: {wants}{WITHOUT_LIGHT}")
    else:
        camera = PixelNoise(**{name: flags.FLAGS[name].value or 0 for name in NOISE})
        options = noise_options(bench, found, camera, bin=said.camera.bin or 0)
        print(f"noise for train, with that --bin: {as_flags(options)}")
    if of_device:
        print(f"device for train: {as_flags(of_device)}")
    if period := said.modulator.grating:
        print(f"note: {grating_note(said, period, said.modulator.magnify)}")
    for warning in warnings:
        print(f"warning: {warning}")
    if output:
        print(f"written: {output}")
    return 0


def _check_panel(said: Bench, pixels: int) -> None:
    """Refuses what `export_mask` could not show on the panel of --bench."""
    panel = said.modulator
    if size_note(said, pixels):
        return
    names = shallow(ShownOptions())
    asked = {name: getattr(panel, name) for name in names if getattr(panel, name) is not None}
    plan = MaskFormat(format=SLM, panel=panel.panel, magnify=panel.magnify)
    plan_addition(ShownOptions(**asked), plan, size=pixels)


if __name__ == "__main__":
    cli.run(main)
