"""Our recipe's second training: it starts where its teacher, of one shot or four, ended.

Give the teacher's run with --config.distill.teacher=RUN_DIR.
"""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "student"
    return presets.recipe(config)
