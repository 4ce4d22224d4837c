"""What the devices of one training say to each other in a step, read from the compiled program."""

import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.sharding import AXIS, make_mesh
from jax_kdpr.evaluation.speed.ahead import JAX_SHARE, MEMORY, TARGETS, place
from jax_kdpr.training.losses import loss_weights
from jax_kdpr.training.setup import build_step, trained_parts
from jax_kdpr.training.state import init_train_state
from jax_kdpr.training.steps import Epoch, compile_steps

BATCHES = 2  # of images, in the program
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "c64": 8, "bf16": 2, "f16": 2, "u8": 1, "pred": 1}


class Collective(NamedTuple):
    """One exchange among all devices."""

    kind: str  # as XLA names it
    bytes: int  # of its result on each device


def mesh_of(target: str, devices: int) -> Mesh:
    """Returns a mesh of so many GPUs that need not be there, one of `ahead.TARGETS`.

    Raises:
        InputError: As `ahead.place`.
    """
    place(target)
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGETS[target], topology=f"1x1x{devices}"
    )
    return Mesh(np.array(topology.devices), (AXIS,), axis_types=(AxisType.Auto,))


def compile_step(config: Config, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles the training step of a config without a teacher for the devices of a mesh."""
    with runtime.standing_in(int(JAX_SHARE * MEMORY["h100"])):
        _, optimizer, step = build_step(config, total_steps=1000, teach=None, mesh=mesh)
        system, _, _ = build_step(config, total_steps=1000, teach=None, mesh=make_mesh(1))
        params, state = jax.jit(system.init)(jax.random.key(0))
        start = init_train_state(params, state, optimizer, trained=trained_parts(config))
        count, size = BATCHES * config.train.batch_size, config.data.size
        epoch = Epoch(
            images=jnp.zeros((count, size, size), "uint8"),
            order=jnp.arange(count),
            key=jax.random.key(0),
            weights=loss_weights(config),
        )
        leaves, structure = jax.tree.flatten((start, epoch))
        steps = compile_steps(step)
        # A list: what JAX tells of its arguments is no TrainState where types are checked.
        program = jax.jit(lambda leaves: steps(*jax.tree.unflatten(structure, leaves)))
        everywhere = NamedSharding(mesh, P())
        shapes = [
            jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=everywhere)
            for one in map(jax.typeof, leaves)
        ]
        return program.lower(shapes).compile()


def collectives(text: str) -> list[Collective]:
    """Returns the exchanges of a compiled program (`Compiled.as_text`), the largest first."""
    found = [
        Collective(kind, sum(map(_bytes, re.findall(r"(\w+)\[([\d,]*)\]", shape))))
        for shape, kind in COLLECTIVE.findall(text)
    ]
    return sorted(found, key=lambda one: -one.bytes)


def _bytes(shape: tuple[str, str]) -> int:
    kind, sides = shape
    return BYTES[kind] * math.prod(map(int, filter(None, sides.split(","))))
