"""The programs behind a study's runs: compiled from shapes alone, and timed.

Nothing here reads data or a teacher's checkpoint, so a study can be rehearsed before its first run.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.sharding import everywhere, make_mesh
from jax_kdpr.evaluation.speed.ahead import described
from jax_kdpr.evaluation.speed.cases import NATIVE_SIZE, program_bytes
from jax_kdpr.evaluation.speed.timing import Timing, clock, time_alternating
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.training.losses import guides, loss_weights
from jax_kdpr.training.setup import build_step, trained_parts
from jax_kdpr.training.state import init_train_state
from jax_kdpr.training.steps import Epoch, compile_steps
from jax_kdpr.training.targets import Targets, make_teach
from jax_kdpr.training.teacher import changing_targets

BATCHES = 2  # of images, in the programs compiled here
STEPS = 50  # of an epoch, of which `runtime.choose_scan_steps` may put all into one call
CALLS = 20  # timed calls of each inference


class Program(NamedTuple):
    """A training step, traced for its shapes."""

    digest: str  # of its StableHLO, so that equal programs are compiled once
    lowered: jax.stages.Lowered

    def compile_bytes(self) -> int:
        """Compiles it; returns arguments, results and temporaries on one device, in bytes."""
        return program_bytes(self.lowered.compile())


def trace_step(config: Config, teacher: Config | None, *, on: Mesh | None = None) -> Program:
    """Traces the training step of a run, from its config and its teacher's.

    Targets count as cached, whether or not all of them would fit, unless they change or `config`
    wants a live teacher. The program holds images and targets of two batches only.

    Args:
        config: Config of the run.
        teacher: Config of its teacher, if it has one.
        on: Devices, which need not be present (`many_devices.mesh_of`); None for those that
            `config` asks for.
    """
    mesh = on or make_mesh(runtime.choose_devices(config.train.devices, config.train.batch_size))
    count, size = BATCHES * config.train.batch_size, config.data.size
    side = NATIVE_SIZE if config.data.source == "fashion_mnist" else size
    guide, teach = None, None
    if teacher is not None and guides(loss_weights(config)):
        system = build_system(teacher, mesh=mesh)
        teach, guide = make_teach(system), jax.jit(system.init)(jax.random.key(0))
        live = config.distill.targets == "live" or changing_targets(config, teacher)
        if not live:
            batch = jnp.zeros((config.train.batch_size, size, size, config.scene.channels))
            one = jax.eval_shape(teach, guide, batch, jax.random.key(0))
            rows = [jnp.zeros((count, *leaf.shape[1:]), leaf.dtype) for leaf in one]
            guide, teach = Targets(*rows), None
    system, optimizer, step = build_step(
        config, total_steps=BATCHES * config.train.epochs, teach=teach, mesh=mesh
    )
    params, state = jax.jit(system.init)(jax.random.key(0))
    start = init_train_state(
        params,
        state,
        optimizer,
        trained=trained_parts(config),
        keep_average=config.optim.average > 0,
    )
    epoch = Epoch(
        images=jnp.zeros((count, side, side), "uint8"),
        order=jnp.arange(count),
        key=jax.random.key(0),
        weights=loss_weights(config),
        guide=guide,
    )
    length = runtime.choose_scan_steps(config.train.scan_steps, STEPS)
    steps = compile_steps(step, length=length)
    # Lists of leaves: JAX also fills its arguments' containers with mere descriptions of arrays,
    # which TrainState and Epoch refuse where types are checked.
    (state_leaves, state_of), (epoch_leaves, epoch_of) = map(jax.tree.flatten, (start, epoch))
    by_leaves = jax.jit(
        lambda state, epoch: steps(
            jax.tree.unflatten(state_of, state), jax.tree.unflatten(epoch_of, epoch)
        ),
        donate_argnums=0,
    )
    lowered = by_leaves.lower(*described((state_leaves, epoch_leaves), everywhere(mesh)))
    return Program(hashlib.sha256(lowered.as_text().encode()).hexdigest(), lowered)


def time_inference(configs: Sequence[Config], *, batch: int) -> list[Timing]:
    """Times the recovery of a batch from its CDPs by several compiled systems, called in turn."""
    return time_alternating([_recovery_clock(config, batch) for config in configs], calls=CALLS)


def _recovery_clock(config: Config, batch: int) -> Callable[[], float]:
    mesh = make_mesh(runtime.choose_devices(config.train.devices, batch))
    system = build_system(config, mesh=mesh)
    variables = jax.jit(system.init)(jax.random.key(0))
    shape = (batch, config.data.size, config.data.size, config.scene.channels)
    images = jax.random.uniform(jax.random.key(1), shape)
    intensity = jax.jit(system.measure)(variables[0], images, jax.random.key(2))
    recover = jax.jit(
        lambda variables, intensity: system.recover(*variables, intensity=intensity)[0].image
    )
    return lambda: clock(lambda: jax.block_until_ready(recover(variables, intensity)))
