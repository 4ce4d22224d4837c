"""From a config to all that a training needs: data, teacher, compiled steps, start state.

Everything that a user can get wrong is found here, before anything is compiled or written.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jax_kdpr.config import checks
from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.core.registry import blaming
from jax_kdpr.core.sharding import make_mesh, replicate
from jax_kdpr.core.types import Params, Residuals, Scalar, State
from jax_kdpr.data import sources
from jax_kdpr.optics.masks import REGULARISERS
from jax_kdpr.optics.propagation import sampling_warnings
from jax_kdpr.recovery.system import System
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.metric_log import require_tensorboard
from jax_kdpr.runs.run import Run, RunKeys, run_keys
from jax_kdpr.training.losses import Weights, guides, loss_weights
from jax_kdpr.training.state import TrainState, init_train_state, make_optimizer
from jax_kdpr.training.steps import Step, make_eval_step, make_train_step
from jax_kdpr.training.targets import Targets, Teach, cache_targets, make_teach
from jax_kdpr.training.teacher import can_cache_targets, load_teacher, require_same_split, take_over


class Training(NamedTuple):
    """Everything that one training needs and that does not change while it lasts."""

    config: Config
    workdir: Path
    keys: RunKeys
    dataset: sources.Dataset
    digests: dict[str, str]
    teacher: Run | None
    teach: Teach | None
    caches_targets: bool
    system: System
    train_step: Step
    eval_step: Callable[..., tuple[ImageScores, Residuals]]
    start: TrainState
    weights: Weights
    steps_per_epoch: int
    eval_batch_size: int
    scan_steps: int
    mesh: Mesh | None

    @property
    def total_steps(self) -> int:
        """Length of the whole training."""
        return self.steps_per_epoch * self.config.train.epochs


def prepare(config: Config, workdir: Path) -> Training:
    """Checks a run against its data, teacher and folder, and builds its steps; writes nothing.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
    """
    checks.validate(config)
    runtime.require_memory(
        "data.size, masks.snapshots, masks.oversample, net.widths, train.batch_size",
        checks.training_bytes(config),
    )
    if config.train.tensorboard:
        require_tensorboard()
    eval_batch_size = runtime.choose_eval_batch(
        config.train.eval_batch_size,
        size=config.data.size,
        features=config.net.widths[0],
    )
    # An automatic number must fit the devices that were asked for.
    asked = max(1, config.train.devices)
    eval_batch_size = -(-eval_batch_size // asked) * asked
    mesh = _mesh(config, eval_batch_size)
    teacher = load_teacher(config, mesh)
    dataset = config_lib.load_data(config)
    if config.train.batch_size > dataset.train_size:
        raise InputError(
            f"train.batch_size: expected at most the {dataset.train_size} training images, "
            f"got {config.train.batch_size}; lower it or bring more images"
        )
    digests = {"data": dataset.digest, "held_back": dataset.held_back_digest}
    if teacher is not None:
        require_same_split(config, dataset)
        digests["teacher"] = teacher.digest
    weights = loss_weights(config)
    teach, caches_targets = None, False
    if teacher is not None and guides(weights):
        teach = make_teach(teacher.system)
        caches_targets = can_cache_targets(config, teach, teacher, dataset, mesh)
    run_folder.check_workdir(workdir, config, digests, dataset.sample)
    size, oversample = config.data.size, config.masks.oversample
    for warning in sampling_warnings(size, config.propagation, oversample=oversample):
        print(f"warning: propagation: {warning}", file=sys.stderr)

    steps_per_epoch = dataset.train_size // config.train.batch_size
    keys = run_keys(config.seed)
    foreign = config_lib.foreign_names(config).values()
    with blaming(foreign):
        system, optimizer, train_step = build_step(
            config,
            total_steps=steps_per_epoch * config.train.epochs,
            teach=None if caches_targets else teach,
            mesh=mesh,
        )
        params, state = jax.jit(system.init)(keys.init)
        if foreign:  # found here, before anything is written, not at the first step
            _try_out(system, (params, state), config)
    if teacher is not None:
        params, state = take_over(config, teacher, params, state)
    start = init_train_state(
        params,
        state,
        optimizer,
        trained=trained_parts(config.regime),
        keep_average=config.optim.average > 0,
    )
    return Training(
        config=config,
        workdir=workdir,
        keys=keys,
        dataset=dataset,
        digests=digests,
        teacher=teacher,
        teach=teach,
        caches_targets=caches_targets,
        system=system,
        train_step=train_step,
        eval_step=make_eval_step(system),
        start=replicate(start, mesh),
        weights=weights,
        steps_per_epoch=steps_per_epoch,
        eval_batch_size=eval_batch_size,
        scan_steps=runtime.choose_scan_steps(config.train.scan_steps, steps_per_epoch),
        mesh=mesh,
    )


def _try_out(system: System, variables: tuple[Params, State], config: Config) -> None:
    """Traces one pass and its gradient, and computes nothing."""
    size, penalty = config.data.size, REGULARISERS[config.masks.regulariser]
    images = jnp.zeros((config.train.batch_size, size, size, config.scene.channels))

    def loss(params: Params) -> Scalar:
        output, _ = system.apply(params, variables[1], images, jax.random.key(0), train=True)
        return jnp.mean(output.image) + penalty(params["phases"])

    jax.eval_shape(jax.grad(loss), variables[0])


def build_step(
    config: Config, *, total_steps: int, teach: Teach | None, mesh: Mesh | None
) -> tuple[System, optax.GradientTransformation, Step]:
    """Builds a run's system, optimiser and step from its config alone; needs no data, no folder.

    Args:
        config: Validated.
        total_steps: Length of the training.
        teach: A live teacher's; None without one, or where its targets are cached.
        mesh: Devices to spread a batch over.
    """
    system = build_system(config, mesh=mesh)
    optimizer = make_optimizer(config.optim, total_steps=total_steps)
    step = make_train_step(
        system,
        optimizer,
        trained=trained_parts(config.regime),
        batch_size=config.train.batch_size,
        penalty=REGULARISERS[config.masks.regulariser],
        teach=teach,
        average=config.optim.average,
    )
    return system, optimizer, step


def make_guide(run: Training) -> Targets | tuple[Params, State] | None:
    """Returns what the steps learn from: targets, made now, or a teacher's variables, or None."""
    if run.teacher is None or run.teach is None:
        return None  # a teacher whose losses weigh nothing was only the student's start
    if not run.caches_targets:
        return run.teacher.variables
    config = run.config
    targets = cache_targets(
        run.teach,
        run.teacher.variables,
        run.dataset.train(0),
        size=config.data.size,
        channels=config.scene.channels,
        batch_size=run.eval_batch_size,
    )
    return replicate(targets, run.mesh)


def trained_parts(regime: str) -> tuple[str, ...]:
    """Returns the parts of `params` that a regime trains."""
    return ("net",) if regime == "random" else ("phases", "filter", "net")


def _mesh(config: Config, eval_batch_size: int) -> Mesh | None:
    if config.train.devices > jax.local_device_count():
        raise InputError(
            f"train.devices: expected at most the {jax.local_device_count()} device(s) of this "
            f"machine, got {config.train.devices}"
        )
    devices = runtime.choose_devices(config.train.devices, config.train.batch_size, eval_batch_size)
    return make_mesh(devices)
