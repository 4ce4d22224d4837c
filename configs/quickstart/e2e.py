"""E2E baseline: one snapshot, everything trained, no teacher."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.quickstart()
    config.regime = "e2e"
    return config
