"""Makes a mask from a measured map of a plate: heights, or the phase that it adds.

    python -m jax_kdpr.import_mask --input plate.tif --unit nm --index 1.457 --wavelength 532e-9 \\
        --pitch 2e-6 --mask_pitch 16e-6 --size 64 --output mask.npy

The map is that of an interferometer, or of a profilometer: floats, unwrapped, of any size, as TIFF,
NPY, MATLAB, HDF5 or CSV. Its pixels are --pitch apart, and a mask pixel takes the mean of those in
it. Pixels without a value (NaN) take that of the nearest one, and the best plane is taken off
(--nolevel: it stays). Thicker glass delays the light more, p = 2 pi (n - 1) h / lambda; in
reflection p = -4 pi h / lambda. The file has the phases phi = -p, [1 size size], by which the mask
multiplies the light as e^{-j phi}. It is for masks.file and `kdpr.bench`.
Look from where the light comes from: an instrument that looks at the other side sees the plate
mirrored (--flip_horizontal).
With --wavefront the map is that of a wavefront sensor, or of a panel that is not flat: phases W of
the light, or optical paths in metres. The file then has W in radians [size size], by which the
light is multiplied as e^{j W}, for aberrations.file.
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags

from jax_kdpr.core import whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, require
from jax_kdpr.interface import bench_flags, cli
from jax_kdpr.lab.masks.plate import METRES, UNITS, Region, doubts, mask_of_map, phases_added
from jax_kdpr.optics.mask_files.format import HEIGHT, MaskFormat
from jax_kdpr.optics.mask_files.reading import read_planes

flags.adopt_module_key_flags(bench_flags)
INPUT = flags.DEFINE_string("input", None, "File of the map.")
OUTPUT = flags.DEFINE_string("output", None, "File of the mask (or wavefront) to write, .npy.")
UNIT = flags.DEFINE_enum(
    "unit",
    None,
    UNITS,
    "Of the map: m, um and nm are heights (of a wavefront: paths); rad and waves (of the light in "
    "use) the phase added.",
)
WAVELENGTH = flags.DEFINE(**bench_flags.of_key("wavelength", "wavelength"))
INDEX = flags.DEFINE_float("index", 0.0, "Refractive index of the plate, for heights.")
REFLECTION = flags.DEFINE_bool("reflection", False, "Heights of a mirror.")
PITCH = flags.DEFINE_float("pitch", None, "From one pixel of the map to the next, metres.")
MASK_PITCH = flags.DEFINE(
    **bench_flags.of_key(
        "mask_pitch", "modulator.mask_pitch", says="From one mask pixel to the next, metres."
    )
)
SIZE = flags.DEFINE_integer(
    "size", None, "Mask pixels each way: data.size.", lower_bound=1, upper_bound=8192
)
CENTRE = flags.DEFINE_string(
    "centre", "", "Y,X of the mask in the map, 0 the middle of its first pixel; default: middle."
)
CORE = flags.DEFINE_float(
    "core",
    1.0,
    "Share of a mask pixel's side that counts, about its middle: 0.67 leaves out the slopes "
    "between etched steps.",
    lower_bound=0.1,
    upper_bound=1.0,
)
LEVEL = flags.DEFINE_bool("level", True, "Take off the best plane, which only moves the pattern.")
WAVEFRONT = flags.DEFINE_bool(
    "wavefront", False, "The map is of the light: write its phases, for aberrations.file."
)
FLIP_VERTICAL = flags.DEFINE_bool("flip_vertical", False, "Exchange top and bottom of the mask.")
FLIP_HORIZONTAL = flags.DEFINE_bool("flip_horizontal", False, "Exchange left and right of it.")


def main(positional: list[str]) -> int:
    """Reads one map and writes one mask."""
    cli.require_no_more(positional)
    bench = bench_flags.read()
    bench_flags.fill(mask_pitch=bench.modulator.mask_pitch)
    source, output = (Path(cli.require_given(flag, "a file")) for flag in (INPUT, OUTPUT))
    unit = cli.require_given(UNIT, f"one of {', '.join(UNITS)}")
    pitch, mask_pitch = (cli.require_given(flag, "in metres") for flag in (PITCH, MASK_PITCH))
    size = cli.require_given(SIZE, "such as the data.size of a training")
    if output.suffix != ".npy" or output.exists():
        raise InputError(f"--output: expected a new .npy file, got {str(output)!r}")
    require("--pitch", pitch, POSITIVE_LENGTHS["pitch"], unit="metres")
    if unit not in METRES:
        cli.refuse_given(("wavelength", "index", "reflection"), f"is of heights, not of {unit}")
    if WAVEFRONT.value:
        cli.refuse_given(("index", "reflection"), "is of plates, not of a wavefront")
    planes = read_planes(source)
    if len(planes) != 1 or planes.dtype.kind != "f":
        raise InputError(
            f"--input: expected one map of floats, got {len(planes)} of {planes.dtype} in "
            f"{str(source)!r}"
        )
    form = MaskFormat(
        format=HEIGHT,
        wavelength=WAVELENGTH.value or 0.0,
        index=INDEX.value,
        reflection=REFLECTION.value,
    )
    added = phases_added(planes[0].astype(float), unit, form, wavefront=WAVEFRONT.value)
    y, x = cli.numbers(CENTRE, "Y,X") or [(sides - 1) / 2 for sides in added.shape]
    region = Region(size, mask_pitch / pitch, (y, x), CORE.value)
    plate = mask_of_map(added, region, level=LEVEL.value)
    phases = plate.added if WAVEFRONT.value else plate.phases[None]
    phases = phases[..., :: -1 if FLIP_VERTICAL.value else 1, :: -1 if FLIP_HORIZONTAL.value else 1]
    cli.make_folder("--output", output.parent)
    whole_files.write_whole(output, lambda file: np.save(file, phases.astype(np.float32)))
    wide = " x ".join(f"{1e3 * pitch * side:.3g}" for side in added.shape)
    print(
        f"{source}: {' x '.join(map(str, added.shape))} pixels, {wide} mm, {region.ratio:.4g} to a "
        f"mask pixel; {plate.filled:.2%} filled, a tilt of {plate.tilt:.3g} rad across the mask "
        f"taken off\n"
        f"written: {output}, {size} x {size} phases, {plate.span:.3g} rad from lowest "
        f"to highest, {plate.rough:.2g} rad rms within a mask pixel"
    )
    for doubt in doubts(plate, wavefront=WAVEFRONT.value):
        print(f"warning: {doubt}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    cli.run(main)
