"""The training loop: from config and run folder to a trained system; resumable at any time."""

import platform
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import processes, runtime, signals
from jax_kdpr.core.errors import StoppedError, reason
from jax_kdpr.core.metrics import rms_unit
from jax_kdpr.core.progress import progress
from jax_kdpr.core.provenance import versions
from jax_kdpr.core.sharding import replicate
from jax_kdpr.core.signals import Interrupted
from jax_kdpr.data.batches import epoch_order
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import SCORE, Checkpoints
from jax_kdpr.runs.metric_log import MetricLog
from jax_kdpr.training import outcome
from jax_kdpr.training.feeding import feeding, first_batch
from jax_kdpr.training.losses import TERMS
from jax_kdpr.training.setup import Training, prepare, trained_parts
from jax_kdpr.training.state import TrainState
from jax_kdpr.training.steps import Epoch

UNBEGUN = "interrupted before the first step: nothing is saved, the folder takes any options still"
FEW_STEPS = 200  # with fewer optimiser steps, next to nothing is learned


class NonFiniteLossError(StoppedError):
    """The loss became infinite or NaN; the message names the last good checkpoint."""


def train(config: Config, workdir: Path) -> dict[str, float]:
    """Trains, or resumes, the run of `config` in `workdir`.

    Returns:
        The last validation metrics; of several processes, all but the first return {}.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
        Interrupted: On a signal (`signals.noting`) after the first step, once the state is saved.
        NonFiniteLossError: If the loss is no longer finite.
        StoppedError: If a checkpoint cannot be written (the disk is full, the folder gone), or
            images can no longer be read.
    """
    runtime.require_32_bits()
    training = prepare(config, workdir)
    print(_summary(training))
    rows = carry_out(training)
    if not processes.is_first():
        return {}
    if found := outcome.warning(training, rows):
        print(f"warning: {workdir}: {found}", file=sys.stderr)
    return {k: v for k, v in rows[-1].items() if k.startswith("validation")}


def carry_out(training: Training) -> list[dict[str, Any]]:
    """Makes the remaining steps of a training; returns its rows of metrics, one per epoch.

    Of several processes, only the first has the folder and the rows.

    Raises:
        Interrupted, NonFiniteLossError, StoppedError: As in `train`.
    """
    workdir = training.workdir
    with _Folder(training) as folder:
        train_state, step = folder.restore()
        if step and not folder.has_row(step):
            print(f"step {step} of {workdir} has no row in metrics.jsonl: it is made again")
            number = step // training.steps_per_epoch - 1
            epoch = (
                _epoch_inputs(training, number, _guide(training)) if training.gradients else None
            )
            if row := _save(training, train_state, step, time.perf_counter(), folder, epoch):
                print(_epoch_line(row, training.config))
            signals.check()
        if step == training.total_steps:
            print(f"finished already: {workdir} has its {step} steps")
        elif step:
            print(f"resuming {workdir} at step {step} of {training.total_steps}")
        if step == 0 and training.from_trained:
            if row := _save(training, train_state, 0, time.perf_counter(), folder, None):
                print(_epoch_line(row, training.config))
            signals.check()
        if step < training.total_steps:
            _train_from(training, train_state, step, folder)
        return folder.rows()


