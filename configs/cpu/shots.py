"""What closes the distance between one shot and nine, at CPU scale: python -m jax_kdpr.study."""

from pathlib import Path
from runpy import run_path

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study

SHARED = run_path(str(Path(__file__).parents[1] / "studies" / "shots.py"))


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps: enough to rank systems, but not the best they can reach
    base.data.test_images = 2000
    return SHARED["shots_study"](
        base, title="From one shot towards nine, Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
