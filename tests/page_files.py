"""Files of pages, and what the reader makes of them."""

import h5py
import numpy as np
from helpers import rejection
from scipy.io import savemat

from jax_kdpr.data.pages.opening import open_pages


def pages_of(path) -> list[np.ndarray]:
    name, _, dataset = str(path).partition("::")
    with open_pages(type(path)(name), dataset) as pages:
        return [pages.read(page) for page in range(pages.count)]


def refused(path) -> str:
    message = rejection(pages_of, path)
    assert path.name.partition("::")[0] in message
    return message


def hdf5(*shape, written=None, **options):
    """Writes a dataset of a shape, of which `written` has so many frames of ones."""

    def write(path):
        with h5py.File(path, "w") as file:
            made = file.create_dataset("d", shape, "u2", **options)
            if written:
                made[:written] = 1

    return write


def save_hdf5(path, array, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=array, **options)


def matlab(**variables):
    how = {name: variables.pop(name) for name in ("do_compression", "format") if name in variables}
    return lambda path: savemat(path, variables, **how)
