"""The training loop: from a config and a run folder to a trained system, resumable anywhere."""

import math
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from tqdm import tqdm

from jax_kdpr import config as config_lib
from jax_kdpr import config_fields, losses, run_folder
from jax_kdpr.checkpoint import SCORE, Checkpoints
from jax_kdpr.config import Config, Regime
from jax_kdpr.data import sources
from jax_kdpr.data.batches import epoch_order, over_batches
from jax_kdpr.errors import InputError
from jax_kdpr.metrics import ImageScores, psnr_from_mse
from jax_kdpr.physics.scenes import scene_channels
from jax_kdpr.sharding import make_mesh, replicate
from jax_kdpr.systems import count_parameters, make_system
from jax_kdpr.trained import RunKeys, Trained, load_trained, run_keys
from jax_kdpr.training.metric_log import MetricLog, require_tensorboard
from jax_kdpr.training.state import TrainState, init_train_state, make_optimizer
from jax_kdpr.training.steps import LossWeights, make_eval_step, make_train_step
from jax_kdpr.types import Residuals, Scalar

# What student and teacher must share for their losses to be defined: scene, sensor, bottleneck.
TEACHER_FITS = ("data.size", "masks.oversample", "scene.", "net.")
FEW_STEPS = 200  # fewer optimiser steps than this train next to nothing


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; the message names the last good checkpoint."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the state is saved. `signal_number` says which."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number


def trained_parts(regime: Regime) -> tuple[str, ...]:
    """Returns the parts of `params` that a regime trains."""
    return ("net",) if regime == Regime.RANDOM else ("phases", "filter", "net")


class Run(NamedTuple):
    """Everything that one training needs and that does not change while it lasts."""

    config: Config
    dataset: sources.Dataset
    keys: RunKeys
    digests: dict[str, str]
    teacher: Trained | None
    train_step: Callable[..., tuple[TrainState, Scalar]]
    eval_step: Callable[..., tuple[ImageScores, Residuals]]
    start: TrainState
    steps_per_epoch: int
    mesh: Mesh | None

    @property
    def total_steps(self) -> int:
        """Length of the whole training."""
        return self.steps_per_epoch * self.config.train.epochs


def train(config: Config, workdir: Path) -> dict[str, float]:
    """Trains, or resumes, the run of `config` in `workdir`; returns its last validation metrics.

    Everything that a user can get wrong is checked before anything is compiled or written.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
        Interrupted: On SIGINT or SIGTERM, after saving.
        NonFiniteLossError: If the loss is no longer finite.
    """
    run = prepare(config, workdir)
    print(_summary(run))
    with (
        run_folder.lock(workdir),
        Checkpoints(workdir) as checkpoints,
        _Signals() as signals,
        MetricLog(workdir, tensorboard=config.train.tensorboard) as log,
    ):
        run_folder.record_session(workdir, config, run.digests)
        restored = checkpoints.restore_latest(run.start)
        train_state = run.start if restored is None else replicate(restored.tree, run.mesh)
        step = int(train_state.step)
        if restored is not None:
            print(f"resuming {workdir} at step {step} of {run.total_steps}")
        log.resume_at(step)
        if step < run.total_steps:
            print("compiling, about half a minute on a CPU", flush=True)

        with tqdm(total=run.total_steps, initial=step, unit="step", disable=None) as bar:
            while step < run.total_steps:
                started, first = time.perf_counter(), step
                train_state, step = _train_epoch(run, train_state, step, checkpoints, signals, bar)
                if step > first:
                    _require_finite_state(train_state, step, checkpoints)
                    score = None
                    if step % run.steps_per_epoch == 0:
                        row = _epoch_row(run, train_state, step, started)
                        score = row[SCORE]
                        # Before the checkpoint: on resuming, a row without one is dropped.
                        log.append(row)
                        bar.write(_epoch_line(row, config.train.epochs))
                    checkpoints.save(step, train_state, config_lib.to_dict(config), score=score)
                if signals.received:
                    raise Interrupted(
                        signals.received,
                        f"interrupted at step {step} of {run.total_steps}, saved; "
                        "run the same command again to go on",
                    )
        last = log.rows()[-1]
    return {name: value for name, value in last.items() if name.startswith("validation")}


