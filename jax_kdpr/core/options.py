"""Reading, writing and comparing nested dataclasses of options; knows no option by name."""

import dataclasses
import difflib
import enum
import types
import typing
from typing import Any, NamedTuple, TypeVar

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, require, shown

T = TypeVar("T")


class Described(NamedTuple):
    """What a field of `option` says of itself."""

    says: str
    unit: str
    within: Range | None  # of a number, or of each of several
    choices: tuple[str, ...]  # empty where it takes more than a few words
    default: Any


def option(default: T, says: str, *, unit: str = "", within: Range | None = None) -> T:
    """Declares a field of a dataclass of options, with the words that `--help` has for it.

    Args:
        default: Its value, never a mutable one.
        says: What it means, in one line; what is left open is said by name and choices.
        unit: Of a number that has one.
        within: Where a number must lie, or each of several; every number has a range.
    """
    about = {"says": says, "unit": unit, "within": within}
    return dataclasses.field(default=default, metadata=about)


def describe(config: Any) -> dict[str, dict[str, Described]]:
    """Returns {section: {dotted path: what it says}} of every field; "" is the section of none."""
    found: dict[str, dict[str, Described]] = {"": {}}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            own = describe(value)[""]
            found[f.name] = {f"{f.name}.{name}": one for name, one in own.items()}
        else:
            choices = tuple(map(str, type(value))) if isinstance(value, enum.Enum) else ()
            found[""][f.name] = Described(**f.metadata, choices=choices, default=value)
    return found


def check_ranges(config: Any, prefix: str = "") -> None:
    """Checks every number of a dataclass of options against the range of its field.

    Raises:
        InputError: If one is elsewhere, or not finite.
    """
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{prefix}{f.name}.")
        elif f.metadata["within"] is not None and value is not None:
            for number in value if isinstance(value, tuple) else (value,):
                require(prefix + f.name, number, f.metadata["within"], unit=f.metadata["unit"])


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {dotted path: value} of every field, in order of declaration."""
    flat = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{f.name}."))
        else:
            flat[prefix + f.name] = value
    return flat


def shallow(section: Any) -> dict[str, Any]:
    """Returns {name: value} of the fields of one dataclass; values are passed on as they are."""
    return {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}


def differences(
    ours: Any, theirs: Any, *, only: tuple[str, ...] = ("",), ignore: tuple[str, ...] = ()
) -> list[str]:
    """Returns "path: ours against theirs" for each field that differs.

    Args:
        ours: A dataclass.
        theirs: Another one of the same class.
        only: Beginnings of the paths to compare; default all.
        ignore: Paths to leave out.
    """
    other = flatten(theirs)
    return [
        f"{path}: {_text(value)} against {_text(other[path])}"
        for path, value in flatten(ours).items()
        if value != other[path] and path.startswith(only) and path not in ignore
    ]


def build(cls: type, values: Any, *, known: list[str], prefix: str = "") -> Any:
    """Builds a dataclass from nested plain values; fields that are missing take their default.

    An integer becomes the float it means, a list the tuple, a string the enumeration member.

    Args:
        cls: The dataclass.
        values: A dict of its fields; sections are dicts in turn, or dataclasses.
        known: Every dotted path there is, to suggest the nearest to one that is not.
        prefix: Dotted path of `cls` itself.

    Raises:
        InputError: If a field is unknown, or its value of the wrong type or no choice of its field.
    """
    if dataclasses.is_dataclass(values):
        values = shallow(values)
    if not isinstance(values, dict):
        raise InputError(
            f"{prefix.rstrip('.')}: expected fields of {cls.__name__}, got {shown(values)}"
        )
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        path = prefix + name
        if name not in hints:
            raise InputError(unknown_field(path, known))
        if dataclasses.is_dataclass(hints[name]):
            arguments[name] = build(hints[name], value, known=known, prefix=f"{path}.")
        else:
            arguments[name] = _typed(hints[name], value, path)
    return cls(**arguments)


def _typed(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, types.UnionType):  # with None, for what is not said
        hint = typing.get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in list(hint):
            raise InputError(f"{path}: expected {_in_words(hint)}; got {_text(value)}")
        return hint(value)
    if isinstance(hint, types.GenericAlias):  # tuple[int, ...] or tuple[float, ...]
        of = typing.get_args(hint)[0]
        if isinstance(value, list | tuple) and all(_is_a(of, item) for item in value):
            return tuple(of(item) for item in value)
    elif _is_a(hint, value):
        return hint(value)
    raise InputError(f"{path}: expected {_in_words(hint)}, got {shown(value)}")


def _is_a(kind: type, value: Any) -> bool:
    """Whether a plain value is of a type; an integer is the float it means, unless it is none."""
    if kind is float and type(value) is int:
        return abs(value) < 10**300
    return type(value) is kind


def expected(path: str, default: Any) -> str:
    """Returns in words what the field at `path` takes: its choices, or its type."""
    return _in_words(type(flatten(default)[path]))


def _in_words(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(str(member) for member in hint)}"
    if typing.get_args(hint)[:1] == (float,):
        return "numbers in brackets, such as (0.5, 0.9)"
    names = {int: "an integer", float: "a number", bool: "True or False", str: "text"}
    return names.get(hint, "integers in brackets, such as (16, 32)")


def _text(value: Any) -> str:
    return str(value) if isinstance(value, enum.Enum) else shown(value)


def unknown_field(path: str, known: list[str]) -> str:
    """Returns the line that says a field does not exist, with the nearest of those that do."""
    # A right leaf in the wrong section is as common as a misspelt leaf.
    by_leaf = [name for name in known if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    nearest = by_leaf or difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    sections = sorted({name.rsplit(".", 1)[0] for name in known if "." in name})
    hint = f"did you mean {nearest[0]}?" if nearest else f"sections: {', '.join(sections)}"
    return f"config: no field {path!r}; {hint}"
