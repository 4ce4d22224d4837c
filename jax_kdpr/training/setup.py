"""Makes all that a training needs from its config: data, teacher, steps, and start state.

Mistakes of the user are found here, before anything is compiled or written.
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jax_kdpr.config import checks, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import options, processes, runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.registry import blaming
from jax_kdpr.core.sharding import make_mesh, replicate
from jax_kdpr.core.types import Params, Scalar, State
from jax_kdpr.data import sources
from jax_kdpr.optics.beam import Plane
from jax_kdpr.recovery.system import System
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_system, read_planes, start_phases
from jax_kdpr.runs.metric_log import require_loggers
from jax_kdpr.runs.run import RunKeys, training_keys
from jax_kdpr.training.gradients import Report, make_report
from jax_kdpr.training.lessons import Lessons
from jax_kdpr.training.losses import Objective, Weights, guides, loss_weights
from jax_kdpr.training.state import TrainState, init_train_state, make_optimizer
from jax_kdpr.training.steps import Step, Steps, compile_steps, make_train_step
from jax_kdpr.training.targets import Teach
from jax_kdpr.training.teacher import Teacher, load_teacher
from jax_kdpr.training.validation import Validate, make_validate


class Training(NamedTuple):
    """Everything that one training needs, and that it does not change."""

    config: Config
    workdir: Path
    keys: RunKeys
    dataset: sources.Dataset
    digests: dict[str, str]
    planes: dict[str, Plane]
    """Contents of the files of its optics, by the section of the config that names the file."""
    teacher: Teacher | None
    system: System
    train_steps: Callable[[int], Steps]
    """train_steps(length) -> the program of `length` steps, compiled when it is first called."""
    validate: Validate
    gradients: Report | None
    """Report on the gradient of each loss, if it is logged."""
    start: TrainState
    weights: Weights
    steps_per_epoch: int
    eval_batch_size: int
    scan_steps: int
    mesh: Mesh | None
    lessons: Lessons | None = None
    """Data of a bench, besides the data set."""
    from_trained: bool = False
    """Whether the start is a trained system, which is the best one until a step improves it."""

    @property
    def total_steps(self) -> int:
        """Length of the whole training."""
        return self.steps_per_epoch * self.config.train.epochs


def prepare(config: Config, workdir: Path) -> Training:
    """Checks a run against its data, teacher and folder, and builds its steps; writes nothing.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
    """
    data, train = config.data, config.train
    checks.validate(config)
    config = run_folder.with_copies(config, workdir)
    planes = read_planes(config)
    needed = checks.training_bytes(config)
    runtime.require_memory(checks.MEMORY, needed)
    eval_batch_size = runtime.choose_eval_batch(
        train.eval_batch_size,
        size=data.size,
        features=config.net.widths[0],
        devices=max(train.devices, jax.device_count() if processes.several() else 1),
    )
    devices = runtime.choose_devices(train.devices, train.batch_size, eval_batch_size)
    mesh = make_mesh(devices)
    require_loggers(tensorboard=train.tensorboard, wandb=train.wandb)
    dataset = schema.load_data(config)
    if train.batch_size > dataset.train_size:
        raise InputError(
            f"train.batch_size: expected at most the {dataset.train_size} training images, "
            f"got {train.batch_size}; lower it or bring more images"
        )
    digests = {"data": dataset.digest, "held_back": dataset.held_back_digest}
    weights = loss_weights(config)
    teacher = load_teacher(config, dataset, guides=guides(weights), mesh=mesh)
    if teacher is not None:
        digests["teacher"] = teacher.run.digest
    steps_per_epoch = dataset.train_size // train.batch_size
    keys = training_keys(config)
    foreign = options.foreign_names(config).values()
    with blaming(foreign):
        system, optimizer, train_step = build_step(
            config,
            total_steps=steps_per_epoch * train.epochs,
            teach=teacher and teacher.live,
            mesh=mesh,
        )
        held = -(-len(dataset.validation) // devices) * devices  # if fewer than a batch: no padding
        validate = make_validate(
            system,
            dataset.validation,
            batch_size=min(eval_batch_size, held),
            key=keys.evaluation,
        )
    digests |= {section: plane.digest for section, plane in planes.items()}
    run_folder.check_workdir(workdir, config, digests, dataset.sample)
    for warning in system.camera.warnings():
        print(f"warning: {warning}", file=sys.stderr)

    with blaming(foreign):
        params, state = jax.jit(system.init)(keys.init)
        if foreign:  # its errors occur here, before anything is written
            _try_out(system, (params, state), config)
    if teacher is not None:
        params, state = teacher.take_over(config.distill.start, params, state)
    params = {**params, "phases": start_phases(config, params["phases"], planes)}
    start = init_train_state(
        params,
        state,
        optimizer,
        trained=trained_parts(config),
        keep_average=config.optim.average > 0,
    )
    streamed = 4 * train.batch_size * config.scene.channels * data.size**2
    return Training(
        config=config,
        workdir=workdir,
        keys=keys,
        dataset=dataset,
        digests=digests,
        planes=planes,
        teacher=teacher,
        system=system,
        train_steps=cache(partial(compile_steps, train_step)),
        validate=validate,
        gradients=_report(config, system, teacher) if train.log_gradients else None,
        start=replicate(start, mesh),
        weights=weights,
        steps_per_epoch=steps_per_epoch,
        eval_batch_size=eval_batch_size,
        scan_steps=runtime.choose_scan_steps(
            train.scan_steps, steps_per_epoch, step_bytes=streamed if dataset.stream else 0
        ),
        mesh=mesh,
    )


def _report(config: Config, system: System, teacher: Teacher | None) -> Report:
    return make_report(
        system,
        trained=trained_parts(config),
        batch_size=config.train.batch_size,
        objective=Objective.of(config),
        teach=teacher and teacher.live,
    )


def _try_out(system: System, variables: tuple[Params, State], config: Config) -> None:
    """Traces one pass and its gradient, but computes nothing."""
    size, objective = config.data.size, Objective.of(config)
    images = jnp.zeros((config.train.batch_size, size, size, config.scene.channels))

    def loss(params: Params) -> Scalar:
        output, _ = system.apply(params, variables[1], images, jax.random.key(0), train=True)
        return objective.task(output.image, images) + objective.penalty(params["phases"])

    jax.eval_shape(jax.grad(loss), variables[0])


def build_step(
    config: Config, *, total_steps: int, teach: Teach | None, mesh: Mesh | None
) -> tuple[System, optax.GradientTransformation, Step]:
    """Builds a run's system, optimiser and step from its config, without data or folder.

    Args:
        config: A validated config.
        total_steps: Length of the training.
        teach: From `make_teach`, for a live teacher; None without one or with cached targets.
        mesh: Devices to spread a batch over.
    """
    system = build_system(config, mesh=mesh)
    optimizer = make_optimizer(config.optim, total_steps=total_steps)
    step = make_train_step(
        system,
        optimizer,
        trained=trained_parts(config),
        batch_size=config.train.batch_size,
        objective=Objective.of(config),
        teach=teach,
        average=config.optim.average,
    )
    return system, optimizer, step


def trained_parts(config: Config) -> tuple[str, ...]:
    """Returns the parts of `params` that a run trains."""
    if config.regime == "random":
        return ("net",)
    return ("phases", "filter", "net") if config.masks.trained else ("filter", "net")
