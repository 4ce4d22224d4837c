"""The training loop: from a config and a run folder to a trained system, resumable anywhere.

An ensemble is trained by the same loop: arrays have one more axis, and what is written goes to a
run folder for each member, as that of a single run.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr import checkpoint, run_folder, signals
from jax_kdpr import config as config_lib
from jax_kdpr.checkpoint import SCORE, Checkpoints
from jax_kdpr.choices import Gauge, Gradient, SceneKind
from jax_kdpr.config import Config
from jax_kdpr.data.batches import epoch_order, over_batches
from jax_kdpr.errors import InputError, StoppedError
from jax_kdpr.metrics import psnr_from_mse, rms_unit
from jax_kdpr.progress import progress
from jax_kdpr.sharding import replicate
from jax_kdpr.signals import Interrupted
from jax_kdpr.systems import count_parameters
from jax_kdpr.training import outcome
from jax_kdpr.training.metric_log import MetricLog
from jax_kdpr.training.preparation import Run, make_guide, prepare, stack, trained_parts, unstack
from jax_kdpr.training.state import TrainState
from jax_kdpr.training.steps import Epoch, compile_steps

FEW_STEPS = 200  # fewer optimiser steps than this train next to nothing


class NonFiniteLossError(StoppedError):
    """The loss became infinite or NaN; the message names the last good checkpoint."""


def train(config: Config, workdir: Path) -> list[dict[str, float]]:
    """Trains, or resumes, the run of `config` in `workdir`.

    Returns:
        The last validation metrics, of each member of an ensemble, else of the one run.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
        Interrupted: On a signal (`signals.noting`) after the first step, when it is saved.
        NonFiniteLossError: If the loss is no longer finite.
        StoppedError: If a checkpoint cannot be written: the disk is full, the folder gone.
    """
    run = prepare(config, workdir)
    print(_summary(run))
    with ExitStack() as stack_of:
        for member in run.members:
            stack_of.enter_context(run_folder.lock(member.workdir))
        folders = [stack_of.enter_context(_Folder(run, i)) for i in range(len(run.members))]
        train_state, step = _restore(run, folders)
        if step and not all(folder.has_row(step) for folder in folders):
            print(f"validating step {step} of {workdir}, which has no row in metrics.jsonl")
            _save(run, train_state, step, time.perf_counter(), folders)
            signals.check()
        if step == run.total_steps:
            print(f"finished already: {workdir} has its {step} steps")
        elif step:
            print(f"resuming {workdir} at step {step} of {run.total_steps}")
        if step < run.total_steps:
            _train_from(run, train_state, step, folders)
        logged = [folder.log.rows() for folder in folders]
        for folder, rows in zip(folders, logged, strict=True):
            if found := outcome.warning(run._replace(config=folder.config), rows):
                print(f"warning: {folder.workdir}: {found}", file=sys.stderr)
    return [{k: v for k, v in rows[-1].items() if k.startswith("validation")} for rows in logged]


class _Folder:
    """The open run folder of one member: its checkpoints and its log."""

    def __init__(self, run: Run, number: int):
        self.config = run.members[number].config
        self.workdir = run.members[number].workdir
        self.digests = run.digests
        self.steps_per_epoch = run.steps_per_epoch

    def __enter__(self) -> "_Folder":
        run_folder.record_session(self.workdir, self.config, self.digests)
        self.checkpoints = Checkpoints(self.workdir)
        self.log = MetricLog(self.workdir, tensorboard=self.config.train.tensorboard)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        self.checkpoints.close()

    def has_row(self, step: int) -> bool:
        """Whether the log has the metrics of the epoch that ended at a step, if one did."""
        return step % self.steps_per_epoch > 0 or any(r["step"] == step for r in self.log.rows())

    def save(self, step: int, state: TrainState, row: dict[str, Any] | None) -> None:
        """Writes a checkpoint and, at the end of an epoch, its row of metrics."""
        try:
            if row is not None and not self.has_row(step):
                self.log.append(row)  # first: a checkpoint makes up for its row, no row for it
            score = None if row is None else row[SCORE]
            self.checkpoints.save(step, state, config_lib.to_dict(self.config), score=score)
        except (OSError, ValueError) as failure:  # TensorStore's are ValueErrors
            raise StoppedError(
                f"step {step} could not be saved in {str(self.workdir)!r} "
                f"({checkpoint.reason(failure)}); {_last_good(self.workdir)}; make room, or mend "
                "the folder, and run the same command again to go on from there"
            ) from failure


def _restore(run: Run, folders: list[_Folder]) -> tuple[TrainState, int]:
    """Returns the newest state that every member has, and its step; the start if there is none."""
    starts = unstack(run.start, len(folders))
    newest = None
    while True:
        found = [
            folder.checkpoints.restore_latest(start, not_after=newest)
            for folder, start in zip(folders, starts, strict=True)
        ]
        steps = [0 if one is None else one.step for one in found]
        if len(set(steps)) == 1:
            break
        newest = min(steps)  # a kill came between the saves of two members
    latest = [folder.checkpoints.latest_step() or 0 for folder in folders]
    if not steps[0] and max(latest) > run.steps_per_epoch:
        reached = ", ".join(f"{f.workdir.name} {s}" for f, s in zip(folders, latest, strict=True))
        raise InputError(
            f"--workdir: the members have no step in common to go on from (latest: {reached}); "
            "give another --workdir, or train the members that lack steps as single runs"
        )
    for folder in folders:
        folder.checkpoints.discard_after(steps[0])
        folder.log.resume_at(steps[0])
    if not steps[0]:
        return run.start, 0
    return replicate(stack([one.tree for one in found if one]), run.mesh), steps[0]


def _train_from(run: Run, train_state: TrainState, step: int, folders: list[_Folder]) -> None:
    guide = make_guide(run)
    print("compiling, about half a minute on a CPU", flush=True)
    # Programs of as many steps as are asked for; an epoch may end with fewer.
    programs: dict[int, Callable] = {}
    resumed = step
    with (
        progress(total=run.total_steps, initial=step, unit="step") as bar,
        ExitStack() as unsaved,
    ):
        while step < run.total_steps:
            started, first = time.perf_counter(), step
            epoch = _epoch_inputs(run, step // run.steps_per_epoch, guide)
            end = (step // run.steps_per_epoch + 1) * run.steps_per_epoch
            losses = None
            while step < end and not signals.received():
                length = min(run.scan_steps, end - step)
                if length not in programs:
                    programs[length] = compile_steps(
                        run.train_step, length=length, ensemble=run.is_ensemble
                    )
                losses_before = losses
                train_state, losses = programs[length](train_state, epoch)
                if step == resumed:
                    unsaved.enter_context(signals.noting())  # before, a signal may end all at once
                # The losses of the call before this one: so the device never waits for the host.
                if losses_before is not None:
                    _require_finite(losses_before, step, folders)
                step += length
                bar.update(length)
            if step > first and losses is not None:
                _require_finite(losses, step, folders)
                _require_finite_state(train_state, step, folders)
                if rows := _save(run, train_state, step, started, folders):
                    bar.write(_epoch_line(rows, run.config))
            where = (
                f"at step {step} of {run.total_steps}, saved" if step else "before a step was made"
            )
            signals.check(f"interrupted {where}; run the same command again to go on")


def _save(
    run: Run, state: TrainState, step: int, started: float, folders: list[_Folder]
) -> list[dict[str, Any]]:
    """Writes the members' checkpoints, and the metrics of an epoch that ends here; returns those.

    A signal cuts validation off: the epoch then has no metrics, and gets them on resuming.
    """
    rows = []
    if step % run.steps_per_epoch == 0:
        with suppress(Interrupted):
            rows = _epoch_rows(run, state, step, started)
    states = unstack(state, len(folders))
    for number, folder in enumerate(folders):
        folder.save(step, states[number], rows[number] if rows else None)
    return rows


def _epoch_inputs(run: Run, number: int, guide: Any) -> Epoch:
    orders = [epoch_order(m.keys.order, number, run.dataset.train_size) for m in run.members]
    return Epoch(
        images=replicate(run.dataset.train(number), run.mesh),
        order=replicate(stack(orders), run.mesh),
        key=stack([member.keys.steps for member in run.members]),
        weights=run.weights,
        guide=guide,
    )


def _summary(run: Run) -> str:
    config, dataset = run.config, run.dataset
    counts = count_parameters(unstack(run.start.params, len(run.members))[0])
    devices = 1 if run.mesh is None else run.mesh.size
    lines = [
        f"{config.regime}: {config.masks.snapshots} snapshot(s), {config.data.size} x "
        f"{config.data.size} pixels, {config.scene.kind} scene, T = {config.spectral.iterations}, "
        f"oversample {config.masks.oversample}, noise {config.noise.kind}",
        f"parameters: {counts['total']:,} (masks {counts['phases']:,}, filter {counts['filter']}, "
        f"network {counts['net']:,}); trained: {', '.join(trained_parts(config.regime))}",
        f"data: {config.data.source}, {dataset.train_size:,} train, "
        f"{len(dataset.validation):,} validation, {len(dataset.test):,} test images",
        f"{run.total_steps:,} steps of {config.train.batch_size} on {devices} x "
        f"{jax.devices()[0].device_kind}, {run.scan_steps} in one call",
    ]
    if config.spectral.gradient == Gradient.IMPLICIT and config.spectral.gauge == Gauge.START:
        lines.append(
            "note: the implicit gradient leaves out how the masks move the estimate's global "
            "phase; spectral.gauge=mean takes that phase away"
        )
    if config.scene.kind != SceneKind.AMPLITUDE and config.scene.phase_range >= 2 * np.pi:
        lines.append(
            f"note: scene.phase_range is {config.scene.phase_range / (2 * np.pi):.3g} turn(s): the "
            "camera cannot tell phases a whole turn apart, only what the network has learned can"
        )
    if run.is_ensemble:
        names = ", ".join(member.workdir.name for member in run.members)
        lines.append(f"ensemble of {len(run.members)}: {names}")
    if run.total_steps < FEW_STEPS:
        lines.append(
            f"note: {run.total_steps} steps are few; some hundred are needed to recover anything: "
            "raise train.epochs, or lower train.batch_size"
        )
    if run.teacher is not None:
        how = "its targets made once" if run.caches_targets else "run in every step"
        if run.teach is None:
            how = f"whose losses weigh nothing; the student takes over: {config.distill.start}"
        lines.append(f"teacher: {config.distill.teacher}, digest {run.teacher.digest[:12]}, {how}")
    return "\n".join(lines)


def _last_good(workdir: Path) -> str:
    steps = checkpoint.steps(workdir)
    return f"last good checkpoint: step {max(steps)}" if steps else "no checkpoint yet"


def _require_finite_state(state: TrainState, step: int, folders: list[_Folder]) -> None:
    """The last update may have spoilt the parameters after a loss that was finite still."""
    leaves = jax.tree.leaves((state.params, state.state))
    total = sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves)
    _require_finite(jnp.asarray(total)[None], step, folders)


def _require_finite(losses: jax.Array, step: int, folders: list[_Folder]) -> None:
    """Raises if one of the losses [steps ...] that end at `step` is not a number."""
    finite = np.isfinite(np.asarray(losses)).reshape(len(losses), -1)
    if finite.all():
        return
    bad = step - len(losses) + 1 + int(np.argmin(finite.all(axis=1)))
    who = ""
    if finite.shape[1] > 1:
        names = np.array([folder.workdir.name for folder in folders])[~finite.all(axis=0)]
        who = f" in {', '.join(names)}"
    raise NonFiniteLossError(
        f"the loss or the parameters became non-finite at step {bad}{who}; "
        f"{_last_good(folders[0].workdir)} in {folders[0].workdir}; lower the "
        "learning rates (optim.*_lr) or change the loss weights"
    )


def _epoch_rows(run: Run, state: TrainState, step: int, started: float) -> list[dict[str, Any]]:
    """Validates at the end of an epoch and returns each member's row of metrics.jsonl."""
    jax.block_until_ready(state)
    trained = time.perf_counter()
    scores, residuals = over_batches(
        partial(run.eval_step, state.variables, run.dataset.validation),
        len(run.dataset.validation),
        batch_size=run.eval_batch_size,
        key=stack([member.keys.evaluation for member in run.members]),
    )
    members = len(run.members)
    # [images], or [images members].
    values = jnp.reshape(jnp.stack([*scores, residuals]), (len(scores) + 1, -1, members))
    rows = []
    for number, totals in enumerate(unstack(state.totals, members)):
        mse, ssim, rms, residual = values[..., number]
        means = {
            f"train_{name}": float(total) / run.steps_per_epoch
            for name, total in totals._asdict().items()
        }
        rows.append(
            {
                "epoch": step // run.steps_per_epoch,
                "step": step,
                **means,
                SCORE: float(jnp.mean(psnr_from_mse(mse))),
                "validation_psnr_pooled": float(psnr_from_mse(jnp.mean(mse))),
                "validation_ssim": float(jnp.mean(ssim)),
                "validation_rms": float(jnp.mean(rms)),
                "validation_residual": float(jnp.mean(residual)),
                "train_seconds": trained - started,
                "seconds": time.perf_counter() - started,
            }
        )
    return rows


def _epoch_line(rows: list[dict[str, Any]], config: Config) -> str:
    def listed(name: str, form: str) -> str:
        return " ".join(format(row[name], form) for row in rows)

    return (
        f"epoch {rows[0]['epoch']:>3}/{config.train.epochs}  "
        f"loss {listed('train_total', '.5f')}  validation {listed(SCORE, '.2f')} dB, "
        f"rms {listed('validation_rms', '.3f')}{rms_unit(config.scene.kind)}, "
        f"SSIM {listed('validation_ssim', '.3f')}  "
        f"{rows[0]['seconds']:.1f} s"
    )
