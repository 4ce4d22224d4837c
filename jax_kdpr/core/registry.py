"""Registries of the code that options choose: ours by name, foreign as "package.module:name".

An option that chooses code (a network, a noise model, a propagator) has a `Registry`. A new item is
one more line of its dictionary, or an object in a package of the user's own. A run folder that
names such foreign code is opened only after `allow` was called for it, so that the run folder of a
stranger cannot execute code.
"""

import difflib
import hashlib
import importlib
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from jax_kdpr.core.errors import InputError

T = TypeVar("T")
FOREIGN = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
_allowed: set[str] = set()  # packages, and single foreign names


class Registry(Generic[T]):
    """The items that one option may choose from."""

    def __init__(self, what: str, items: Mapping[str, T | str]):
        """Takes items by name: the code itself, or "module:name", which is imported on demand.

        `what` says in one word what the items are, for messages.
        """
        self._what = what
        self._items = dict(items)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of our own items."""
        return iter(self._items)

    def __getitem__(self, name: str) -> T:
        """Returns the code of a name.

        Raises:
            InputError: If no item has that name, it cannot be imported, or it is foreign and
                neither it nor its package was allowed.
        """
        item = self._items.get(name, name)
        if not isinstance(item, str):
            return item
        if name not in self._items:
            if not is_foreign(name):
                raise InputError(f"{self._what}: expected one of {', '.join(self)}, got {name!r}")
            if not {name, package(name)} & _allowed:
                raise InputError(
                    f"{name} is code of another package: give --allow_code {package(name)}, or "
                    f'allow_code="{package(name)}" in Python, if you trust it'
                )
        module, _, attribute = item.partition(":")
        try:
            found = importlib.import_module(module)
        except ImportError as failure:
            raise InputError(f"{name}: {failure}; is its package on the path?") from failure
        if not hasattr(found, attribute):
            near = difflib.get_close_matches(attribute, dir(found), n=1)
            hint = f"did you mean {module}:{near[0]}?" if near else f"see {found.__file__}"
            raise InputError(f"{name}: no {attribute} in {module}; {hint}")
        return cast(T, getattr(found, attribute))


def is_foreign(name: Any) -> bool:
    """Returns whether a value names foreign code, as "package.module:name"."""
    return isinstance(name, str) and FOREIGN.fullmatch(name) is not None


def allow(given: str | Iterable[str]) -> None:
    """Allows this process to import foreign code that configs name.

    Args:
        given: Packages, all of whose code is allowed, or single items, "package.module:name".
    """
    names = (given,) if isinstance(given, str) else given
    _allowed.update(name if is_foreign(name) else package(name) for name in names)


@contextmanager
def blaming(names: Iterable[str]) -> Iterator[None]:
    """Reports in one line what the context raises, if foreign code runs in it.

    Args:
        names: Names of the code that runs inside. If none is foreign, exceptions pass through.

    Raises:
        InputError: For any other exception; names the last place in its traceback that is neither
            in a library nor in this package.
    """
    given = sorted(filter(is_foreign, names))
    try:
        yield
    except InputError:
        raise
    except Exception as failure:
        if not given:
            raise
        ours = str(Path(__file__).parents[1])
        theirs = [
            f" ({frame.filename}, line {frame.lineno})"
            for frame in traceback.extract_tb(failure.__traceback__)
            if not frame.filename.startswith(ours) and "site-packages" not in frame.filename
        ]
        said = str(failure).strip().split("\n")[0]
        raise InputError(
            f"{', '.join(given)}: raised {type(failure).__name__}: {said}{(theirs or [''])[-1]}; "
            "mend it, or see docs/extend/own_code.md"
        ) from failure


def sources_of(names: Iterable[str]) -> dict[str, str]:
    """Returns {module: digest of its file} of foreign code; without modules that have no file."""
    modules = {name.partition(":")[0] for name in names if is_foreign(name)} - {"__main__"}
    files = {name: getattr(importlib.import_module(name), "__file__", None) for name in modules}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in sorted(files.items())
        if file and Path(file).is_file()
    }


def package(name: str) -> str:
    """Returns the top-level package of a foreign name or of a module."""
    return re.split(r"[.:]", name)[0]
