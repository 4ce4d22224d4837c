"""Our recipe without a teacher: one snapshot, error reduction before and after the network."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "e2e"
    return presets.recipe(config)
