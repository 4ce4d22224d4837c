"""Programs compiled for a GPU that is not present, and what can be counted in them.

XLA's GPU compiler runs on any machine: it needs JAX's CUDA plugin, but neither CUDA nor a GPU. The
compiled program shows kernels, bytes and memory. Nothing has run, so no algorithm was chosen by
trial, and the program may still fail on a GPU. `Counts.seconds` is not measured but estimated from
the counts, to within 40 %.
"""

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Sharding, SingleDeviceSharding

from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import PyTree

# What XLA needs to know of a GPU (its GpuTargetConfigProto), by NVIDIA's data sheet.
TARGETS = {
    "h100": """
        gpu_device_info {
          threads_per_block_limit: 1024 threads_per_warp: 32
          shared_memory_per_block: 49152 shared_memory_per_core: 233472
          shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
          core_count: 132 fpus_per_core: 128
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
          device_memory_size: 84929347584 cuda_compute_capability { major: 9 }
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
        }
        platform_name: "CUDA"
        dnn_version_info { major: 9 minor: 12 }
        runtime_version { major: 13 minor: 0 patch: 0 }
        device_description_str: "NVIDIA H100 80GB HBM3"
    """
}
MEMORY = {"h100": 84_929_347_584}  # bytes
JAX_SHARE = 0.75  # of this memory, which JAX takes by default
# The time model: the time of a small kernel, and rates that large ones usually reach on an H100.
LAUNCH = 2.2e-6  # seconds
TRAFFIC = 2.6e12  # bytes a second
ARITHMETIC = {"float32": 45e12, "tf32": 88e12, "bfloat16": 170e12}  # FLOP/s in convolutions
# Instructions without a kernel of their own.
FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id"),
)
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
# The computations that an instruction runs: one name, or several in braces.
CALLED = re.compile(
    r"\b(?:calls|to_apply|body|(?:true|false)_computation|branch_computations)="
    r"(?:%([\w.\-]+)|\{([^}]*)\})"
)
INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(?:, (.*))?$")


class Instruction(NamedTuple):
    """One line of a program."""

    name: str
    shape: str  # of its result, as in the text
    kind: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool


class Counts(NamedTuple):
    """Counts of one run of a program."""

    kernels: int  # FFTs, convolutions and matrix products counted as one each
    in_loops: int  # of these kernels
    bytes: int  # read and written
    bytes_in_loops: int
    seconds: float  # by the time model
    trips: tuple[int | None, ...]  # trip count of each loop; None if XLA does not know it
    convolutions: tuple[tuple[str, int], ...]  # (what each gives, pixels of its window)


@cache
def devices_of(target: str, count: int) -> tuple[Any, ...]:
    """Returns `count` GPUs of one kind in `TARGETS`, which need not be present.

    Raises:
        InputError: If JAX's CUDA plugin is not installed.
    """
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=TARGETS[target], topology=f"1x1x{count}"
        )
    except Exception as failure:  # JAX raises many kinds
        said = str(failure).split("\n")[0][:200]
        raise InputError(
            f"--for: XLA's compiler for NVIDIA GPUs cannot be had ({said}); pip install -e "
            "'.[aot]', and set JAX_PLATFORMS=cpu where there is no GPU"
        ) from failure
    return tuple(topology.devices)


def standing_in_for(target: str) -> AbstractContextManager[None]:
    """Makes every choice inside as for a GPU of `TARGETS`, with JAX's share of its memory."""
    return runtime.standing_in(int(JAX_SHARE * MEMORY[target]))


def compile_for(target: str, program: Callable[..., Any], arguments: tuple) -> jax.stages.Compiled:
    """Compiles a jitted program for a GPU that is not present.

    Args:
        target: One of `TARGETS`.
        program: The jitted function.
        arguments: Arrays, or their shapes.

    Raises:
        InputError: As in `devices_of`.
    """
    there = SingleDeviceSharding(*devices_of(target, 1))
    with standing_in_for(target):
        return program.lower(*described(arguments, there)).compile()


def described(arrays: PyTree, place: Sharding | None) -> Any:
    """Returns the shapes of arrays on the devices of a sharding, which need not be present."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        aval = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(
            aval.shape, aval.dtype, sharding=place, weak_type=aval.weak_type
        )

    return jax.tree.map(one, arrays)


def count(text: str, precision: str) -> Counts:
    """Counts kernels and bytes in the text of a compiled program, `Compiled.as_text()`.

    A loop's body counts as often as it runs, or once if XLA does not know how often. All branches
    of a conditional count.

    Args:
        text: Text of a program for a GPU.
        precision: Precision of the network's convolutions, for the time model.
    """
    computations, entry = _read(text)
    return _count(computations[entry], computations, ARITHMETIC[precision])


def _read(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Returns {computation: {name: instruction}}, and the name of the entry computation."""
    found: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(ENTRY )?%([\w.\-]+) ", line)):
            current = found.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif said := INSTRUCTION.match(line):
            root, name, shape, kind, operands, rest = said.groups()
            # A parameter has only its number where others have operands.
            named = (operands,) if kind == "parameter" else re.findall(r"%([\w.\-]+)", operands)
            current[name] = Instruction(name, shape, kind, tuple(named), rest or "", bool(root))
    return found, entry


