"""Classical solvers (`recovery.solvers`) on batches of scenes; the results are read as images."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.registry import allow, is_foreign
from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Image, Images, Intensities, Intensity, Keys
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import SceneOptions, image_beside, scene_field
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import (
    DEFAULTS,
    SOLVERS,
    amplitude_residual,
    random_start,
    solve,
)


class Refinement(NamedTuple):
    """Steps of a solver that follow the network; none by default."""

    steps: int = 0
    solver: str = "error_reduction"
    tv: float = 0.0  # weight of the total-variation prior, "accelerated" only


NO_REFINEMENT = Refinement()


class Solved(NamedTuple):
    """Results of a solver for a batch."""

    image: Images  # read beside a reference (`optics.objects.image_beside`)
    residual: Float[Array, "b"]  # relative misfit of the amplitudes


def solver_names(flag: str, names: list[str]) -> tuple[str, ...]:
    """Checks the value of a flag that lists solvers, each at most once.

    Raises:
        InputError: If one is unknown or comes twice.
    """
    for name in names:
        if is_foreign(name):
            allow(name)  # a solver that the user names may run
            try:
                SOLVERS[name]
            except InputError as failure:
                raise InputError(f"{flag}: {failure}") from failure
        elif name not in SOLVERS:
            raise InputError(f"{flag}: expected some of {', '.join(SOLVERS)}, got {name!r}")
    if len(set(names)) < len(names):
        raise InputError(f"{flag}: expected each solver once, got {','.join(names)}")
    return tuple(names)


def refine_image(
    image: Image, intensity: Intensity, optics: Optics, scene: SceneOptions, refinement: Refinement
) -> Image:
    """Brings one recovered image, in [0, 1], closer to its CDPs.

    The solver starts from the field of the image, and its result is read beside the image. The
    measurement holds neither global phase nor branch, so these stay as in the image. Without noise
    every step of error reduction helps. With noise, projections fit the noise as well, which a
    total-variation prior keeps in bounds (results/solvers).
    """
    field, _ = solve(
        intensity,
        optics,
        scene_field(image, scene),
        solver=refinement.solver,
        steps=refinement.steps,
        scene=scene.kind,
        min_amplitude=scene.min_amplitude,
        settings=Settings(tv=refinement.tv),
    )
    return jnp.clip(image_beside(field, image, scene), 0.0, 1.0)


def make_refine(
    camera: Camera, refinement: Refinement
) -> Callable[[Optics, Images, Intensities], Images]:
    """Builds refine(optics, images, intensities): `refine_image` for a batch."""

    def refine_one(optics: Optics, image, intensity):
        return refine_image(image, intensity, optics, camera.scene, refinement)

    return data_parallel(refine_one, camera.mesh)


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
        field, residual = solve(
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
        return Solved(image_beside(field, reference, scene), residual)

    return data_parallel(solve_one, camera.mesh)


def make_read(camera: Camera) -> Callable[[Optics, Fields, Intensities, Images], Solved]:
    """Builds read(optics, fields, intensities, references) -> `Solved` of fields as they are."""

    def read_one(optics: Optics, field, intensity, reference) -> Solved:
        residual = amplitude_residual(field, intensity, optics)
        return Solved(image_beside(field, reference, camera.scene), residual)

    return data_parallel(read_one, camera.mesh)


def make_random_starts(camera: Camera) -> Callable[[Optics, Keys, Intensities], Fields]:
    """Builds draw(optics, keys, intensities): a `recovery.solvers.random_start` for each CDP."""
    return data_parallel(lambda optics, key, y: random_start(key, y, optics), camera.mesh)
