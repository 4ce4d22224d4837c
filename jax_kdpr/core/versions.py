"""Versions of the packages that results depend on, read without importing them."""

from importlib.metadata import version

import jax_kdpr

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of this package and of `PACKAGES`."""
    return {"jax_kdpr": jax_kdpr.__version__} | {package: version(package) for package in PACKAGES}
