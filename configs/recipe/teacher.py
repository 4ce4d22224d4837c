"""Our recipe's teacher: four snapshots, error reduction before and after the network."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "teacher"
    config.masks.snapshots = 4
    return presets.recipe(config)
