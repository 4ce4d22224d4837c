"""Makes flags from a section of options (`core.options`), declared once, beside its reader."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from absl import flags

from jax_kdpr.core.options import described

T = TypeVar("T")
DEFINE: dict[type, Any] = {
    **{bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float},
    **{str: flags.DEFINE_string, tuple: flags.DEFINE_list, type(None): flags.DEFINE_float},
}
DEFINE_ENUM: Any = flags.DEFINE_enum


def declarations(section: Any, *, texts: tuple[str, ...] = ()) -> Iterator[Callable[[], object]]:
    """Yields a function for each option that defines its flag; those in `texts` become text flags.

    The module that the flags belong to must call these functions.
    """
    for name, about in described(section).items():
        default = list(about.value) if isinstance(about.value, tuple) else about.value
        if about.choices:
            yield partial(DEFINE_ENUM, name, default or None, [*about.choices], about.says)
        elif name in texts:
            yield partial(flags.DEFINE_string, name, "", about.says)
        else:
            yield partial(DEFINE[type(about.value)], name, default, about.says)


def read(section: T, **values: Any) -> T:
    """Returns the section that the flags ask for, with `values` in place of some of them.

    Args:
        section: The section with its defaults.
        values: Values of the options whose flags are texts.
    """
    for name, about in described(section).items():
        value = values.get(name, flags.FLAGS[name].value)
        values[name] = about.value if value is None else value
        if isinstance(value, list):
            values[name] = tuple(value)
    return type(section)(**values)
