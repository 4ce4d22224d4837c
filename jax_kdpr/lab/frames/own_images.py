"""Reads images of the user's own objects as scenes of a run: --truth, --object, --images."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import shown
from jax_kdpr.core.options import shallow
from jax_kdpr.core.types import Images
from jax_kdpr.data import sources
from jax_kdpr.data.image_files import Preparation
from jax_kdpr.data.inspection import read_images
from jax_kdpr.data.pages.stacks import read_array
from jax_kdpr.runs.run import Run

TRUTH_FILE = "truth.npy"  # scenes of a simulated bench
TRUTH_RECORD = "truth.json"  # everything else about it


def own_images(
    run: Run, source: Path, *, flag: str, as_trained: bool = False, count: int | None = None
) -> Images:
    """Reads image files as scenes of a run, prepared as its data are (`data.inspection`).

    Unlike these, they are never rescaled (`data.rescale`): the values of an object are what they
    are. A complex scene is two consecutive images, its phase and its amplitude; a printed line
    names the first two. The truth.npy of a simulated bench, beside its truth.json, holds scenes
    already.

    With `as_trained`, phases in radians get the same offset as those of the run's data, which are
    read for that. Else the smallest phase becomes 0, which is enough if the global phase does not
    count. `count` is the number of objects that there must be.

    Raises:
        InputError: If the images cannot be read, do not suit the run, or are not `count` objects.
    """
    if source.name == TRUTH_FILE and (source.parent / TRUTH_RECORD).exists():
        images = _written_scenes(run, source, flag)
    else:
        images = _read_scenes(run, source, flag, as_trained)
    if count not in (None, len(images)):
        raise InputError(
            f"{flag}: expected {count} object(s), one for each that the frames show, in their "
            f"order, got {len(images)}"
        )
    return images


def _read_scenes(run: Run, source: Path, flag: str, as_trained: bool) -> Images:
    sources.require_there(str(source), named=flag)
    offset = run.dataset.offset if run.in_radians and as_trained else None
    data, scene = run.config.data, run.config.scene
    wanted = Preparation(
        data.size,
        data.fit,
        data.unit,
        phase_range=scene.image_range,
        offset=offset,
        channels=scene.channels,
    )
    try:
        read = read_images(source, wanted, subfolders=data.subfolders, of_frames=True, label=flag)
    except InputError as failure:
        raise InputError(f"{flag}: {str(failure).removeprefix('data.dir: ')}") from failure
    return jnp.asarray(read.images.reshape(-1, data.size, data.size, scene.channels))


def _written_scenes(run: Run, path: Path, flag: str) -> Images:
    """Returns the scenes that `simulated_bench.write_bench` wrote, exact to the bit."""
    record = json_files.read_json(
        path.with_name(TRUTH_RECORD), {"scene": dict}, remedy="make both anew"
    )
    ours, theirs = shallow(run.camera.scene), record["scene"]
    try:
        scenes = read_array(path)
        top = float(np.abs(scenes - 0.5).max(initial=0.0))
    except Exception as failure:  # numpy raises many kinds
        raise InputError(f"{flag}: {path}: cannot be read ({failure}); make it anew") from failure
    shape = (run.camera.size, run.camera.size, run.camera.channels)
    is_plain = scenes.dtype == np.float32 and scenes.shape[1:] == shape and top <= 0.5
    if not is_plain or any(theirs.get(name) != value for name, value in ours.items()):
        raise InputError(
            f"{flag}: {path}: expected scenes float32 [n {shape[0]} {shape[1]} {shape[2]}] in "
            f"[0, 1] of {ours}, got {scenes.dtype} {list(scenes.shape)} of {shown(theirs)}; they "
            "are of another run"
        )
    return jnp.asarray(scenes)
