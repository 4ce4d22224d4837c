"""Classical solvers (`recovery.solvers`) on batches of a run's scenes, read as images."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Images, Intensities, Keys, Params
from jax_kdpr.optics.camera import Camera, Optics
from jax_kdpr.optics.objects import image_beside
from jax_kdpr.recovery.solvers import BETA, SOLVERS, amplitude_residual, random_start, solve


class Refinement(NamedTuple):
    """Steps of a solver that follow the network; none by default."""

    steps: int = 0
    solver: str = "error_reduction"
    tv: float = 0.0  # weight of the total-variation prior, "accelerated" only


NO_REFINEMENT = Refinement()


class Solved(NamedTuple):
    """What a solver made of a batch."""

    image: Images  # read beside a reference (`optics.objects.image_beside`)
    residual: Float[Array, "b"]  # relative misfit of the amplitudes


def solver_names(flag: str, names: list[str]) -> tuple[str, ...]:
    """Checks the value of a flag that lists solvers, each at most once.

    Raises:
        InputError: If one is unknown or comes twice.
    """
    for name in names:
        if name not in SOLVERS:
            raise InputError(f"{flag}: expected some of {', '.join(SOLVERS)}, got {name!r}")
    if len(set(names)) < len(names):
        raise InputError(f"{flag}: expected each solver once, got {','.join(names)}")
    return tuple(names)


def make_solve(
    camera: Camera,
    *,
    solver: str,
    steps: int,
    constraint: str = "",
    support: Bool[np.ndarray, "h w"] | None = None,
    beta: float = BETA,
    tv: float = 0.0,
) -> Callable[[Params, Fields, Intensities, Images], Solved]:
    """Builds solve(params, starts, intensities, references) -> `Solved`.

    Each recovered field is read beside its reference, from which it takes what no measurement
    holds, global phase and whole turns: the true image, or the one that the start encodes.

    Args:
        camera: That measured; it gives optics, scenes and devices.
        solver: With its `steps`, `beta` and `tv`: see `recovery.solvers.solve`.
        constraint: What is known of the object, one of `recovery.solvers.CONSTRAINTS`; empty for
            the kind of the scene.
        support: Where an object may be other than zero; None for everywhere.
    """
    scene = camera.scene
    known = {"scene": constraint or scene["kind"], "min_amplitude": scene["min_amplitude"]}

    def solve_one(optics: Optics, start, intensity, reference) -> Solved:
        field, residual = solve(
            intensity,
            optics.masks,
            start,
            transfer=optics.transfer,
            solver=solver,
            steps=steps,
            beta=beta,
            tv=tv,
            support=None if support is None else jnp.asarray(support),
            **known,
        )
        return Solved(image_beside(field, reference, **scene), residual)

    batched = data_parallel(solve_one, camera.mesh)
    return lambda params, *samples: batched(camera.optics(params["phases"]), *samples)


def make_refine(
    camera: Camera, refinement: Refinement
) -> Callable[[Params, Images, Intensities], Images]:
    """Builds refine(params, images, intensities): brings recovered images closer to their CDPs.

    The solver starts from the field of each image, beside which its answer is read. Without noise
    every step of error reduction helps; of a noisy measurement projections fit the noise as well,
    which a total-variation prior keeps in bounds (results/solvers).
    """
    solve = make_solve(camera, solver=refinement.solver, steps=refinement.steps, tv=refinement.tv)

    def refine(params: Params, images: Images, intensities: Intensities) -> Images:
        solved = solve(params, camera.encode(images), intensities, images)
        return jnp.clip(solved.image, 0.0, 1.0)

    return refine


def make_read(camera: Camera) -> Callable[[Params, Fields, Intensities, Images], Solved]:
    """Builds read(params, fields, intensities, references) -> `Solved` of fields as they are."""

    def read_one(optics: Optics, field, intensity, reference) -> Solved:
        residual = amplitude_residual(field, intensity, optics.masks, transfer=optics.transfer)
        return Solved(image_beside(field, reference, **camera.scene), residual)

    batched = data_parallel(read_one, camera.mesh)
    return lambda params, *samples: batched(camera.optics(params["phases"]), *samples)


def make_random_starts(camera: Camera) -> Callable[[Params, Keys, Intensities], Fields]:
    """Builds draw(params, keys, intensities): a `recovery.solvers.random_start` for each CDP."""
    batched = data_parallel(lambda masks, key, y: random_start(key, y, masks), camera.mesh)
    return lambda params, *samples: batched(camera.optics(params["phases"]).masks, *samples)
