"""The options of a run: their declaration, what must hold between them, and presets to start from.

A config file needs `Config`, the words that its options take, and perhaps `presets`.
"""

from jax_kdpr.config.schema import Config
from jax_kdpr.core.choices import (
    Fit,
    Gauge,
    NoiseKind,
    Norm,
    Precision,
    PropagationKind,
    Regime,
    Regulariser,
    SceneKind,
    Schedule,
    Source,
    StudentStart,
    TargetMode,
    Unit,
    Weights,
)

__all__ = [
    "Config",
    "Fit",
    "Gauge",
    "NoiseKind",
    "Norm",
    "Precision",
    "PropagationKind",
    "Regime",
    "Regulariser",
    "SceneKind",
    "Schedule",
    "Source",
    "StudentStart",
    "TargetMode",
    "Unit",
    "Weights",
]