def prepare(config: Config, workdir: Path) -> Run:
    """Checks a run against its data, teacher and folder, and builds its steps; writes nothing.

    Raises:
        InputError: As `train`.
    """
    config_lib.validate(config)
    if config.train.tensorboard:
        require_tensorboard()
    if config.train.devices > jax.local_device_count():
        raise InputError(
            f"train.devices: expected at most the {jax.local_device_count()} device(s) of this "
            f"machine, got {config.train.devices}"
        )
    mesh = make_mesh(config.train.devices)
    teacher = _load_teacher(config, mesh)
    dataset = sources.load(**config_lib.data_arguments(config))
    if config.train.batch_size > dataset.train_size:
        raise InputError(
            f"train.batch_size: expected at most the {dataset.train_size} training images, "
            f"got {config.train.batch_size}; lower it or bring more images"
        )
    digests = {"data": dataset.digest, "held_back": dataset.held_back_digest}
    if teacher is not None:
        _require_same_split(config, dataset)
        digests["teacher"] = teacher.digest
    run_folder.check_workdir(workdir, config, digests)

    system = make_system(**config_lib.system_arguments(config), mesh=mesh)
    keys = run_keys(config.seed)
    steps_per_epoch = dataset.train_size // config.train.batch_size
    optimizer = make_optimizer(
        mask_lr=config.optim.mask_lr,
        filter_lr=config.optim.filter_lr,
        net_lr=config.optim.net_lr,
        schedule=config.optim.schedule,
        total_steps=steps_per_epoch * config.train.epochs,
    )
    trained = trained_parts(config.regime)
    shape = {"size": config.data.size, "channels": scene_channels(config.scene.kind)}
    params, state = jax.jit(system.init)(keys.init)
    start = init_train_state(params, state, optimizer, trained=trained)
    return Run(
        config=config,
        dataset=dataset,
        keys=keys,
        digests=digests,
        teacher=teacher,
        train_step=make_train_step(
            system,
            optimizer,
            trained=trained,
            weights=_loss_weights(config),
            batch_size=config.train.batch_size,
            teacher=teacher.system if teacher else None,
            mesh=mesh,
            **shape,
        ),
        eval_step=make_eval_step(system, mesh=mesh, **shape),
        start=replicate(start, mesh),
        mesh=mesh,
        steps_per_epoch=steps_per_epoch,
    )


def _train_epoch(
    run: Run,
    train_state: TrainState,
    step: int,
    checkpoints: Checkpoints,
    signals: "_Signals",
    bar: tqdm,
) -> tuple[TrainState, int]:
    """Advances to the end of the epoch that `step` lies in, or until a signal arrives."""
    epoch = step // run.steps_per_epoch
    images = replicate(run.dataset.train(epoch), run.mesh)
    order = replicate(epoch_order(run.keys.order, epoch, run.dataset.train_size), run.mesh)
    teacher_variables = run.teacher.variables if run.teacher else None
    loss = None
    while step < (epoch + 1) * run.steps_per_epoch and not signals.received:
        loss_before = loss
        train_state, loss = run.train_step(
            train_state, teacher_variables, images, order, run.keys.steps
        )
        step += 1
        # The loss of the step before this one: so the device never waits for the host.
        if loss_before is not None:
            _require_finite(float(loss_before), step - 1, checkpoints)
        bar.update()
    if loss is not None:
        _require_finite(float(loss), step, checkpoints)
    return train_state, step


def _load_teacher(config: Config, mesh: Mesh | None) -> Trained | None:
    if config.regime != Regime.STUDENT:
        return None
    workdir = Path(config.distill.teacher)
    if not workdir.is_dir():
        raise InputError(
            f"distill.teacher: no folder {str(workdir)!r}; give the --workdir of a trained teacher"
        )
    theirs = run_folder.read_config(workdir)
    misfits = config_fields.differences(config, theirs, only=TEACHER_FITS)
    if misfits:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} does not fit; differing (student against teacher): "
            f"{'; '.join(misfits)}; train a teacher with the student's values"
        )
    # A teacher that is still training may improve: its best checkpoint would change under the
    # student, who could then never resume.
    done = run_folder.epochs_done(workdir)
    if done < theirs.train.epochs:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} has finished {done} of {theirs.train.epochs} "
            "epochs; run its training to the end first"
        )
    teacher = load_trained(workdir, theirs, mesh=mesh)
    return teacher._replace(variables=replicate(teacher.variables, mesh))