class _Folder:
    """The open run folder, its checkpoints and log; of several processes, the first has them."""

    def __init__(self, training: Training):
        self.training = training
        self._open = ExitStack()

    def __enter__(self) -> "_Folder":
        training = self.training
        processes.require_same(  # waits until all have looked at the folder, too
            config=schema.to_dict(training.config),
            data=training.digests,
            packages=[platform.python_version(), versions()],
            memory=runtime.device_memory(),
        )
        if processes.is_first():
            self._open.enter_context(run_folder.lock(training.workdir))
            belongs = (training.workdir, training.config, training.digests, training.dataset.sample)
            run_folder.check_workdir(*belongs)  # another may have begun in it since
            run_folder.record_session(*belongs, training.planes)
            self.checkpoints = self._open.enter_context(Checkpoints(training.workdir))
            train = training.config.train
            self.log = MetricLog(training.workdir, tensorboard=train.tensorboard, wandb=train.wandb)
            self._open.callback(self.log.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of metrics so far; [] in all processes but the first."""
        return self.log.rows() if processes.is_first() else []

    def restore(self) -> tuple[TrainState, int]:
        """Returns the newest state that can be read, and its step; the start if there is none."""
        training, start = self.training, self.training.start

        def newest() -> tuple[TrainState, Any]:
            found = self.checkpoints.restore_latest(start)
            step = 0 if found is None else found.step
            self.checkpoints.discard_after(step)
            self.log.resume_at(step)
            return (start if found is None else found.tree), np.int32(step)

        state, step = processes.from_first(newest, (start, np.int32(0)))
        return replicate(state, training.mesh), int(step)

    def has_row(self, step: int) -> bool:
        """Returns whether the log has the row of the epoch that ended at a step, if one did."""
        if step % self.training.steps_per_epoch:
            return True
        there = processes.from_first(lambda: np.bool_(self._is_logged(step)), np.bool_(False))
        return bool(there)

    def _is_logged(self, step: int) -> bool:
        return any(row["step"] == step for row in self.log.rows())

    def save(self, step: int, state: TrainState, row: dict[str, Any] | None) -> None:
        """Writes a checkpoint and, at the end of an epoch, its row of metrics."""
        workdir = self.training.workdir
        if not processes.is_first():
            return
        try:
            if row is not None and not self._is_logged(step):
                self.log.append(row)  # first: without its checkpoint, a row is dropped on resuming
            score = None if row is None else row.get(SCORE)
            self.checkpoints.save(step, state, schema.to_dict(self.training.config), score=score)
        except (OSError, ValueError) as failure:  # TensorStore raises ValueError
            raise StoppedError(
                f"step {step} could not be saved in {str(workdir)!r} "
                f"({reason(failure)}); {_last_good(workdir)}; make room, or mend "
                "the folder, and run the same command again to go on from there"
            ) from failure


def _guide(training: Training) -> Any:
    """Returns what the steps learn from besides images, if anything."""
    if training.teacher is None:
        return training.lessons
    return training.teacher.guide(
        training.config, training.dataset, batch_size=training.eval_batch_size
    )


def _train_from(training: Training, train_state: TrainState, step: int, folder: _Folder) -> None:
    guide = _guide(training)
    print("compiling, about half a minute on a CPU", flush=True)
    signals.set_last_words(signals.AGAIN if step else UNBEGUN)
    resumed = step
    with (
        progress(total=training.total_steps, initial=step, unit="step") as bar,
        feeding(training, step) as feed,
        ExitStack() as unsaved,
    ):
        while step < training.total_steps:
            started, first = time.perf_counter(), step
            epoch = _epoch_inputs(training, step // training.steps_per_epoch, guide)
            end = (step // training.steps_per_epoch + 1) * training.steps_per_epoch
            losses = failed = None
            while step < end and not signals.received():
                length = min(training.scan_steps, end - step)  # an epoch may end with fewer
                losses_before = losses
                try:
                    given = feed(epoch, step, length)
                except StoppedError as failure:  # finished steps are saved first
                    failed = failure
                    break
                train_state, losses = training.train_steps(length)(train_state, given)
                if step == resumed:
                    signals.set_last_words()
                    unsaved.enter_context(signals.noting())  # until here, a signal ends the process
                # Checks the losses of the previous call: so the device never waits for the host.
                if losses_before is not None:
                    _require_finite(losses_before, step, folder)
                step += length
                bar.update(length)
                processes.agree_on_signals()
            if step > first and losses is not None:
                _require_finite(losses, step, folder)
                _require_finite_state(train_state, step, folder)
                if row := _save(training, train_state, step, started, folder, epoch):
                    bar.write(_epoch_line(row, training.config))
            where = (
                f"at step {step} of {training.total_steps}, saved"
                if step
                else "before a step was made"
            )
            signals.check(f"interrupted {where}; run the same command again to go on")
            if failed is not None:
                raise failed


def _save(
    training: Training,
    state: TrainState,
    step: int,
    started: float,
    folder: _Folder,
    epoch: Epoch | None,
) -> dict[str, Any] | None:
    """Writes a checkpoint and, if an epoch ends here, its metrics, which it returns.

    A signal interrupts validation: the epoch then has no metrics, and gets them on resuming.
    """
    row = failed = None
    if step % training.steps_per_epoch == 0:
        try:
            row = _epoch_row(training, state, step, started, epoch)
        except Interrupted:
            pass
        except StoppedError as failure:  # an image is gone: finished steps are saved
            failed = failure
    folder.save(step, state, row)
    if failed is not None:
        raise failed
    return row


def _epoch_inputs(training: Training, number: int, guide: Any) -> Epoch:
    dataset = training.dataset
    order = epoch_order(training.keys.order, number, dataset.train_size)
    # For a stream, `feeding` gives the images.
    images = dataset.train(number) if dataset.stream is None else dataset.test[:0]
    return Epoch(
        images=replicate(images, training.mesh),
        order=replicate(order, training.mesh),
        key=training.keys.steps,
        weights=training.weights,
        guide=guide,
    )


def _summary(training: Training) -> str:
    config, dataset = training.config, training.dataset
    counts = {
        part: sum(leaf.size for leaf in jax.tree.leaves(leaves))
        for part, leaves in training.start.params.items()
    }
    devices = 1 if training.mesh is None else training.mesh.size
    lines = [
        f"{config.regime}: {config.masks.snapshots} snapshot(s), {config.data.size} x "
        f"{config.data.size} pixels, {config.scene.kind} scene, T = {config.spectral.iterations}, "
        f"sensor {' x '.join(map(str, training.system.camera.sensor))}, noise {config.noise.kind}",
        f"parameters: {sum(counts.values()):,} (masks {counts['phases']:,}, filter "
        f"{counts['filter']}, network {counts['net']:,}); "
        f"trained: {', '.join(trained_parts(config))}",
        f"data: {config.data.source}, {dataset.train_size:,} train"
        f"{' (read while training)' if dataset.stream else ''}, "
        f"{len(dataset.validation):,} validation, {len(dataset.test):,} test images",
        f"{training.total_steps:,} steps of {config.train.batch_size} on {devices} x "
        f"{jax.devices()[0].device_kind}, {training.scan_steps} in one call",
    ]
    if config.masks.start != "random":
        given = training.planes.get("masks")
        extent = f", {given.values.min():.3g} to {given.values.max():.3g} rad" if given else ""
        lines.append(f"masks start: {config.masks.file or config.masks.start}{extent}")
    if (beam := training.system.camera.beam) is not None:
        lines.append(f"light: {beam.in_words()}")
    if config.scene.has_phase and config.scene.phase_range >= 2 * np.pi:
        lines.append(
            f"note: scene.phase_range is {config.scene.phase_range / (2 * np.pi):.3g} turn(s): the "
            "camera cannot tell phases a whole turn apart, only what the network has learned can"
        )
    if training.total_steps < FEW_STEPS:
        lines.append(
            f"note: {training.total_steps} steps are few; some hundred are needed to recover "
            "anything: raise train.epochs, or lower train.batch_size"
        )
    if training.teacher is not None:
        how = "its targets made once" if training.teacher.cached else "run in every step"
        if training.teacher.teach is None:
            how = f"whose losses weigh nothing; the student takes over: {config.distill.start}"
        digest = training.digests["teacher"][:12]
        lines.append(f"teacher: {config.distill.teacher}, digest {digest}, {how}")
    return "\n".join(lines)


def _last_good(workdir: Path) -> str:
    steps = checkpoint.steps(workdir)
    return f"last good checkpoint: step {max(steps)}" if steps else "no checkpoint yet"


def _require_finite_state(state: TrainState, step: int, folder: _Folder) -> None:
    """Raises if the last update spoilt the parameters, although its loss was still finite."""
    leaves = jax.tree.leaves((state.params, state.state))
    total = sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves)
    _require_finite(jnp.asarray(total)[None], step, folder)


def _require_finite(losses: jax.Array, step: int, folder: _Folder) -> None:
    """Raises if one of the losses [steps] that end at `step` is not finite."""
    finite = np.isfinite(np.asarray(losses))
    if finite.all():
        return
    bad = step - len(losses) + 1 + int(np.argmin(finite))
    raise NonFiniteLossError(
        f"the loss or the parameters became non-finite at step {bad}; "
        f"{_last_good(folder.training.workdir)} in {folder.training.workdir}; lower the "
        "learning rates (optim.*_lr) or change the loss weights"
    )


def _epoch_row(
    training: Training, state: TrainState, step: int, started: float, epoch: Epoch | None
) -> dict[str, Any]:
    """Returns the row of metrics.jsonl of the epoch that ends at a step; validates if it is due."""
    jax.block_until_ready(state)
    trained = time.perf_counter()
    number, train = step // training.steps_per_epoch, training.config.train
    is_due = number % train.validate_every == 0 or number == train.epochs
    means = {
        f"train_{name}": float(state.totals[name]) / training.steps_per_epoch
        for name in ("total", *TERMS)
    }
    pulls = {}
    if training.gradients is not None and epoch is not None:  # of the epoch's first batch
        batch = first_batch(training, epoch, step)
        pulls = {name: float(value) for name, value in training.gradients(state, batch).items()}
    scores = training.validate(state.variables) if is_due else {}
    peak = runtime.peak_memory()  # None on a CPU
    return {
        "epoch": number,
        "step": step,
        **means,
        **pulls,
        **scores,
        **({"device_peak_mb": round(peak / 1e6)} if peak else {}),
        "train_seconds": trained - started,
        "seconds": time.perf_counter() - started,
    }


def _epoch_line(row: dict[str, Any], config: Config) -> str:
    validation = ""
    if "validation_misfit" in row:
        validation = f"held back: misfit {row['validation_misfit']:.4f}  "
    elif SCORE in row:
        validation = (
            f"validation {row[SCORE]:.2f} dB, "
            f"rms {row['validation_rms']:.3f}{rms_unit(config.scene.kind)}, "
            f"SSIM {row['validation_ssim']:.3f}  "
        )
    if not row["epoch"]:
        return f"before  {validation}{row['seconds']:.1f} s"
    return (
        f"epoch {row['epoch']:>3}/{config.train.epochs}  "
        f"loss {row['train_total']:.5f}  {validation}{row['seconds']:.1f} s"
    )
