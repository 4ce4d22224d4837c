"""Reads a variable of a MATLAB file (.mat) as pages.

In MATLAB the third axis counts the images: [h w] is one, [h w n] are n. This holds where n is 3,
too: colours are not read. [h w n] that looks like [n h w] is refused; [h w 1 n] cannot be misread.
Files of all versions are read, those of `save -v7.3`, which are HDF5, with MATLAB's order of axes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import io

from jax_kdpr.data.pages.page import Pages, Refused, require_page
from jax_kdpr.data.pages.stacks import may_be_last, require_all_there

MATLAB = (".mat",)
NUMBERS = (
    *("single", "double", "logical"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
SAVE = "save the numbers alone, such as cat(3, x{:}) of a cell array or a field of a struct"
Shapes = dict[str, tuple[int, ...]]


@contextmanager
def open_matlab(path: Path, variable: str) -> Iterator[Pages]:
    """Opens one variable, by default the only one of several rows and columns.

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            items = {name: item for name, item in file.items() if not name.startswith("#")}
            kinds = {name: _class_of(item) for name, item in items.items()}
            shapes = {name: getattr(item, "shape", ())[::-1] for name, item in items.items()}
            name = _chosen(kinds, shapes, variable, path)
            item: Any = items[name]
            require_all_there(item)
            yield _pages(shapes[name], lambda at: item[at].T, name)
        return
    listed: Any = io.whosmat(path)
    kinds = {name: kind for name, _, kind in listed}
    shapes = {name: shape for name, shape, _ in listed}
    name = _chosen(kinds, shapes, variable, path)

    @cache
    def array() -> np.ndarray:
        return io.loadmat(path, variable_names=[name])[name].T  # the axes are as in HDF5

    yield _pages(shapes[name], lambda at: array()[at].T, name)


def _class_of(item: h5py.Dataset | h5py.Group) -> str:
    if "MATLAB_sparse" in item.attrs:
        return "sparse"
    if "MATLAB_class" not in item.attrs:  # written by another program
        return "single" if isinstance(item, h5py.Dataset) and item.dtype.kind in "uif" else "struct"
    named: Any = item.attrs["MATLAB_class"]
    return named if isinstance(named, str) else bytes(named).decode()


def _chosen(kinds: dict[str, str], shapes: Shapes, variable: str, path: Path) -> str:
    """Returns the name of the variable to read; MATLAB's scalars and vectors have two axes, too."""
    if variable:
        if variable not in kinds:
            raise Refused(f"no variable {variable!r}; it has {', '.join(kinds) or 'none'}")
        if (kind := kinds[variable]) not in NUMBERS:
            raise Refused(f"expected an array of numbers, got {variable!r} of class {kind}; {SAVE}")
        return variable
    large = {name: sum(side > 1 for side in shape) >= 2 for name, shape in shapes.items()}
    there = [name for name, kind in kinds.items() if kind in NUMBERS and large[name]]
    if len(there) == 1:
        return there[0]
    if not there:
        others = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "nothing"
        raise Refused(f"expected an array of several rows and columns, got {others}; {SAVE}")
    raise Refused(
        f"expected one array of several rows and columns, got {', '.join(there)}; name it, such as "
        f"'{path.name}::{there[0]}'"
    )


def _pages(shape: tuple[int, ...], take: Callable[[Any], np.ndarray], name: str) -> Pages:
    if len(shape) not in (2, 3) and not (len(shape) == 4 and shape[2] == 1):
        raise Refused(
            f"expected one image [h w] or a stack [h w n], got {name} of shape {shape}; squeeze or "
            "reshape it to that"
        )
    require_page(*shape[:2])
    if len(shape) == 2:
        return Pages(1, lambda _: np.ascontiguousarray(take(())), dataset=name)
    if len(shape) == 3 and may_be_last(*shape[::-1]):
        raise Refused(
            f"shape {shape} of {name} may be [h w n] or [n h w]; save it as [h w 1 n], with "
            "reshape(x, h, w, 1, n), or permute(x, [2 3 4 1]) if its first axis counts the images"
        )
    page = (lambda number: (number, 0)) if len(shape) == 4 else lambda number: number
    return Pages(shape[-1], lambda number: np.ascontiguousarray(take(page(number))), dataset=name)