def _require_same_split(config: Config, dataset: sources.Dataset) -> None:
    """Lest the teacher was trained on images that the student is going to be scored on."""
    theirs = run_folder.read_run(Path(config.distill.teacher))["digests"].get("held_back", "")
    if theirs != dataset.held_back_digest:
        raise InputError(
            f"distill.teacher: {config.distill.teacher!r} had other validation or test images "
            f"(digest {theirs[:12] or 'none'}, student's {dataset.held_back_digest[:12]}); "
            "give both the same data.*, data.train_images excepted"
        )


def _loss_weights(config: Config) -> LossWeights:
    weights = LossWeights(
        alpha=config.loss.alpha,
        rho=config.loss.rho,
        regulariser=config.masks.regulariser,
        levels=config.masks.levels,
    )
    if config.regime != Regime.STUDENT:
        return weights
    sigma = losses.feature_weight(config.loss.alpha, config.loss.beta)
    return weights._replace(beta=config.loss.beta, sigma=sigma)


def _summary(run: Run) -> str:
    config, dataset = run.config, run.dataset
    counts = count_parameters(run.start.params)
    lines = [
        f"{config.regime}: {config.masks.snapshots} snapshot(s), {config.data.size} x "
        f"{config.data.size} pixels, {config.scene.kind} scene, T = {config.spectral.iterations}, "
        f"oversample {config.masks.oversample}, noise {config.noise.kind}",
        f"parameters: {counts['total']:,} (masks {counts['phases']:,}, filter {counts['filter']}, "
        f"network {counts['net']:,}); trained: {', '.join(trained_parts(config.regime))}",
        f"data: {config.data.source}, {dataset.train_size:,} train, "
        f"{len(dataset.validation):,} validation, {len(dataset.test):,} test images",
        f"{run.total_steps:,} steps of {config.train.batch_size} on {config.train.devices} x "
        f"{jax.devices()[0].device_kind}",
    ]
    if run.total_steps < FEW_STEPS:
        lines.append(
            f"note: {run.total_steps} steps are few; some hundred are needed to recover anything: "
            "raise train.epochs, or lower train.batch_size"
        )
    if run.teacher is not None:
        lines.append(f"teacher: {config.distill.teacher}, digest {run.teacher.digest[:12]}")
    return "\n".join(lines)


def _require_finite_state(state: TrainState, step: int, checkpoints: Checkpoints) -> None:
    """The last update may have spoilt the parameters after a loss that was finite still."""
    leaves = jax.tree.leaves((state.params, state.state))
    _require_finite(float(sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves)), step, checkpoints)


def _require_finite(loss: float, step: int, checkpoints: Checkpoints) -> None:
    if math.isfinite(loss):
        return
    good = checkpoints.latest_step()
    advice = "no checkpoint yet" if good is None else f"last good checkpoint: step {good}"
    raise NonFiniteLossError(
        f"the loss or the parameters became non-finite at step {step}; {advice} in "
        f"{checkpoints.workdir}; lower the learning rates (optim.*_lr) or change the loss weights"
    )


def _epoch_row(run: Run, state: TrainState, step: int, started: float) -> dict[str, Any]:
    """Validates at the end of an epoch and returns its row of metrics.jsonl."""
    losses_mean = {
        f"train_{name}": float(total) / run.steps_per_epoch
        for name, total in state.totals._asdict().items()
    }
    trained = time.perf_counter()
    scores, residuals = over_batches(
        partial(run.eval_step, state.params, state.state, run.dataset.validation),
        len(run.dataset.validation),
        batch_size=run.config.train.eval_batch_size,
        key=run.keys.evaluation,
    )
    return {
        "epoch": step // run.steps_per_epoch,
        "step": step,
        **losses_mean,
        SCORE: float(jnp.mean(scores.psnr)),
        "validation_psnr_pooled": float(psnr_from_mse(jnp.mean(scores.mse))),
        "validation_ssim": float(jnp.mean(scores.ssim)),
        "validation_residual": float(jnp.mean(residuals)),
        "train_seconds": trained - started,
        "seconds": time.perf_counter() - started,
    }


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_total']:.5f}  "
        f"validation {row[SCORE]:.2f} dB, SSIM {row['validation_ssim']:.3f}  {row['seconds']:.1f} s"
    )


class _Signals:
    """While entered, a first SIGINT or SIGTERM is only noted, for the loop to save and leave.

    A second one raises KeyboardInterrupt at once, for who will not wait for the step to end.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> "_Signals":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
