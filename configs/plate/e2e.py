"""`configs/bench_consistent/e2e.py` for a mask of glass, which no modulator shows.

For a mask that exists add --config.masks.start=file --config.masks.file=mask.npy and
--config.masks.trained=False (`import_mask` makes the file from a measured map of the plate).
"""

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.bench(presets.quickstart(), modulator=False)
    config.regime = "e2e"
    config.spectral.consistency_steps = presets.CONSISTENCY_STEPS
    return config
