"""Our recipe's second training: starts as its teacher, of one shot or four, ended.

Give that run with --config.distill.teacher=RUN_DIR.
"""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "student"
    return presets.recipe(config)
