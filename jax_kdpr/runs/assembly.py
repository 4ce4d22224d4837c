"""Cameras and systems of a config."""

from jax.sharding import Mesh

from jax_kdpr.config.schema import Config, camera_arguments, recovery_arguments
from jax_kdpr.optics.camera import make_camera
from jax_kdpr.recovery.system import System, make_system


def build_system(config: Config, *, mesh: Mesh | None = None) -> System:
    """Builds the camera of a config and the system that recovers from its shots.

    Args:
        config: Validated.
        mesh: Devices to spread a batch over; None for one device.
    """
    camera = make_camera(**camera_arguments(config), mesh=mesh)
    return make_system(camera, **recovery_arguments(config))
