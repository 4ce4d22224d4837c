"""The paper's tables and figures at CPU scale, three seeds: python -m jax_kdpr.study."""

from pathlib import Path
from runpy import run_path

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study

SHARED = run_path(str(Path(__file__).parents[1] / "studies" / "paper.py"))


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 6
    return SHARED["paper_study"](
        base, title="One shot and its teachers, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
