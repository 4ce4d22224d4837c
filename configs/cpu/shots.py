"""What closes the distance between one shot and nine, at CPU scale: python -m jax_kdpr.study."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.trials import shots_study


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps: to rank by, not the best that can be had
    base.data.test_images = 2000
    return shots_study(
        base, title="From one shot towards nine, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
