"""Our recipe's teacher: four snapshots, error reduction before and after the network."""

from jax_kdpr.config import Config, Regime, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = Regime.TEACHER
    config.masks.snapshots = 4
    return presets.recipe(config)
