"""How much to listen to a teacher, and in which form, at CPU scale: python -m jax_kdpr.study."""

from jax_kdpr import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.trials import weights_study


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 5
    return weights_study(base, title="Loss weights, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2))
