"""Versions of the packages that results depend on, read without importing them."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import jax_kdpr

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of this package and of those of `PACKAGES` that say theirs."""
    found = {"jax_kdpr": jax_kdpr.__version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
