"""Checkpoints of a run; this is the only module that uses Orbax.

A checkpoint holds a flat dict of arrays, named by their path in the training state, the config as
plain JSON, and a SHA-256 digest of the arrays. It contains no class of this package, and can be
read without it. The manager keeps the last two checkpoints and the best one by validation PSNR.
Orbax writes to a temporary folder and renames it, so a killed save leaves earlier checkpoints as
they were.
"""

import hashlib
import logging as std_logging
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jax_kdpr.core import processes, runtime
from jax_kdpr.core.errors import InputError, reason
from jax_kdpr.core.types import PyTree
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.folder import CHECKPOINTS

SCORE = "validation_psnr"  # the metric of the best checkpoint, dB
SCORE_DIGEST = "digest"  # of the score
REMOVAL_SECONDS = 0.5  # time that a training takes to remove a checkpoint


class Restored(NamedTuple):
    """A checkpoint that was read, and whose digest was verified."""

    step: int
    tree: PyTree
    digest: str


def quiet_logs() -> None:
    """Silences the logs of Orbax; for commands, not for programs that import this package."""
    # Orbax logs every file at INFO, and every failure that it raises also with a traceback.
    logging.set_verbosity(logging.FATAL)
    # When one read of a restore fails, the others end in an event loop that is closed. The failure
    # itself is raised, but each of the others would print a traceback.
    std_logging.getLogger("asyncio").setLevel(std_logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


class _Manager(ocp.CheckpointManager):
    def __init__(self, workdir: Path, *args: Any, **options: Any):
        self.workdir = workdir
        super().__init__(*args, **options)

    # Orbax reads every score on opening, and fails if one is unreadable. A score that is damaged,
    # or was not known when the checkpoint was written, is taken from metrics.jsonl instead.
    def metrics(self, step: int) -> Any:
        with suppress(ValueError, TypeError, KeyError):
            stored: Any = super().metrics(step)
            score = float(stored[SCORE])
            if stored[SCORE_DIGEST] == _score_digest(step, score):
                return {SCORE: score}
        rows = run_folder.read_metrics(self.workdir)
        known = (row[SCORE] for row in rows if row["step"] == step and SCORE in row)
        return next(({SCORE: score} for score in known), None)


class Checkpoints:
    """The checkpoints of one run folder. Close it, or use it as a context."""

    def __init__(self, workdir: Path, *, read_only: bool = False):
        """Opens the folder, which must hold a checkpoint if `read_only`.

        Unless `read_only`, the temporary files of a killed save are removed.
        """
        if read_only:
            require_checkpoint(workdir)
        self.workdir = workdir
        self.read_only = read_only
        if not read_only:
            (workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        self._handle = os.open(workdir / CHECKPOINTS, os.O_RDONLY)
        self._folder = _plain_path(self._handle, workdir / CHECKPOINTS)
        score = lambda metrics: metrics[SCORE]  # noqa: E731
        alone = _alone()
        self._manager = _Manager(
            workdir,
            self._folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=alone,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=False,
                best_fn=score,
                best_mode="max",
                preservation_policy=AnyPreservationPolicy(
                    [
                        LatestN(2),
                        BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
                    ]
                ),
            ),
            # Items have names, so that the shapes of a checkpoint are known before it is read.
            item_handlers={
                "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                "config": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
                "info": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            },
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what Orbax still has open."""
        self._manager.close()
        os.close(self._handle)

    def save(self, step: int, tree: PyTree, config: dict, *, score: float | None = None) -> None:
        """Writes a checkpoint; `score` is its validation PSNR in dB, None within an epoch."""
        if step in self._manager.all_steps():
            self._manager.reload()  # same state, but its score may be known now
            return
        arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(tree)}
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                config=ocp.args.JsonSave(config),
                info=ocp.args.JsonSave({"digest": digest(arrays)}),
            ),
            metrics=None
            if score is None
            else {SCORE: score, SCORE_DIGEST: _score_digest(step, score)},
        )
        if not saved:
            raise RuntimeError(
                f"{self.workdir / CHECKPOINTS}: checkpoint {step} was not written; there is a "
                "later one"
            )

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which are going to be made again."""
        for later in [saved for saved in self._manager.all_steps() if saved > step]:
            self._manager.delete(later)

    def restore_latest(self, like: PyTree) -> Restored | None:
        """Reads the newest readable checkpoint; returns None if the folder holds no checkpoint.

        `like` has the structure, shapes and types to return: all of the saved pytree, or a part.

        Raises:
            InputError: If there are checkpoints, but none can be read.
        """

        return self._first_readable(self._newest_first, like) if self._newest_first() else None

    def restore_best(self, like: PyTree) -> Restored:
        """Reads the checkpoint with the best validation PSNR, or else the newest readable one."""

        def steps() -> list[int]:
            best = self._manager.best_step()
            return sorted(self._newest_first(), key=lambda step: step != best)

        return self._first_readable(steps, like)

    def best_step(self) -> int:
        """Returns the step of the best validation PSNR, or else the newest; raises without any."""
        best = self._manager.best_step()
        return max(self._manager.all_steps()) if best is None else best

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """Reads all arrays of a checkpoint, by their path in the training state.

        Raises:
            Exception: Of any kind, if the checkpoint is damaged.
        """
        return self._read(step)[0]

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)

    def _first_readable(self, steps: Callable[[], list[int]], like: PyTree) -> Restored:
        """Tries the steps in turn; reports damaged ones, and moves them away if another is good."""
        damaged: list[int] = []
        while left := [step for step in steps() if step not in damaged]:
            step = left[0]
            try:
                arrays, found = self._read(step)
            except (MemoryError, PermissionError, NameError, ImportError):
                raise  # nothing is wrong with the checkpoint
            except Exception as failure:  # Orbax, TensorStore and JSON raise many kinds
                time.sleep(REMOVAL_SECONDS)
                self._manager.reload()
                if (self._folder / str(step)).exists():  # and no other process has removed it
                    damaged.append(step)
                    print(
                        f"warning: checkpoint {step} in {self.workdir / CHECKPOINTS} is damaged "
                        f"({reason(failure)}); falling back to another one",
                        file=sys.stderr,
                    )
                continue
            tree = _unflatten(arrays, like, step)
            if not self.read_only:
                self._set_aside(damaged)
            return Restored(step, tree, found)
        raise InputError(
            f"{self.workdir / CHECKPOINTS}: none of the {len(damaged)} checkpoint(s) can be read; "
            "restore them from a copy, or train anew in another folder"
        )

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], str]:
        """Reads all arrays of a checkpoint to the host and verifies their digest."""
        shapes = self._manager.item_metadata(step)["state"]
        declared = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes.values())
        if declared > runtime.host_memory():
            raise ValueError(f"it declares {declared / 2**30:,.0f} GiB, more than there are")
        wanted = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(wanted), info=ocp.args.JsonRestore()
            ),
        )
        found = digest(saved["state"])
        if found != saved["info"]["digest"]:
            raise ValueError("its arrays do not match their digest")
        return saved["state"], found

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints away, so that their steps can be written again."""
        for step in steps:
            target = self.workdir / f"damaged-checkpoint-{step}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self.workdir / CHECKPOINTS / str(step), target)
        if steps:
            self._manager.reload()


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options by which each of several processes reads, and one writes, without waiting."""
    options = ocp.options.MultiprocessingOptions
    if not processes.several():
        return options()
    own = jax.process_index()
    return options(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def steps(workdir: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in a run folder."""
    return [int(path.name) for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdigit()]


def require_checkpoint(workdir: Path) -> None:
    """Raises `InputError` if the run folder holds no finished checkpoint."""
    if not steps(workdir):
        raise InputError(f"{str(workdir)!r} holds no checkpoint yet; train it first")


def digest(arrays: dict[str, Any]) -> str:
    """Returns the SHA-256 of named arrays: their names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _score_digest(step: int, score: float) -> str:
    return hashlib.sha256(f"{step} {score!r}".encode()).hexdigest()


def _named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _unflatten(arrays: dict[str, np.ndarray], like: PyTree, step: int) -> PyTree:
    """Builds a pytree like `like` from the arrays of a checkpoint."""
    leaves = []
    for name, leaf in _named_leaves(like):
        array = arrays.get(name)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise InputError(
                f"checkpoint {step}: expected {name} as {leaf.dtype} {leaf.shape}, got {found}; it "
                "was written by another version of jax_kdpr, train anew"
            )
        leaves.append(jax.numpy.asarray(array))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _plain_path(handle: int, folder: Path) -> Path:
    """Returns a path of an open folder that Orbax cannot mistake for a pattern or a URL.

    Orbax finds the arrays to merge by a glob pattern that contains the whole path. Below a folder
    `run[1]` it finds none, and leaves a checkpoint that cannot be read.

    Raises:
        InputError: If the system has no such path (macOS), and the folder's own is a pattern.
    """
    plain = Path(f"/proc/self/fd/{handle}")
    if plain.is_dir():
        return plain
    own = folder.resolve()
    if re.search(r"[*?\[\]\\]", str(own)):
        raise InputError(
            f"--workdir: {str(own.parent)!r} has one of * ? [ ] \\ in its path, which checkpoints "
            "cannot be read back from on this system; give another folder"
        )
    return own
