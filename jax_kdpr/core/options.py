"""Declares, checks, builds and compares nested dataclasses of options; knows none by name."""

import copy
import dataclasses
import difflib
import functools
import types
import typing
from typing import Any, NamedTuple, TypeVar, cast, dataclass_transform

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, number_hint, require, shown
from jax_kdpr.core.registry import Registry, is_foreign

T = TypeVar("T")
Choices = tuple[str, ...] | Registry
Condition = tuple[str, tuple[str, ...]]


class Described(NamedTuple):
    """The value and the description of a field that `option` declared."""

    value: Any  # its present value
    says: str = ""
    unit: str = ""
    within: Range | None = None  # valid range of a number, or of each number of a tuple
    length: Range | None = None  # valid lengths of a tuple
    choices: Choices = ()
    when: Condition | None = None

    def shown(self, value: Any) -> str:
        """Returns a value of the field as text for a message; choices have no quotes."""
        return str(value) if self.choices else shown(value)


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
def section(cls: type[T]) -> type[T]:
    """Makes a class a dataclass of options.

    It has slots, so that setting a misspelt field raises an error. Its hash is that of its values,
    so that objects that hold options can be compared by them; do not change the options after that.
    """
    return dataclasses.dataclass(kw_only=True, slots=True, unsafe_hash=True)(cls)


def option(
    default: T,
    says: str,
    *,
    unit: str = "",
    within: Range | None = None,
    length: Range | None = None,
    choices: Choices = (),
    when: Condition | None = None,
) -> T:
    """Declares a field of a dataclass of options, with its description.

    Checks, messages, `--help` and the options page of the docs are generated from it.

    Args:
        default: Default value, never a mutable one.
        says: What the option means, in one line, as far as its name and choices do not say it.
        unit: Unit of a number that has one.
        within: Valid range of a number, or of each number of a tuple; every number has one.
        length: Valid lengths of a tuple.
        choices: The words that it takes, or a registry of the code that it chooses.
        when: (path of another option, its values): the option is read only with these values.
            Setting it beside other values is refused, since it would have no effect.
    """
    about = {
        **{"says": says, "unit": unit, "within": within, "length": length},
        **{"choices": choices, "when": when},
    }
    return dataclasses.field(default=default, metadata=about)


def described(config: Any, prefix: str = "") -> dict[str, Described]:
    """Returns {dotted path: value and description}, in order of declaration."""
    found: dict[str, Described] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            found.update(described(value, f"{prefix}{f.name}."))
        else:
            found[prefix + f.name] = Described(value, **f.metadata)
    return found


def check(config: Any, *, before: str = "") -> None:
    """Checks options against their descriptions: ranges, lengths, code, and `when` they are read.

    Args:
        config: The options.
        before: Beginning of the messages: "--" for options that were given as flags.

    Raises:
        InputError: If a value is out of range, not finite, set although nothing reads it, or names
            code that cannot be imported.
    """
    found = described(config)
    defaults = flatten(type(config)())
    for path, about in found.items():
        name, value = f"{before}{path}", about.value
        if isinstance(about.choices, Registry):
            try:
                about.choices[value]  # finds a wrong name before anything is written
            except InputError as failure:
                raise InputError(f"{name}: {failure}") from failure
        if about.within is not None and value is not None:
            for number in value if isinstance(value, tuple) else (value,):
                require(name, number, about.within, unit=about.unit)
        if about.length is not None:
            require(f"{name}: its length", len(cast(tuple, value)), about.length)
        # A section may be checked alone, without the option that `when` names.
        if about.when is not None and about.when[0] in found and value != defaults[path]:
            choice, readers = about.when
            chosen = found[choice].value
            if chosen not in readers and not is_foreign(chosen):
                raise InputError(
                    f"{name}: is read only with {choice} {' or '.join(readers)}, got {value!r} "
                    f"with {chosen}; set {choice}, or leave {path} out"
                )


def foreign_names(config: Any) -> dict[str, str]:
    """Returns {dotted path: name} of the options that name foreign code."""
    return {
        path: one.value
        for path, one in described(config).items()
        if isinstance(one.choices, Registry) and is_foreign(one.value)
    }


def changed(options: T, **values: Any) -> T:
    """Returns a copy of options with other values; they are not checked, and may be traced."""
    other = copy.copy(options)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def flatten(config: Any) -> dict[str, Any]:
    """Returns {dotted path: value} of every field, in order of declaration."""
    return {path: one.value for path, one in described(config).items()}


