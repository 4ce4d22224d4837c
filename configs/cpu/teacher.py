"""Teacher: nine snapshots, trained end to end."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "teacher"
    config.masks.snapshots = 9
    return config
