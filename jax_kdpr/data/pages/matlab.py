"""Reads a variable of a MATLAB file (.mat) as pages.

In MATLAB the third axis counts the images: [h w] is one, [h w n] are n. This holds where n is 3,
too: colours are not read. Files of all versions are read, those of `save -v7.3`, which are HDF5,
with their axes in MATLAB's order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import io

from jax_kdpr.data.pages.page import Pages, Refused, require_page
from jax_kdpr.data.pages.stacks import require_all_there

MATLAB = (".mat",)
NUMBERS = (
    *("single", "double", "logical"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
Shapes = dict[str, tuple[int, ...]]


@contextmanager
def open_matlab(path: Path, variable: str) -> Iterator[Pages]:
    """Opens one variable, by default the only one of several rows and columns.

    Raises:
        Exception: Of any kind, on opening or in `read`, if the file is damaged or unusual.
    """
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            items = {name: one for name, one in file.items() if isinstance(one, h5py.Dataset)}
            shapes = {k: one.shape[::-1] for k, one in items.items() if _class_of(one) in NUMBERS}
            name = _chosen(shapes, variable, path)
            item = items[name]
            require_all_there(item)
            yield _pages(shapes[name], lambda at: item[at].T, name)
        return
    listed: Any = io.whosmat(path)
    shapes = {name: shape for name, shape, kind in listed if kind in NUMBERS}
    name = _chosen(shapes, variable, path)
    array = np.moveaxis(np.atleast_3d(io.loadmat(path, variable_names=[name])[name]), -1, 0)
    yield _pages(shapes[name], lambda at: array[at if at != () else 0], name)


def _class_of(item: h5py.Dataset) -> str:
    named = item.attrs.get("MATLAB_class", b"")
    return "" if "MATLAB_empty" in item.attrs else bytes(named).decode()


def _chosen(shapes: Shapes, variable: str, path: Path) -> str:
    """Returns the name of the variable to read; MATLAB's scalars and vectors have two axes, too."""
    there = [name for name, shape in shapes.items() if sum(side > 1 for side in shape) >= 2]
    if variable and variable not in shapes:
        raise Refused(f"no variable {variable!r} of numbers; it has {', '.join(shapes) or 'none'}")
    if not variable and len(there) != 1:
        raise Refused(
            f"expected one variable of several rows and columns, got {', '.join(there) or 'none'}; "
            f"name it, such as '{path.name}::frames'"
        )
    return variable or there[0]


def _pages(shape: tuple[int, ...], take: Any, name: str) -> Pages:
    if len(shape) not in (2, 3):
        raise Refused(
            f"expected one image [h w] or a stack [h w n], got {name} of shape {shape}; save it as "
            "that"
        )
    require_page(*shape[:2])
    if len(shape) == 2:
        return Pages(1, lambda _: np.ascontiguousarray(take(())), dataset=name)
    return Pages(shape[2], lambda number: np.ascontiguousarray(take(number)), dataset=name)
