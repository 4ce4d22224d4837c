"""The options of a run: their schema, the checks between them, and presets to begin with.

A config file needs `Config`, and perhaps `presets`.
"""

from jax_kdpr.config.schema import Config

__all__ = ["Config"]
