"""A solver (`recovery.solvers`) that brings a recovered image closer to its CDPs."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Image, Images, Intensities, Intensity
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import SceneOptions, image_beside, scene_field
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import solve


class Refinement(NamedTuple):
    """Steps of a solver that follow the network; none by default."""

    steps: int = 0
    solver: str = "error_reduction"
    tv: float = 0.0  # weight of the total-variation prior, "accelerated" only


NO_REFINEMENT = Refinement()


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
