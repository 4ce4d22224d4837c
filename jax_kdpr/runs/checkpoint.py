"""Checkpoints of a run: the only module that knows Orbax.

A checkpoint holds a flat dict of arrays, named by their path in the training state, the config as
plain JSON, and a SHA-256 digest of the arrays. No class of ours is in it, so it can be read without
this package. The manager keeps the last two checkpoints and the best one by validation PSNR. Orbax
writes to a temporary folder and renames it: a killed save leaves the earlier ones as they were.
"""

import asyncio
import hashlib
import logging as std_logging
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import PyTree
from jax_kdpr.runs import folder as run_folder

FOLDER = "checkpoints"  # inside a run folder
SCORE = "validation_psnr"  # what "best" means, dB
SCORE_DIGEST = "digest"  # beside it, of versions that write one
REMOVAL_SECONDS = 0.5
# A state holds parameters, two moments of each and a running mean: what declares more is not ours.
MOST_COPIES = 8  # of what is asked for, or of a megabyte


class Restored(NamedTuple):
    """One checkpoint that was read and whose digest was verified."""

    step: int
    tree: PyTree
    digest: str


def quiet_logs() -> None:
    """Silences what Orbax says beside its exceptions; for command lines, not for importers."""
    # It reports every file at INFO, and with a traceback every failure that it raises too.
    logging.set_verbosity(logging.FATAL)
    # When one read of a restore fails, those still under way end in an event loop that is closed:
    # the failure itself is raised, and these would print a traceback each.
    std_logging.getLogger("asyncio").setLevel(std_logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


class _RemovedError(Exception):
    """Another process removed a checkpoint while it was read."""


class _Manager(ocp.CheckpointManager):
    def __init__(self, workdir: Path, *args: Any, **options: Any):
        self.workdir = workdir
        super().__init__(*args, **options)

    # Orbax reads every score on opening, and gives up on one that is unreadable. metrics.jsonl has
    # it too; where the two differ, that of the checkpoint counts if it matches its own digest. One
    # that does not, and that no row tells, is not known.
    def metrics(self, step: int) -> Any:
        try:
            metrics = super().metrics(step)
            stored = None if metrics is None else float(metrics[SCORE])
        except (ValueError, TypeError, KeyError):
            metrics, stored = None, math.nan
        digest = (metrics or {}).get(SCORE_DIGEST)
        proven = stored is not None and digest == _score_digest(step, stored)
        rows = run_folder.read_metrics(self.workdir)
        without_row = math.nan if digest and not proven else stored
        logged = next((row[SCORE] for row in rows if row["step"] == step), without_row)
        known = logged
        if stored is not None and stored != logged:
            wrong = f"checkpoint {step} in {self.workdir / FOLDER}"
            right = run_folder.METRICS_FILE
            if proven:
                wrong, right = f"step {step} in {self.workdir / right}", "the checkpoint"
                known = stored
            counts = "it does not" if math.isnan(known or 0.0) else f"that of {right} does"
            print(
                f"warning: the score of {wrong} is damaged; {counts} count when the best is chosen",
                file=sys.stderr,
            )
        return None if known is None or math.isnan(known) else {SCORE: known}


class Checkpoints:
    """The checkpoints of one run folder. Close it, or use it as a context."""

    def __init__(self, workdir: Path, *, read_only: bool = False):
        """Opens the folder, which must hold a checkpoint if it is only to be read.

        The temporary rest of a killed save is removed, unless read only.
        """
        if read_only:
            require_checkpoint(workdir)
        self.workdir = workdir
        self.read_only = read_only
        if not read_only:
            (workdir / FOLDER).mkdir(parents=True, exist_ok=True)
        self._handle = os.open(workdir / FOLDER, os.O_RDONLY)
        self._folder = _plain_path(self._handle, workdir / FOLDER)
        score = lambda metrics: metrics[SCORE]  # noqa: E731
        self._manager = _Manager(
            workdir,
            self._folder,
            options=ocp.CheckpointManagerOptions(
                create=not read_only,
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
            # Named, so that the shapes of a checkpoint can be asked for before it is read.
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
                "info": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what Orbax still has open."""
        self._manager.close()
        os.close(self._handle)

    def save(self, step: int, tree: PyTree, config: dict, *, score: float | None = None) -> None:
        """Writes a checkpoint; `score` is its validation PSNR in dB, None within an epoch."""
        if step in self._manager.all_steps():
            self._manager.reload()  # the same state; its score may be known since
            return
        arrays = _flatten(tree)
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
                f"{self.workdir / FOLDER}: checkpoint {step} was not written; there is a later one"
            )

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps: they are going to be made again."""
        for later in [saved for saved in self._manager.all_steps() if saved > step]:
            self._manager.delete(later)

    def restore_latest(self, like: PyTree) -> Restored | None:
        """Reads the newest readable checkpoint; None if there is none.

        `like` has the structure, shapes and types to return: all of the saved tree, or a part.
        """

        def steps() -> list[int]:
            return sorted(self._manager.all_steps(), reverse=True)

        return self._restore(steps, like) if steps() else None

    def restore_best(self, like: PyTree) -> Restored:
        """Reads the checkpoint of the best validation PSNR, or else the newest that is readable."""

        def steps() -> list[int]:
            best = self._manager.best_step()
            others = sorted(set(self._manager.all_steps()) - {best}, reverse=True)
            return ([] if best is None else [best]) + others

        return self._restore(steps, like)

    def _restore(self, steps: Callable[[], list[int]], like: PyTree) -> Restored:
        """Tries the steps in turn, and anew if a training beside removed one while it was read."""
        while True:
            try:
                return self._first_readable(steps(), like)
            except _RemovedError:
                self._manager.reload()

    def _first_readable(self, steps: list[int], like: PyTree) -> Restored:
        """Tries the steps in turn; damaged checkpoints are named, and set aside if one is good."""
        damaged = []
        for step in steps:
            try:
                arrays, found = self._read(step, like)
            except (MemoryError, PermissionError):
                raise  # nothing is wrong with the checkpoint
            except Exception as failure:  # Orbax, TensorStore and JSON raise many kinds
                if self._is_removed(step):
                    raise _RemovedError from failure
                damaged.append(step)
                print(
                    f"warning: checkpoint {step} in {self.workdir / FOLDER} is damaged "
                    f"({reason(failure)}); falling back to another one",
                    file=sys.stderr,
                )
                continue
            tree = _unflatten(arrays, like, step)
            if not self.read_only:
                self._set_aside(damaged)
            return Restored(step, tree, found)
        raise InputError(
            f"{self.workdir / FOLDER}: none of the {len(steps)} checkpoint(s) can be read; restore "
            "them from a copy, or train anew in another folder"
        )

    def _is_removed(self, step: int) -> bool:
        """Whether a training beside removes the checkpoint, which takes it a moment."""
        if self.read_only:
            time.sleep(REMOVAL_SECONDS)
        return not (self._folder / str(step)).exists()

    def _read(self, step: int, like: PyTree) -> tuple[dict[str, np.ndarray], str]:
        """Reads all arrays of a checkpoint to the host and verifies their digest.

        All of them, since the digest is of all; but it is looked at first how much they declare.
        """
        self._merge(step)
        shapes = self._manager.item_metadata(step)["state"]
        declared, asked = _size(shapes.values()), _size(jax.tree.leaves(like))
        if declared > MOST_COPIES * max(asked, 2**20):
            raise ValueError(f"it declares {declared:,} bytes of arrays for a state of {asked:,}")
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

    def _merge(self, step: int) -> None:
        """Makes up for a merge of the arrays that an earlier version left out (`_plain_path`)."""
        state = self._folder / str(step) / "state"
        if not (state / "manifest.ocdbt").exists():
            context = ocp.type_handlers.get_ts_context(use_ocdbt=True)
            merge = ocp.type_handlers.merge_ocdbt_per_process_files
            merged = merge(epath.Path(state), context, use_zarr3=False)
            with ThreadPoolExecutor(1) as thread:  # a notebook's own has a loop already
                thread.submit(asyncio.run, merged).result()

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints out of the way of those that will be written again."""
        for step in steps:
            target = self.workdir / f"damaged-checkpoint-{step}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self.workdir / FOLDER / str(step), target)
        if steps:
            self._manager.reload()


def reason(failure: Exception) -> str:
    """Returns what an exception of Orbax or TensorStore says, in one short line."""
    return " ".join(str(failure).split())[:200]


def steps(workdir: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in a run folder."""
    return [int(path.name) for path in (workdir / FOLDER).glob("*") if path.name.isdigit()]


def require_checkpoint(workdir: Path) -> None:
    """Raises `InputError` if the run folder holds no finished checkpoint."""
    if not steps(workdir):
        raise InputError(f"{str(workdir)!r} holds no checkpoint yet; train it first")


def holds_step(workdir: Path, step: int) -> bool:
    """Returns whether the run folder holds the finished checkpoint of a step."""
    return step in steps(workdir)


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


def _size(leaves: Iterable[Any]) -> int:
    """Bytes of arrays, by what they declare."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def _named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _unflatten(arrays: dict[str, np.ndarray], like: PyTree, step: int) -> PyTree:
    """Picks the leaves of `like` out of the arrays of a checkpoint."""
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


def _flatten(tree: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(tree)}


def _plain_path(handle: int, folder: Path) -> Path:
    """Returns a path of an open folder that Orbax can take no part of for a pattern or a URL.

    It looks for the arrays to merge by a pattern of the whole path: below a folder `run[1]` it
    finds none, and leaves a checkpoint that cannot be read.

    Raises:
        InputError: If the system has no such path, as macOS, and the folder's own looks like one.
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
