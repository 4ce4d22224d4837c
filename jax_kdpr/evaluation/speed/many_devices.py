"""What the devices of one training exchange in a step, read from the compiled program."""

import math
import re
from typing import NamedTuple

import numpy as np
from jax.sharding import AxisType, Mesh

from jax_kdpr.core.sharding import AXIS
from jax_kdpr.evaluation.speed.ahead import devices_of

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "c64": 8, "bf16": 2, "f16": 2, "u8": 1, "pred": 1}


class Collective(NamedTuple):
    """One exchange among all devices."""

    kind: str  # as XLA names it
    bytes: int  # of its result on each device


def mesh_of(target: str, devices: int) -> Mesh:
    """Returns a mesh of `devices` GPUs that need not be present; raises as `devices_of`."""
    return Mesh(np.array(devices_of(target, devices)), (AXIS,), axis_types=(AxisType.Auto,))


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
