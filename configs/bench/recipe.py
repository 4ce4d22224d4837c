"""`configs/bench/e2e.py` with error reduction before and after the network: our recipe's E2E."""

from jax_kdpr import presets
from jax_kdpr.config import Config, Regime


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.bench(presets.quickstart())
    config.regime = Regime.E2E
    return presets.recipe(config)
