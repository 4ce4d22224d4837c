"""What `--help` prints: the command's docstring, its flags, and every option of a config."""

import sys
import textwrap
from typing import Any

from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.options import Described, described, in_words

WIDTH = 100  # characters of a line
REPEATED = ";\n    repeat this option to specify a list of values"  # which absl adds
COLUMN = 40  # at which the description of an option begins


def help_page(prefix: str) -> str:
    """Returns the page of the running command; `prefix` goes before its options ("base.")."""
    lines = [sys.modules["__main__"].__doc__ or "", "Flags:"]
    own = flags.FLAGS.get_key_flags_for_module("__main__")
    for flag in [*own, flags.FLAGS["allow_code"]]:  # which every command has
        has_default = flag.default not in (None, "", []) and flag.name != "config"
        shown = str(flag.default_as_str).strip("'")  # absl puts it in quotes
        default = f" (default: {shown})" if has_default else ""
        meaning = flag.help.removesuffix(REPEATED)
        lines.append(f"  --{flag.name}: {meaning}{default}")
    if "config" in flags.FLAGS:
        lines += ["  --config FILE: a config file; then --config.OPTION=VALUE with, and default:"]
        for section, found in _sections().items():
            lines += ["", f"  {section}"] if section else []
            lines += [_entry(f"{prefix}{path}", one) for path, one in found.items()]
    return "\n".join(lines)


def options_sections() -> dict[str, str]:
    """Returns Markdown tables of all options, by section; section "" is the run itself."""
    pages = {}
    for section, found in _sections().items():
        rows = [
            f"| `{path}` | {_shown(one.value)} | {one.says} | {_values(one)} |"
            for path, one in found.items()
        ]
        head = ["| option | default | meaning | values |", "| --- | --- | --- | --- |"]
        name, _, says = section.partition(": ")
        pages[name] = "\n".join([f"## {name or 'The run'}", "", says, "", *head, *rows])
    return pages


def _sections() -> dict[str, dict[str, Described]]:
    """Returns the options of a config, by name and title of their section."""
    config = Config()
    sections: dict[str, dict[str, Described]] = {}
    for path, one in described(config).items():
        name = path.rpartition(".")[0]
        said = (type(getattr(config, name)).__doc__ or "").splitlines()[0] if name else ""
        sections.setdefault(f"{name}: {said}" if name else "", {})[path] = one
    return sections


def _values(one: Described) -> str:
    """Returns which values an option takes, and the only condition under which it is read."""
    within = " ".join(filter(None, (f"in {one.within}" if one.within else "", one.unit)))
    length = f"{one.length} of them" if one.length else ""
    when = f"only with {one.when[0]} {' or '.join(one.when[1])}" if one.when else ""
    return "; ".join(filter(None, (within, length, in_words(one.choices), when)))


def _shown(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _entry(name: str, one: Described) -> str:
    words = "; ".join(filter(None, (one.says, _values(one))))
    first = f"    {name} = {_shown(one.value)}".rstrip()
    # A long name has a line of its own, so that all descriptions begin at one column.
    start = first.ljust(COLUMN) if len(first) < COLUMN else f"{first}\n{' ' * COLUMN}"
    said = textwrap.fill(words, WIDTH - COLUMN, break_on_hyphens=False, break_long_words=False)
    return start + textwrap.indent(said, " " * COLUMN).strip()
