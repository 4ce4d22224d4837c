"""JSON files: written whole, and read back only where they have the shape of what was written.

A shape says what a value must be:

    {"frames": [{"name": str, "misfit": float}], "settings": dict, "note": Maybe(str)}

A type stands for its values (float for integers too), a union for those of its types, `object` for
any, a `Range` for its numbers; a dictionary for one with at least these keys, {str: shape} for one
of any keys; a list of one shape for a list of any length, a tuple of shapes for a list of as many
values.
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

MOST = 2**28  # bytes; results.json of a hundred thousand objects has a tenth of it
Shape = Any


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
    """Reads what `write_json` wrote.

    Args:
        path: The file.
        shape: That its value must have.
        remedy: What to do about a file that cannot be read, for the message.

    Raises:
        InputError: If the file is missing, damaged or of another shape.
    """
    try:
        return parse(read_bounded(path).decode(), shape)
    except (OSError, ValueError) as failure:
        raise InputError(f"{path}: cannot be read ({failure}); {remedy}") from failure


def read_bounded(path: Path, most: int = MOST) -> bytes:
    """Reads a file of at most so many bytes.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is larger, or no file: a pipe would be waited for without end.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{size:,} bytes, expected at most {most:,}")
    return path.read_bytes()


def parse(text: str, shape: Shape) -> Any:
    """Returns the value that a text stands for.

    Raises:
        ValueError: If it is no JSON, or of another shape.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_shape(value, shape)
    return value


def check_shape(value: Any, shape: Shape, place: str = "") -> None:
    """Raises `ValueError`, with the place, unless a value of JSON has a shape."""
    match shape, value:
        case Range(), _:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and shape.holds(value)):
                raise ValueError(
                    f"{place or 'it'}: expected a number in {shape}, got {shown(value)}"
                )
        case dict(), dict():
            if set(shape) == {str}:
                shape = dict.fromkeys(value, shape[str])
            for key, inner in shape.items():
                if key in value:
                    inner = inner.shape if isinstance(inner, Maybe) else inner
                    check_shape(value[key], inner, f"{place}.{key}".lstrip("."))
                elif not isinstance(inner, Maybe):
                    raise ValueError(f"{place or 'it'} has no {key!r}")
        case list(), list():
            for number, item in enumerate(value):
                check_shape(item, shape[0], f"{place}[{number}]")
        case tuple(), list() if len(shape) == len(value):
            for number, (item, inner) in enumerate(zip(value, shape, strict=True)):
                check_shape(item, inner, f"{place}[{number}]")
        case _:
            if not isinstance(shape, dict | list | tuple) and _is_of(value, shape):
                return
            raise ValueError(f"{place or 'it'}: expected {_in_words(shape)}, got {shown(value)}")


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):  # which Python takes for an integer
        return kind in (bool, object) or bool in typing.get_args(kind)
    if isinstance(value, int):
        return abs(value) < 2**63 and (isinstance(value, kind) or isinstance(1.0, kind))
    if isinstance(value, float) and not math.isfinite(value):
        return False  # Python reads NaN and 1e999, which JSON does not have
    return isinstance(value, kind)


def _in_words(shape: Shape) -> str:
    words = {dict: "fields", list: "a list", str: "text", int: "an integer", float: "a number"}
    if isinstance(shape, tuple):
        return f"a list of {len(shape)}"
    if isinstance(shape, dict | list):
        shape = type(shape)
    return words.get(shape, getattr(shape, "__name__", str(shape)))


def require_own(
    flag: str, path: Path, shape: Shape, *, command: str, beside: Iterable[str] = ()
) -> None:
    """Refuses to replace files that are no earlier results of the same command.

    A command that writes several files writes its JSON first: by that the others are its own.

    Args:
        flag: That names the file, or its folder.
        path: Where the result is to go: JSON, or .jsonl with one value a line.
        shape: Of the result, or of each line.
        command: Its name.
        beside: Names, or patterns of names, of what the command writes into the same folder.

    Raises:
        InputError: If something else lies there.
    """
    if path.is_dir():
        raise InputError(f"{flag}: {str(path)!r} is a folder; name a file in it, .json")
    if not path.exists():
        for other in (other for pattern in beside for other in path.parent.glob(pattern)):
            raise InputError(
                f"{flag}: {str(other)!r} is there, and no {path.name} says that {command} wrote "
                "it; move it away, or give another --output"
            )
        return
    try:
        text = read_bounded(path).decode()
        for value in text.splitlines() if path.suffix == ".jsonl" else [text]:
            parse(value, shape)
    except (OSError, ValueError) as failure:
        raise InputError(
            f"{flag}: {str(path)!r} is there, and no earlier result of {command} ({failure}); move "
            "it away, or give another --output"
        ) from failure
