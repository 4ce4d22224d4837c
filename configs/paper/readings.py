"""The paper's open points, at the paper's scale, for one GPU: python -m jax_kdpr.study."""

from pathlib import Path
from runpy import run_path

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study

SHARED = run_path(str(Path(__file__).parents[1] / "studies" / "readings.py"))


def get_config() -> Study:
    """Returns the study."""
    return SHARED["readings_study"](
        presets.paper(),
        title="Open readings of the paper, Fashion-MNIST at 96 x 96",
        seeds=(0, 1, 2),
    )
