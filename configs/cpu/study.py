"""The paper's tables and figures at CPU scale, three seeds: python -m jax_kdpr.study."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.grids import paper_study


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 6
    return paper_study(
        base, title="One shot and its teachers, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
