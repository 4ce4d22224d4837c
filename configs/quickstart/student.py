"""Student: one snapshot, guided by a teacher (--config.distill.teacher=RUN_DIR)."""

from jax_kdpr import presets
from jax_kdpr.config import Config, Regime


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.quickstart()
    config.regime = Regime.STUDENT
    config.loss.alpha = 0.999
    config.loss.beta = 0.0005
    return config
