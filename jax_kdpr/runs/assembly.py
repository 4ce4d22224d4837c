"""Builds the camera and the system of a config."""

from copy import copy

import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.config.schema import Config
from jax_kdpr.core.types import Phases
from jax_kdpr.optics.beam import Plane, read_beam
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.recovery.system import System


def build_camera(config: Config, *, mesh: Mesh | None = None) -> Camera:
    """Builds the camera of a validated config; it spreads batches over the devices of `mesh`.

    Raises:
        InputError: If a file of its beam cannot be used.
    """
    return Camera(
        size=config.data.size,
        oversample=config.masks.oversample,
        scene=copy(config.scene),  # later changes of the config leave the camera as it is
        device=copy(config.device),
        mount=copy(config.mount),
        grid=copy(config.sensor),
        propagation=copy(config.propagation),
        beam=read_beam(copy(config.illumination), copy(config.aberrations), size=config.data.size),
        jitter=copy(config.jitter),
        noise=copy(config.noise),
        mesh=mesh,
    )


def read_planes(config: Config) -> dict[str, Plane]:
    """Reads the files that a config names for its optics.

    Returns:
        {section of the config: content of its file}; masks are [k h w] in radians.

    Raises:
        InputError: If one of them cannot be used.
    """
    size, planes = config.data.size, {}
    if config.masks.start == "file":
        phases = read_phases(
            "masks.file", config.masks.file, size=size, snapshots=config.masks.snapshots
        )
        planes["masks"] = Plane.of(phases)
    beam = read_beam(config.illumination, config.aberrations, size=size)
    return planes if beam is None else planes | beam.planes


def start_phases(config: Config, drawn: Phases, planes: dict[str, Plane]) -> Phases:
    """Returns the masks that a config starts from: those drawn, flat ones, or those of a file."""
    if config.masks.start == "flat":
        return jnp.zeros_like(drawn)
    return jnp.asarray(planes["masks"].values) if "masks" in planes else drawn


def build_system(config: Config, *, mesh: Mesh | None = None) -> System:
    """Builds the camera of a validated config and the system that recovers from its shots."""
    return System(
        camera=build_camera(config, mesh=mesh),
        snapshots=config.masks.snapshots,
        spectral=copy(config.spectral),
        net=copy(config.net),
    )
