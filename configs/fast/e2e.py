"""One snapshot, recovered in a fraction of the time of `configs/cpu/e2e.py`, and better."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "e2e"
    return presets.fast(config)