def _count(
    instructions: dict[str, Instruction],
    computations: dict[str, dict[str, Instruction]],
    arithmetic: float,
) -> Counts:
    total = Counts(0, 0, 0, 0, 0.0, (), ())
    for one in instructions.values():
        if one.kind in FREE:
            continue
        called = _called(one)
        if one.kind == "while":
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', one.rest)
            trips = int(known[1]) if known else None
            body = _count(computations[called[0]], computations, arithmetic)
            total = _add(total, _times(body, trips or 1)._replace(trips=(trips, *body.trips)))
        elif one.kind in ("call", "conditional", "async-start"):
            for name in called:
                total = _add(total, _count(computations[name], computations, arithmetic))
        elif not one.kind.endswith("-done"):
            total = _add(total, _kernel(one, instructions, computations, arithmetic))
    return total


def _kernel(
    one: Instruction,
    instructions: dict[str, Instruction],
    computations: dict[str, dict[str, Instruction]],
    arithmetic: float,
) -> Counts:
    inside = computations[_called(one)[0]] if one.kind == "fusion" else {one.name: one}
    moved = _written(one, inside) + sum(
        _read_of(index, instructions[name], inside, one)
        for index, name in enumerate(one.operands)
        if name in instructions
    )
    seconds, convolutions = max(LAUNCH, moved / TRAFFIC), ()
    if "$conv" in one.rest:
        window = re.search(r"window=\{size=([\dx]+)", one.rest)
        taps = math.prod(map(int, window[1].split("x"))) if window else 1
        arrays = [*(instructions[name].shape for name in one.operands[:2]), one.shape]
        # X [b h w i], K [taps i o] and Y [b h w o], whichever of them is the result.
        product = math.prod(math.prod(_sides(shape)) for shape in arrays)
        seconds = max(seconds, 2.0 * math.sqrt(taps * product) / arithmetic)
        given = re.search(r"\$conv(\w+)", one.rest)
        convolutions = ((given[1] if given else "", taps),)
    return Counts(1, 0, moved, 0, seconds, (), convolutions)


def _written(one: Instruction, inside: dict[str, Instruction]) -> int:
    """Returns the bytes that a kernel writes; in an array changed in place, only those changed."""
    roots = [each for each in inside.values() if each.is_root] or [one]
    if roots[0].kind == "tuple":
        roots = [inside[name] for name in roots[0].operands]
    return sum(_changed(root, inside) for root in roots)


def _changed(root: Instruction, inside: dict[str, Instruction]) -> int:
    while root.kind == "bitcast":
        root = inside[root.operands[0]]
    if root.kind == "dynamic-update-slice" and root.operands[1] in inside:
        return _bytes(inside[root.operands[1]].shape)
    return _bytes(root.shape)


def _read_of(
    index: int, operand: Instruction, inside: dict[str, Instruction], kernel: Instruction
) -> int:
    """Returns the bytes that a kernel reads of an operand; if it only slices it, of the slices."""
    if kernel.kind != "fusion":
        return _bytes(operand.shape) if kernel.kind != "dynamic-slice" else _bytes(kernel.shape)
    parameter = next(
        each.name
        for each in inside.values()
        if each.kind == "parameter" and each.operands == (str(index),)
    )
    looked = _uses(parameter, inside)
    return _bytes(operand.shape) if looked is None else looked


def _uses(name: str, inside: dict[str, Instruction]) -> int | None:
    """Returns the bytes of the slices that a fusion reads of an array; None if it reads all."""
    looked = 0
    for use in inside.values():
        if name not in use.operands:
            continue
        if use.kind == "bitcast":
            part = _uses(use.name, inside)
            if part is None:
                return None
            looked += part
        elif use.kind == "dynamic-slice":
            looked += _bytes(use.shape)
        elif use.kind != "dynamic-update-slice" or use.operands[0] != name:
            return None
    return looked


def _called(one: Instruction) -> list[str]:
    """Returns the computations that an instruction runs; for a loop, its body."""
    return [
        name.strip().lstrip("%")
        for single, several in CALLED.findall(one.rest)
        for name in (single or several).split(",")
    ]


def _sides(shape: str) -> list[int]:
    """Returns the sides of the first array of a shape."""
    first = SHAPE.search(shape)
    return [int(side) for side in first[2].split(",") if side] if first else [0]


def _bytes(shape: str) -> int:
    """Returns the bytes of all arrays of a shape."""
    total = 0
    for kind, sides in SHAPE.findall(shape):
        bits = 8 if kind == "pred" else int(re.sub(r"^[a-z]+(\d*).*", r"\1", kind) or 0)
        total += math.ceil(bits / 8 * math.prod(int(side) for side in sides.split(",") if side))
    return total


def _times(body: Counts, trips: int) -> Counts:
    """Returns the counts of a loop from those of its body."""
    return body._replace(
        kernels=trips * body.kernels,
        in_loops=trips * body.kernels,
        bytes=trips * body.bytes,
        bytes_in_loops=trips * body.bytes,
        seconds=trips * body.seconds,
    )


def _add(one: Counts, other: Counts) -> Counts:
    pairs: Any = zip(one, other, strict=True)
    return Counts(*[a + b for a, b in pairs])
