"""Our recipe without a teacher: one snapshot, error reduction before and after the network."""

from jax_kdpr.config import Config, Regime, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = Regime.E2E
    return presets.recipe(config)
