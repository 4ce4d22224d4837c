"""Runs of each kind as a commit left them: what later code must open, and give again.

`python tests/golden.py` trains and scores them and writes tests/data/runs.tar.xz, which
`test_golden.py` reads. That is done once: a record made anew guards nothing. With a FILE it writes
another one, to compare: on one machine the checkpoint digests in metrics.json are the same.
"""

import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

# How the record was compiled, without which a run has other bits.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from jax_kdpr.config import presets
from jax_kdpr.config.schema import Config
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.runs.run import load_run
from jax_kdpr.training import loop

RECORD = Path(__file__).parent / "data" / "runs.tar.xz"


def _teacher(config: Config) -> None:
    config.regime = "teacher"
    config.masks.snapshots = 3
    config.distill.draws = "shared"  # as recorded


def _student(config: Config) -> None:
    config.regime = "student"
    config.loss.alpha, config.loss.beta = 0.6, 0.2  # every loss with a weight that is felt
    config.distill.teacher = "teacher"


def _gated(config: Config) -> None:
    config.spectral.consistency_steps = config.net.refine_steps = 3


def _near(config: Config) -> None:
    config.propagation.kind = "fresnel"
    config.propagation.wavelength, config.propagation.pitch = 633e-9, 8e-6
    config.propagation.distance = 0.02


KINDS: dict[str, Callable[[Config], object]] = {
    "e2e": lambda config: config,
    "teacher": _teacher,
    "student": _student,
    "gated": _gated,
    "bench": partial(presets.bench, samples=1),
    "near": _near,
}


def config_of(kind: str) -> Config:
    """Returns the quick start at 16 x 16, two epochs, as a run of this kind."""
    config = presets.quickstart()
    config.data.size = 16
    config.data.train_images, config.data.validation_images = 64, 32
    config.data.test_images = 32
    config.net.widths = (8, 16)
    config.spectral.iterations = 5
    config.train.epochs, config.train.batch_size = 2, 16
    config.train.devices = config.train.scan_steps = 1  # the same program on every machine
    KINDS[kind](config)
    return config


def record(file: Path) -> None:
    """Trains and scores a run of each kind and packs their folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for kind in KINDS:
            loop.train(config_of(kind), Path(kind))
            score_run(load_run(Path(kind)))
            # No picture, and nothing that is of the moment.
            for name in ("figure.png", "run.lock"):
                (Path(kind) / name).unlink(missing_ok=True)
        with tarfile.open(file, "w:xz") as archive:
            for kind in KINDS:
                archive.add(kind)


if __name__ == "__main__":
    record(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else RECORD)
