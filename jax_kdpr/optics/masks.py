"""Phase masks: their random start and the regularisers R(phi) of eq. 4 and 7.

Every regulariser is a mean over mask pixels (or neighbour pairs), so its weight rho means the same
at any mask size and number of snapshots.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import Key, Phases, Scalar


def init_phases(key: Key, *, snapshots: int, height: int, width: int) -> Phases:
    """Draws masks with independent phases, uniform in [0, 2 pi) radians."""
    return jax.random.uniform(key, (snapshots, height, width), maxval=2 * np.pi)


def wrap_phases(phases: Phases) -> Phases:
    """Returns the same masks with every phase in [0, 2 pi) radians."""
    wrapped = jnp.mod(phases, 2 * np.pi)
    return jnp.where(wrapped >= 2 * np.pi, 0.0, wrapped)  # a tiny negative phase rounds to 2 pi


def range_penalty(phases: Phases) -> Scalar:
    """Returns the mean squared distance, in rad^2, of phases from the paper's interval [0, 2 pi].

    It is zero inside the interval. The optics only sees phases modulo 2 pi: the penalty keeps the
    stored numbers in the range that the paper states, but does not change what a mask can do.
    """
    below = jnp.minimum(phases, 0.0)
    above = jnp.maximum(phases - 2 * np.pi, 0.0)
    return jnp.mean(jnp.square(below) + jnp.square(above))


def smoothness_penalty(phases: Phases) -> Scalar:
    """Returns the mean of (1 - cos(difference)) / 2 over horizontal and vertical neighbours.

    It is blind to 2 pi wraps, 0 for a flat mask, and 1 when every neighbour differs by pi. Masks do
    not wrap around their edges.
    """
    vertical = 1.0 - jnp.cos(jnp.diff(phases, axis=1))
    horizontal = 1.0 - jnp.cos(jnp.diff(phases, axis=2))
    pairs = vertical.size + horizontal.size
    return (jnp.sum(vertical) + jnp.sum(horizontal)) / (2.0 * pairs)


def no_penalty(phases: Phases) -> Scalar:
    """Returns zero."""
    return jnp.zeros((), phases.dtype)


REGULARISERS: Registry[Callable[[Phases], Scalar]] = Registry(
    "regulariser", {"none": no_penalty, "range": range_penalty, "smoothness": smoothness_penalty}
)


@section
class MaskOptions:
    """Masks, and the operator that they are part of."""

    snapshots: int = option(
        1, "L: shots of each object, each through its own mask", within=Range(1, 4096)
    )
    oversample: int = option(1, "zero padding of the operator", within=Range(1, 2))
    start: str = option(
        "random",
        "masks before training; file: the masks of masks.file",
        choices=("random", "flat", "file"),
    )
    file: str = option(
        "",
        "masks that exist: phases in radians (floats), or a mask file with its sidecar",
        when=("masks.start", ("file",)),
    )
    trained: bool = option(
        True,
        "train the masks; if false, only filter and network are trained",
        when=("regime", ("teacher", "e2e", "student")),
    )
    regulariser: str = option(
        "range",
        "mask penalty of weight loss.rho; range: the paper's [0, 2 pi]",
        choices=REGULARISERS,
    )
