"""Frames of a simulated bench, and their way back to objects."""

import json
from pathlib import Path

import numpy as np

from jax_kdpr.lab.frames.bench_folder import make_bench, write_bench
from jax_kdpr.lab.frames.correction import make_correction
from jax_kdpr.lab.frames.geometry import Geometry, make_window
from jax_kdpr.lab.frames.loaded import pixel_side
from jax_kdpr.lab.frames.measured import Setup, group_frames
from jax_kdpr.lab.frames.reading import list_frames, read_mean
from jax_kdpr.lab.frames.reconstruction import reconstruct
from jax_kdpr.lab.frames.simulated_camera import Bench
from jax_kdpr.runs.run import Run

SHAPE = (66, 66)
DARK = np.full(SHAPE, 64.0)


def turned_bench(run: Run, **camera) -> Bench:
    """A pattern that is turned, moved and magnified."""
    return make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))._replace(**camera)


def faulty_bench(run: Run, folder: Path, objects: int) -> Path:
    """Writes frames of the first test scenes, with every fault of a sensor; returns `folder`."""
    write_bench(folder, run, run.scenes(objects), turned_bench(run, photons=1e6), seed=0)
    return folder


def true_setup(run: Run, bench: Path) -> Setup:
    """Corrections by the files of a bench folder, and the geometry that it was made with."""
    references = {"dark": "dark", "flat": "flat", "bad": "bad_pixels"}
    means = {name: read_mean(str(bench / f"{file}.tif")) for name, file in references.items()}
    shape = means["dark"].shape
    geometry = Geometry(**json.loads((bench / "truth.json").read_text())["geometry"])
    window = make_window(shape, None, 1)
    correction = make_correction(shape, **means)
    return Setup(correction, window, geometry, "points", pixel_side(run), None)


def rebuild(run: Run, recover, frames: Path | str, setup: Setup, output: Path, **options) -> dict:
    """Reconstructs the frames of a pattern; by default without any limit."""
    defaults = {"batch_size": 8, "settings": {}, "limit": lambda _: 9.0, "stack": True}
    groups = group_frames(list_frames(str(frames)), run.snapshots)
    return reconstruct(groups, setup, run, recover, output, **defaults | options)
