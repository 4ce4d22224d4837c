"""What a teacher can give its student, at CPU scale: python -m jax_kdpr.study."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.trials import distillation_study


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps: to rank by, not the best that can be had
    base.data.test_images = 2000
    return distillation_study(
        base, title="What a teacher can give, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
