"""One snapshot, recovered better than by `configs/cpu/e2e.py`, in a fraction of its time."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "e2e"
    return presets.fast(config)
