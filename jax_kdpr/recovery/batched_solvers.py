"""Solvers (`recovery.solvers`) on batches of scenes; the results are read as images."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Images, Intensities, Keys
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import image_beside
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import DEFAULTS, amplitude_misfit, random_start, solve


class Solved(NamedTuple):
    """Results of a solver for a batch."""

    image: Images  # read beside a reference (`optics.objects.image_beside`)
    misfit: Float[Array, "b"]  # `amplitude_misfit`


def make_solve(
    camera: Camera,
    *,
    solver: str,
    steps: int,
    constraint: str = "",
    support: Bool[np.ndarray, "h w"] | None = None,
    settings: Settings = DEFAULTS,
) -> Callable[[Optics, Fields, Intensities, Images], Solved]:
    """Builds solve(optics, starts, intensities, references) -> `Solved`.

    Each recovered field is read beside its reference: the true image, or the one that the start
    encodes. The reference gives what no measurement holds, the global phase and whole turns.

    Args:
        camera: Camera of the measurement; it gives the scene options and the mesh.
        solver: As in `recovery.solvers.solve`, like its `steps` and `settings`.
        constraint: What is known of the object, one of `recovery.solvers.CONSTRAINTS`; empty for
            the kind of the scene.
        support: Where an object may be other than zero; None for everywhere.
    """
    scene = camera.scene

    def solve_one(optics: Optics, start, intensity, reference) -> Solved:
        field, misfit = solve(
            intensity,
            optics,
            start,
            solver=solver,
            steps=steps,
            scene=constraint or scene.kind,
            min_amplitude=scene.min_amplitude,
            support=None if support is None else jnp.asarray(support),
            settings=settings,
        )
        return Solved(image_beside(field, reference, scene), misfit)

    return data_parallel(solve_one, camera.mesh)


def make_read(camera: Camera) -> Callable[[Optics, Fields, Intensities, Images], Solved]:
    """Builds read(optics, fields, intensities, references) -> `Solved` of fields as they are."""

    def read_one(optics: Optics, field, intensity, reference) -> Solved:
        misfit = amplitude_misfit(field, intensity, optics)
        return Solved(image_beside(field, reference, camera.scene), misfit)

    return data_parallel(read_one, camera.mesh)


def make_random_starts(camera: Camera) -> Callable[[Optics, Keys, Intensities], Fields]:
    """Builds draw(optics, keys, intensities): a `recovery.solvers.random_start` for each CDP."""
    return data_parallel(lambda optics, key, y: random_start(key, y, optics), camera.mesh)
