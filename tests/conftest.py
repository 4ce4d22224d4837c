"""For every test: no silent rank promotion, four CPU devices to shard over, a trained teacher."""

import os
import tempfile

# Tests train the same tiny systems many times over: each program is compiled once a session.
# The processes that pytest-xdist starts inherit the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax_kdpr_tests_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax
import numpy as np
import pytest
from helpers import image_config
from PIL import Image

from jax_kdpr import checkpoint
from jax_kdpr.config import Regime
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.training import loop

checkpoint.quiet_logs()
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision inside one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Images on disk: unlike procedural scenes they are the same in every epoch."""
    folder = tmp_path_factory.mktemp("images")
    images = np.asarray(draw_scenes(jax.random.key(0), count=80, size=16))
    images = images if images.dtype == np.uint8 else (255 * images).astype(np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def teacher(image_folder, tmp_path_factory):
    """Run folder of a teacher of three snapshots, trained on them."""
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    config = image_config(image_folder, masks__snapshots=3)
    config.regime = Regime.TEACHER
    loop.train(config, workdir)
    return workdir