def shallow(section: Any) -> dict[str, Any]:
    """Returns {name: value} of the fields of one dataclass; nested values are not converted."""
    return {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}


def differences(
    ours: Any, theirs: Any, *, only: tuple[str, ...] = ("",), ignore: tuple[str, ...] = ()
) -> list[str]:
    """Returns "path: ours against theirs" for each field that differs.

    Args:
        ours: A dataclass.
        theirs: Another one of the same class.
        only: Prefixes of the paths to compare; by default all.
        ignore: Paths to leave out.
    """
    other = flatten(theirs)
    return [
        f"{path}: {one.shown(one.value)} against {one.shown(other[path])}"
        for path, one in described(ours).items()
        if one.value != other[path] and path.startswith(only) and path not in ignore
    ]


def build(cls: type, values: Any, *, known: list[str], prefix: str = "") -> Any:
    """Builds a dataclass from nested plain values; fields that are missing take their default.

    An integer becomes a float, and a list a tuple, where the field needs one.

    Args:
        cls: The dataclass.
        values: A dict of its fields; sections are dicts in turn, or dataclasses.
        known: All valid dotted paths, to suggest the nearest one to an unknown path.
        prefix: Dotted path of `cls` itself.

    Raises:
        InputError: If a field is unknown, or its value has the wrong type or is not a valid choice.
    """
    if dataclasses.is_dataclass(values):
        values = shallow(values)
    if not isinstance(values, dict):
        raise InputError(
            f"{prefix.rstrip('.')}: expected fields of {cls.__name__}, got {shown(values)}"
        )
    hints = typing.get_type_hints(cls)
    choices = {f.name: f.metadata.get("choices", ()) for f in dataclasses.fields(cls)}
    arguments = {}
    for name, value in values.items():
        path = prefix + name
        if name not in hints:
            raise InputError(unknown_field(path, known))
        if dataclasses.is_dataclass(hints[name]):
            arguments[name] = build(hints[name], value, known=known, prefix=f"{path}.")
        else:
            arguments[name] = _typed(hints[name], value, path, choices[name])
    return cls(**arguments)


def expected(config: Any, path: str) -> str:
    """Returns in words what the field at a dotted path accepts: its choices, or its type."""
    *sections, name = path.split(".")
    owner = functools.reduce(getattr, sections, config)
    hint = _said(typing.get_type_hints(type(owner))[name])
    return _in_words(hint, described(config)[path].choices)


def _said(hint: Any) -> Any:
    """Returns the type of a field, without the None of an optional one."""
    return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def _typed(hint: Any, value: Any, path: str, choices: Choices) -> Any:
    hint = _said(hint)
    of = typing.get_args(hint)[:1]  # of tuple[int, ...] or tuple[float, ...]
    if of and isinstance(value, list | tuple) and all(_is_a(of[0], item) for item in value):
        return tuple(map(of[0], value))
    foreign = isinstance(choices, Registry) and is_foreign(value)
    if not of and _is_a(hint, value) and (not choices or foreign or value in tuple(choices)):
        return hint(value)
    meant = number_hint(value) if isinstance(value, str) else ""
    raise InputError(f"{path}: expected {_in_words(hint, choices)}, got {shown(value)}{meant}")


def _in_words(hint: Any, choices: Choices) -> str:
    several = "numbers" if float in typing.get_args(hint) else "integers"
    example = "(0.5, 0.9)" if several == "numbers" else "(16, 32)"
    wanted = {int: "an integer", float: "a number", bool: "True or False", str: "text"}
    return in_words(choices) or wanted.get(hint, f"{several}, such as {example}")


def _is_a(kind: type, value: Any) -> bool:
    """Returns whether a plain value has a type; an integer counts as a float if one can hold it."""
    if kind is float and type(value) is int:
        return abs(value) < 10**300
    return type(value) is kind


def in_words(choices: Choices) -> str:
    """Returns "one of a, b", for a registry also how to name foreign code; "" without choices."""
    own = ", or package.module:name" if isinstance(choices, Registry) else ""
    return f"one of {', '.join(choices)}{own}" if choices else ""


def unknown_field(path: str, known: list[str]) -> str:
    """Returns the message that a field does not exist, with the nearest field that does."""
    # A correct name in the wrong section is as common a mistake as a misspelt name.
    by_leaf = [name for name in known if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    nearest = by_leaf or difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    sections = sorted({name.rsplit(".", 1)[0] for name in known if "." in name})
    hint = f"did you mean {nearest[0]}?" if nearest else f"sections: {', '.join(sections)}"
    return f"config: no field {path!r}; {hint}"
