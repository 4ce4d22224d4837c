"""Student: one snapshot, guided by a teacher (--config.distill.teacher=RUN_DIR)."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    return presets.student(presets.cpu())
