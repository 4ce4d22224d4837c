"""Random: one snapshot; mask and filter stay as they were drawn, only the network is trained."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "random"
    return config
