"""One snapshot, recovered as well as a camera's 30 frames a second leave time for."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "e2e"
    return presets.live(config)
