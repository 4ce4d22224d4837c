"""Flag --bench, and flags that a key of bench.toml fills if the command line leaves them out."""

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

# Keys of the mask's pixels, each with the key of the panel's pixels that declares it.
OF_MASK = {
    f"modulator.mask_{name}": f"modulator.{own}"
    for name, own in {"pitch": "pixel_pitch", "fill_factor": "fill_factor"}.items()
}
BENCH = flags.DEFINE_string("bench", "", "bench.toml: gives the numbers that flags omit.")


class Key(flags.ArgumentParser):
    """Reads the value of a flag that is made from a key of bench.toml."""

    def __init__(self, key: str, kind: type, about: Described):
        self.key, self.kind, self.about = key, kind, about

    def parse(self, argument: Any) -> Any:
        """Returns a value from the command line or the file; raises `ValueError` if it is wrong."""
        if self.kind is tuple:
            return read_pixels("it", argument) if isinstance(argument, str) else argument
        value = self.kind(argument)
        if self.about.within is not None:
            require("it", value, self.about.within, unit=self.about.unit)
        return value

    def flag_type(self) -> str:
        """Returns the name of the type, for absl's own help."""
        return self.kind.__name__


def of_key(name: str, key: str, *, says: str = "") -> dict[str, Any]:
    """Returns the arguments of `flags.DEFINE` for a flag that is made from a key.

    The flag is None if neither the command line nor `fill` gives it a value.

    Args:
        name: Name of the flag.
        key: Key of bench.toml, or one of the mask's pixels that two keys give (`mask_pitch`).
        says: Help text in place of that of the key.
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
    """Returns the bench of --bench; without the flag, a bench of which nothing is known.

    Raises:
        InputError: If the file cannot be read.
    """
    return read_bench(Path(BENCH.value)) if BENCH.value else Bench()


def warn_of_panel(bench: Bench, config: Config) -> None:
    """Warns on stderr if the panel of --bench is not that of the run."""
    if note := panel_note(bench, config):
        print(f"warning: --bench: {note}", file=sys.stderr)


def fill(**others: Any) -> Bench:
    """Sets flags made by `of_key` to what --bench says, unless the command line sets them.

    Args:
        others: Values by flag name, of other flags or in place of those of keys; None sets nothing.

    Returns:
        The bench, as `read`.

    Raises:
        InputError: As `read`, or if a flag does not accept its value.
    """
    bench = read()
    parsers = {name: flags.FLAGS[name].parser for name in flags.FLAGS}
    keys = {name: parser.key for name, parser in parsers.items() if isinstance(parser, Key)}
    give({name: attrgetter(key)(bench) for name, key in keys.items()} | others)
    return bench


def give(values: Mapping[str, Any]) -> None:
    """Sets flags to values of --bench, unless the command line sets them; None sets nothing.

    Raises:
        InputError: If a flag does not accept its value.
    """
    for name, value in values.items():
        if value is not None and not flags.FLAGS[name].present:
            try:
                flags.FLAGS[name].value = flags.FLAGS[name].parser.parse(value)
            except (TypeError, ValueError) as failure:
                raise InputError(
                    f"--bench: {BENCH.value}: it gives --{name} {shown(value)}: {failure}"
                ) from failure
