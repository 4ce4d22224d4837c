"""--bench, and the flags that a key of bench.toml gives where a command line leaves them open."""

import sys
import types
import typing
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels, require, shown
from jax_kdpr.core.options import Described, described
from jax_kdpr.lab.bench_file import Bench, panel_note, read_bench

# Of the mask's pixels, by the key of the panel's that declares it.
OF_MASK = {
    f"modulator.mask_{name}": f"modulator.{own}"
    for name, own in {"pitch": "pixel_pitch", "fill_factor": "fill_factor"}.items()
}
BENCH = flags.DEFINE_string("bench", "", "bench.toml: numbers that the flags leave open.")


class Key(flags.ArgumentParser):
    """Reads a flag as the key of bench.toml of which it is made."""

    def __init__(self, key: str, kind: type, about: Described):
        self.key, self.kind, self.about = key, kind, about

    def parse(self, argument: Any) -> Any:
        """Returns a value from the command line, or from the file; raises `ValueError`."""
        if self.kind is tuple:
            return read_pixels("it", argument) if isinstance(argument, str) else argument
        value = self.kind(argument)
        if self.about.within is not None:
            require("it", value, self.about.within, unit=self.about.unit)
        return value

    def flag_type(self) -> str:
        """For absl's own help."""
        return self.kind.__name__


def of_key(name: str, key: str, *, says: str = "") -> dict[str, Any]:
    """Returns what `flags.DEFINE` makes a flag of; None where command line and `fill` give none.

    Args:
        name: Of the flag.
        key: Of bench.toml, or what two of them make of the mask's pixels (`mask_pitch`).
        says: More than the key says of itself.
    """
    owner, _, leaf = OF_MASK.get(key, key).rpartition(".")
    section = attrgetter(owner)(Bench()) if owner else Bench()
    about = described(section)[leaf]
    kind = typing.get_args(typing.get_type_hints(type(section))[leaf])[0]
    kind = tuple if isinstance(kind, types.GenericAlias) else kind
    unit = f", {about.unit}" if about.unit else ", HEIGHTxWIDTH" if kind is tuple else ""
    said = says or f"{about.says[0].upper()}{about.says[1:]}{unit}."
    return {"parser": Key(key, kind, about), "name": name, "default": None, "help": said}


def read() -> Bench:
    """Returns what the file of --bench says; without the flag a bench of which nothing is said.

    Raises:
        InputError: If it cannot be read.
    """
    return read_bench(Path(BENCH.value)) if BENCH.value else Bench()


def warn_of_panel(bench: Bench, config: Config) -> None:
    """Says on stderr where the panel of --bench is not the run's."""
    if note := panel_note(bench, config):
        print(f"warning: --bench: {note}", file=sys.stderr)


def fill(**others: Any) -> Bench:
    """Gives the flags `of_key` that the command line leaves open what --bench says.

    Args:
        others: Values, by flag, in place of those of the keys, and of other flags; None for none.

    Returns:
        As `read`.

    Raises:
        InputError: As `read`, or if a flag would not take its value.
    """
    bench = read()
    parsers = {name: flags.FLAGS[name].parser for name in flags.FLAGS}
    keys = {name: parser.key for name, parser in parsers.items() if isinstance(parser, Key)}
    give({name: attrgetter(key)(bench) for name, key in keys.items()} | others)
    return bench


def give(values: Mapping[str, Any]) -> None:
    """Gives flags that the command line leaves open values of --bench; None gives none.

    Raises:
        InputError: If a flag would not take its value.
    """
    for name, value in values.items():
        if value is not None and not flags.FLAGS[name].present:
            try:
                flags.FLAGS[name].value = flags.FLAGS[name].parser.parse(value)
            except (TypeError, ValueError) as failure:
                raise InputError(
                    f"--bench: {BENCH.value}: it gives --{name} {shown(value)}: {failure}"
                ) from failure
