"""Benches: the example of the page on devices; simulated frames, and their way back to objects."""

import json
import re
from pathlib import Path

import numpy as np
from helpers import ROOT

from jax_kdpr.lab.frames.correction import References
from jax_kdpr.lab.frames.geometry import Geometry, make_window
from jax_kdpr.lab.frames.measured import Setup, group_frames, pixel_side
from jax_kdpr.lab.frames.reading import list_frames, read_mean
from jax_kdpr.lab.frames.reconstruction import Wanted, reconstruct
from jax_kdpr.lab.frames.simulated_bench import Bench, make_bench, write_bench
from jax_kdpr.runs.run import Run

PAGE = ROOT / "docs" / "guides" / "devices.md"
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
SHAPE = (66, 66)
DARK = References(SHAPE, np.full(SHAPE, 64.0))


def turned_bench(run: Run, **camera) -> Bench:
    """A pattern that is turned, moved and magnified."""
    return make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))._replace(**camera)


def faulty_bench(run: Run, folder: Path, objects: int) -> Path:
    """Writes frames of the first test scenes, with every fault of a sensor; returns `folder`."""
    write_bench(folder, run, run.scenes(objects), turned_bench(run, photons=1e6), seed=0)
    return folder


def true_setup(run: Run, bench: Path) -> Setup:
    """Corrections by the files of a bench folder, and the geometry that it was made with."""
    means = [read_mean(str(bench / f"{file}.tif")) for file in ("dark", "flat", "bad_pixels")]
    references = References(means[0].shape, *means)
    geometry = Geometry(**json.loads((bench / "truth.json").read_text())["geometry"])
    window = make_window(references.shape, None, 1)
    return Setup(references, window, geometry, pixel_side=pixel_side(run))


def rebuild(
    run: Run, recover, frames: Path | str, setup: Setup, output: Path, *, limit=None, **wanted
) -> dict:
    """Reconstructs the frames of a pattern; by default without any limit, as stacks."""
    groups = group_frames(list_frames(str(frames)), run.snapshots)
    job = Wanted(**{"output": output, "batch_size": 8, "stack": True} | wanted)
    return reconstruct(groups, setup, run, recover, job, limit=limit or (lambda _: 9.0))
