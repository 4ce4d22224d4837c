"""JSON files: written atomically, and checked against an expected shape when they are read.

A shape describes a value:

    {"frames": [{"name": str, "misfit": float}], "settings": dict, "note": Maybe(str)}

A type matches its values (float also integers), a union those of its types, `object` any value, and
a `Range` the numbers in it. A dictionary matches one that has at least its keys, {str: shape} one
with any keys. A list of one shape matches a list of any length, a tuple of shapes a list of that
many values.
"""

import json
import math
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core import whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, shown

Shape = Any
CONTAINERS = (dict, list, tuple)
WORDS = {
    **{dict: "fields", list: "a list", tuple: "a list", bool: "true or false"},
    **{str: "text", int: "an integer", float: "a number"},
}


class Maybe(NamedTuple):
    """The shape of a key that may be missing."""

    shape: Shape


def write_json(path: Path, value: Any) -> None:
    """Writes JSON.

    Raises:
        ValueError: If a number is nan or infinite, which JSON does not have.
    """
    whole_files.write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(
    path: Path, shape: Shape = dict, *, remedy: str = "remove it, and it is made again"
) -> Any:
    """Reads JSON of a given shape; raises `InputError`, with `remedy`, for anything else."""
    try:
        return parse(whole_files.read_bytes(path), shape)
    except (OSError, ValueError) as failure:
        raise InputError(f"{path}: cannot be read ({failure}); {remedy}") from failure


def parse(text: bytes, shape: Shape) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: If it is not JSON, or has another shape.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_shape(value, shape)
    return value


def check_shape(value: Any, shape: Shape, place: str = "it") -> None:
    """Raises `ValueError`, which names the place, unless a JSON value has the given shape."""
    if isinstance(shape, dict) and isinstance(value, dict):
        if set(shape) == {str}:
            shape = dict.fromkeys(value, shape[str])
        for key, inner in shape.items():
            if key in value:
                inner = inner.shape if isinstance(inner, Maybe) else inner
                check_shape(value[key], inner, f"{place}.{key}".removeprefix("it."))
            elif not isinstance(inner, Maybe):
                raise ValueError(f"{place} has no {key!r}")
    elif type(shape) in (list, tuple) and isinstance(value, list):
        shapes = shape * len(value) if isinstance(shape, list) else shape
        if len(shapes) != len(value):
            raise ValueError(f"{place}: expected {len(shapes)} values, got {shown(value)}")
        for number, (item, inner) in enumerate(zip(value, shapes, strict=True)):
            check_shape(item, inner, f"{place}[{number}]")
    elif not _is_of(value, shape):
        kind = type(shape) if type(shape) in CONTAINERS else shape
        wanted = f"a number in {shape}" if isinstance(shape, Range) else WORDS.get(kind, str(kind))
        raise ValueError(f"{place}: expected {wanted}, got {shown(value)}")


def _is_of(value: Any, kind: Any) -> bool:
    if type(kind) in CONTAINERS:
        return False
    if isinstance(value, bool):  # an integer to Python
        return kind in (bool, object) or bool in typing.get_args(kind)
    if isinstance(kind, Range):
        return isinstance(value, int | float) and kind.holds(value)
    if isinstance(value, int):
        return abs(value) < 2**63 and (isinstance(value, kind) or isinstance(1.0, kind))
    if isinstance(value, float) and not math.isfinite(value):
        return False  # Python reads NaN and 1e999, which JSON does not have
    return isinstance(value, kind)


def require_own(
    flag: str, path: Path, shape: Shape, *, command: str, beside: Iterable[str] = ()
) -> None:
    """Refuses to replace files that are not earlier results of the same command.

    A command that writes several files writes its JSON first: it shows that the others are its own.

    Args:
        flag: Flag that names the file, or its folder.
        path: File for the result: JSON, or .jsonl with one value per line.
        shape: Shape of the result, or of each line.
        command: Name of the command.
        beside: Names, or glob patterns, of what else the command writes into the same folder.

    Raises:
        InputError: If a file is there that is no such result.
    """
    there, why = path, ""
    if path.exists():
        try:
            text = whole_files.read_bytes(path)
            for value in text.splitlines() if path.suffix == ".jsonl" else [text]:
                parse(value, shape)
            return
        except (OSError, ValueError) as failure:
            why = str(failure)
    else:
        others = (other for pattern in beside for other in path.parent.glob(pattern))
        if (there := next(others, path)) is path:
            return
        why = f"without its {path.name}"
    raise InputError(
        f"{flag}: {str(there)!r} is there, and no earlier result of {command} ({why}); move it "
        "away, or give another --output"
    )
