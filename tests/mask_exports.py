"""Masks of a run or of nothing as files, for the tests of export and verification."""

from pathlib import Path

import jax
import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.lab.masks.export import export_masks
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.run import Run

SIZE = 16
PANEL = (40, 60)


def tiny(**device) -> Config:
    config = Config()
    config.data.size = SIZE
    for name, value in device.items():
        setattr(config.device, name, value)
    return config


def shown_by(config: Config, workdir: Path) -> tuple[Run, np.ndarray]:
    """A system that was not trained at all, and what its device shows."""
    system = build_system(config)
    start = init_phases(
        jax.random.key(0), snapshots=1, height=config.data.size, width=config.data.size
    )
    return Run(workdir, config, system, ({}, {}), "digest"), np.asarray(
        system.camera.written(start)
    )


def lands(config: Config, output: Path, **options) -> tuple[Path, np.ndarray]:
    run, wanted = shown_by(config, output / "run")
    plan = plan_export(MaskFormat(**{"format": "slm", **options}), config)
    (path,) = export_masks(plan, wanted, run, output=output)
    return path, wanted
