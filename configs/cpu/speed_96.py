"""PSNR against the time of a frame, at the paper's size and network: python -m jax_kdpr.study."""

from pathlib import Path
from runpy import run_path

from jax_kdpr.config import Config, presets
from jax_kdpr.studies.declaration import Study

SHARED = run_path(str(Path(__file__).parents[1] / "studies" / "speed.py"))


def get_config() -> Study:
    """Returns the study."""
    base = presets.cpu()
    base.data.size = 96
    base.net.widths = Config().net.widths
    base.data.train_images, base.data.validation_images = 2000, 200
    base.data.test_images = 500
    base.train.batch_size, base.train.epochs = 8, 1  # 250 steps: only to compare systems
    return SHARED["speed_study"](
        base,
        title="PSNR for the time of a frame, Fashion-MNIST at 96 x 96",
        seeds=(0, 1, 2),
        only=("full", "residual-10", "residual-quarter-10", "residual-10-10"),
    )
