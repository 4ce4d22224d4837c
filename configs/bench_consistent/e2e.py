"""`configs/bench/e2e.py` with error reduction before the network, as much as its light allows.

Gated steps after the network (`presets.recipe`) lose 0.7 dB again with this camera and these errors
of alignment (`configs/bench/study.py`).
"""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.bench(presets.quickstart())
    config.regime = "e2e"
    config.spectral.consistency_steps = presets.CONSISTENCY_STEPS
    return config
