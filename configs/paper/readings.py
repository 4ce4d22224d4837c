"""What the paper leaves open, at the paper's scale, for one GPU: python -m jax_kdpr.study."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.trials import readings_study


def get_config() -> Study:
    """Returns the study."""
    return readings_study(
        presets.paper(),
        title="Open readings of the paper, Fashion-MNIST at 96 x 96",
        seeds=(0, 1, 2),
    )
