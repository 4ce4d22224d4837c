"""Does a teacher's guidance help its student, at CPU scale: python -m jax_kdpr.study."""

from pathlib import Path
from runpy import run_path

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Study

SHARED = run_path(str(Path(__file__).parents[1] / "studies" / "guidance.py"))


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.net.widths = (8, 16, 32, 64)  # half the time, as there are 135 runs
    base.train.epochs = 6
    base.train.validate_every = 3
    base.data.test_images = 2000
    return SHARED["guidance_study"](
        base, title="Does guidance help? Fashion-MNIST at 32 x 32", seeds=(0, 1, 2)
    )
