"""What the limits of devices cost, at CPU scale: python -m jax_kdpr.study."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.trials import bench_study


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps: to rank by, not the best that can be had
    base.data.test_images = 2000
    return bench_study(
        base, title="Limits of the devices, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
