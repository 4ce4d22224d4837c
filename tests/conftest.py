"""For every test: no silent rank promotion, four CPU devices to shard over, a trained teacher."""

import os
import signal
import tarfile
import tempfile
from pathlib import Path

from compiling import QUICKLY_COMPILED

# Tests train the same tiny systems many times over: each program is compiled once a session.
# The processes that pytest-xdist starts inherit the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax_kdpr_tests_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
if "cuda" not in os.environ.get("JAX_PLATFORMS", ""):
    os.environ["XLA_FLAGS"] = f"{QUICKLY_COMPILED} --xla_force_host_platform_device_count=4"

import golden
import jax
import numpy as np
import pytest
from helpers import image_config
from PIL import Image

from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.evaluation import scoring
from jax_kdpr.lab.masks.export import export_masks
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run, restore
from jax_kdpr.training import loop

pytest_plugins = ("recorded_studies",)  # its fixtures

# Tests that were started in the background (nohup) ignore Ctrl-C, and so would what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
    for number, image in enumerate(np.asarray(draw_scenes(jax.random.key(0), count=80, size=16))):
        Image.fromarray((255 * image).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """The folder of the runs of `golden.py`: of each kind one that is trained and scored."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(golden.RECORD) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def undrawn():
    """No figures of runs that are scored: each takes as long as the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring.pictures, "plot_run", lambda _, path, **__: path.touch())
        yield


@pytest.fixture(scope="session")
def teacher(image_folder, tmp_path_factory):
    """Run folder of a teacher of three snapshots, trained on them."""
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    config = image_config(image_folder, masks__snapshots=3)
    config.regime, config.distill.draws = "teacher", "shared"
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def designed(recorded) -> Path:
    """Run folder of a teacher of three snapshots that was trained once for all sessions."""
    return recorded / "teacher"


@pytest.fixture(scope="session")
def trained(designed) -> Run:
    """That teacher, restored."""
    return restore(designed, run_folder.read_config(designed))


@pytest.fixture(scope="session")
def phases(trained) -> np.ndarray:
    """Its masks."""
    return np.asarray(trained.variables[0]["phases"])


@pytest.fixture
def export(trained, phases, tmp_path):
    """export(format, **options) -> files of its three masks."""

    def write(format="slm", output=tmp_path, **options) -> list[Path]:
        plan = plan_export(MaskFormat(format=format, **options), trained.config)
        return list(export_masks(plan, phases, trained, output=output))

    return write
