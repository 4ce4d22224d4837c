"""Teacher: nine snapshots, trained end to end."""

from jax_kdpr.config import Config, Regime, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = Regime.TEACHER
    config.masks.snapshots = 9
    return config
