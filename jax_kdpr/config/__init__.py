"""The options of a run: all of them together, what must hold between them, and where to begin.

A config file needs `Config`, and perhaps `presets`.
"""

from jax_kdpr.config.schema import Config

__all__ = ["Config"]
