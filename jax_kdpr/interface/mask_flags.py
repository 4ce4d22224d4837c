"""Flags that say how masks become files, and what a panel shows besides, for `export_mask`."""

from typing import Any

from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels
from jax_kdpr.core.options import shallow
from jax_kdpr.interface import bench_flags, option_flags
from jax_kdpr.lab.bench_file import Bench
from jax_kdpr.lab.masks.shown import ShownOptions
from jax_kdpr.optics.lookup_table import read_table
from jax_kdpr.optics.mask_files.format import SLM, MaskFormat

flags.adopt_module_key_flags(bench_flags)
TEXTS = ("panel", "table")
for _define in option_flags.declarations(MaskFormat(format=""), texts=TEXTS):
    _define()
for _define in option_flags.declarations(ShownOptions()):
    _define()

# Flags that say the same in other ways: if the first is given, bench.toml does not set the others.
INSTEAD = {
    **{"table": ["gray_2pi"], "gray_2pi": ["table"], "mask_pitch": ["magnify"]},
    "correction": ["correction_2pi"],
}


def fill_from_bench(config: Config) -> Bench:
    """Sets the flags that the format reads to what --bench says.

    The lengths of a run must agree with it. A warning says if its panel is not that of the run's
    `config`.

    Returns:
        The bench, as `bench_flags.read`.

    Raises:
        InputError: If --bench cannot be read.
    """
    bench = bench_flags.read()
    modulator = bench.modulator
    values: dict[str, Any] = {"wavelength": bench.wavelength}
    if flags.FLAGS["format"].value == SLM:
        panel = {"panel": "x".join(map(str, modulator.panel or ())) or None}
        names = ("pixel_pitch", "magnify", "bits", "gray_2pi", "table")
        names += tuple(shallow(ShownOptions()))
        values |= panel | {name: getattr(modulator, name) for name in names}
        if not bench_flags.BENCH.value:
            del values["magnify"]  # whose default in the file is 1
        for flag, others in INSTEAD.items():
            if flags.FLAGS[flag].present:
                values |= dict.fromkeys(others)
    else:
        values["mask_pitch"] = modulator.mask_pitch
    bench_flags.give(values)
    bench_flags.warn_of_panel(bench, config)
    return bench


def read_request() -> MaskFormat:
    """Returns what the flags ask for.

    Raises:
        InputError: If --panel is not a size, or --table cannot be read.
    """
    panel, table = (flags.FLAGS[name].value for name in TEXTS)
    if table and flags.FLAGS["format"].value != SLM:
        raise InputError("--table: is read only with --format slm; leave it out")
    return option_flags.read(
        MaskFormat(),
        panel=read_pixels("--panel", panel) if panel else None,
        table=read_table(table) if table else (),
    )


def read_shown() -> ShownOptions:
    """Returns what the panel shows besides the mask."""
    return option_flags.read(ShownOptions())
