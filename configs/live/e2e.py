"""One snapshot, recovered as well as a camera with 30 frames a second leaves time for."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "e2e"
    return presets.live(config)
