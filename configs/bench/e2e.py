"""E2E on a bench: an 8-bit modulator, a 12-bit camera, errors of alignment; procedural scenes."""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.bench(presets.quickstart())
    config.regime = "e2e"
    return config
