"""A run folder in one small file: to continue its training elsewhere, or to use it as it is.

The file holds run.json, metrics.jsonl, the masks and one checkpoint. Without the optimiser's
moments, the checkpoint has a third of its size. To continue a training, the file holds the newest
checkpoint: the run's parameters, statistics, step, order of images and random streams are kept bit
for bit, and only Adam's moments start at zero, as in the first step. A file that is only to be used
holds the best checkpoint, with the network in half precision.
"""

import io
import shutil
import tarfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.optics.masks import wrap_phases
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import SCORE, Checkpoints

STATE_FILE = "state.npz"
MASKS_FILE = "masks.npy"
OPTIMIZER = "opt_state."  # prefix of the names of the optimiser's state
NETWORK = "params.net."  # prefix of the names of the network's parameters
LEFT_OUT = "zeros."  # prefix, in STATE_FILE, of arrays of which only type and shape are kept


def pack(workdir: Path, file: Path, *, for_use: bool = False) -> None:
    """Writes the reduced form of a run folder as a .tar.gz.

    Args:
        workdir: The run folder.
        file: File to write.
        for_use: Whether the file is only to be used, and so holds the best checkpoint in half
            precision.

    Raises:
        InputError: If the folder is no run or has no checkpoint; or if the training is to continue
            and its learning rates are not constant: the position in their schedule is not kept.
    """
    schedule = run_folder.read_config(workdir).optim.schedule
    if schedule != "constant" and not for_use:
        raise InputError(f"{workdir}: expected optim.schedule=constant, got {schedule}; leave it")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        arrays = checkpoints.arrays(
            checkpoints.best_step() if for_use else max(checkpoint.steps(workdir))
        )
    kept = {}
    for name, array in arrays.items():
        if name.startswith(OPTIMIZER):
            kept[LEFT_OUT + name] = np.array([str(array.dtype), *map(str, array.shape)])
        elif name.startswith(NETWORK) and for_use:
            kept[name] = array.astype(np.float16)
        else:
            kept[name] = array
    state, masks = io.BytesIO(), io.BytesIO()
    np.savez(state, **kept)
    np.save(masks, np.asarray(wrap_phases(jnp.asarray(arrays["params.phases"]))))
    with whole_files.whole(file) as opened, tarfile.open(fileobj=opened, mode="w:gz") as archive:
        kept_files = (*run_folder.COPIES.values(), run_folder.METRICS_FILE)
        for name in (run_folder.RUN_FILE, *kept_files):
            if (workdir / name).exists():
                archive.add(workdir / name, name)
        for name, content in ((STATE_FILE, state), (MASKS_FILE, masks)):
            entry = tarfile.TarInfo(name)
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)


def unpack(file: Path, workdir: Path, *, epochs: int = 0) -> None:
    """Makes a run folder from its reduced form, and replaces an existing one.

    Args:
        file: From `pack`.
        workdir: The run folder to make.
        epochs: New length of the training; 0 keeps it. With constant rates, a run is the beginning
            of any longer run.

    Raises:
        InputError: If the run is longer already.
        Exception: Of any kind, if the file is damaged.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    with tarfile.open(file) as archive:
        archive.extractall(workdir, filter="data")
    if epochs:
        _lengthen(workdir, epochs)
    with np.load(workdir / STATE_FILE) as state:
        values = dict(state)
    arrays = {}
    for name, value in values.items():
        if value.dtype == np.float16:
            value = value.astype(np.float32)
        if name.startswith(LEFT_OUT):
            name, (dtype, *shape) = name.removeprefix(LEFT_OUT), value
            value = np.zeros(tuple(map(int, shape)), dtype)
        arrays[name] = value
    step = int(arrays["step"])
    scores = {row["step"]: row.get(SCORE) for row in run_folder.read_metrics(workdir)}
    config = run_folder.read_run(workdir)["config"]
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(step, arrays, config, score=scores.get(step))
    (workdir / STATE_FILE).unlink()


def _lengthen(workdir: Path, epochs: int) -> None:
    record = run_folder.read_run(workdir)
    train = record["config"]["train"]
    if epochs < train["epochs"]:
        raise InputError(
            f"{workdir}: expected at least its {train['epochs']} epochs, got {epochs}; give more"
        )
    train["epochs"] = epochs
    json_files.write_json(workdir / run_folder.RUN_FILE, record)
