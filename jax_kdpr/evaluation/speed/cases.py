"""The cases to time: each part of a system and each kind of training step, compiled separately.

The values of the inputs do not change how long anything takes. So images are noise of
Fashion-MNIST's size and type, and systems have their random start values.
"""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_kdpr.config.schema import Config, OptimOptions
from jax_kdpr.core.sharding import AXIS, replicate
from jax_kdpr.core.types import Images, Params, State
from jax_kdpr.evaluation.speed.counts import (
    Work,
    convolution_work,
    measure_work,
    spectral_work,
    unet_layers,
    unet_work,
)
from jax_kdpr.recovery.system import System
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.training.losses import Weights
from jax_kdpr.training.setup import trained_parts
from jax_kdpr.training.state import init_train_state, make_optimizer
from jax_kdpr.training.steps import Epoch, compile_steps, make_train_step
from jax_kdpr.training.targets import make_teach

NATIVE_SIZE = 28  # pixels of the images that a step gathers and resizes
BATCHES = 4  # of images held for the steps
SWEPT = ("inference, student", "spectral initialisation, student", "step, e2e")  # cases of a sweep

Call = Callable[[], Any]


class Case(NamedTuple):
    """One thing to time; `call` is compiled, and returns when its work is done."""

    name: str
    call: Call
    units: int  # batches, or steps, in one call
    compile_seconds: float
    memory_bytes: int | None  # arguments, results and temporaries of the program, on all devices
    work: Work  # of one unit


class Program(NamedTuple):
    """What a case runs, before it is compiled."""

    run: Callable  # jitted
    arguments: tuple
    work: Work  # of one unit
    units: int = 1
    carries: bool = False  # its first argument is donated, and comes back as the first result


class Plan(NamedTuple):
    """A case whose arrays are not made yet."""

    name: str
    make: Callable[[], Program]

    def compile(self) -> Case:
        """Makes its arrays and compiles it for the default device."""
        run, arguments, work, units, carries = self.make()
        compiled, seconds, memory = _compile(run, arguments)
        held, rest = [arguments[0]], arguments[1:]

        def call():
            result = compiled(held[0], *rest)
            if carries:
                held[0], result = result
            return jax.block_until_ready(result)

        return Case(self.name, call, units, seconds, memory, work)


class Made(NamedTuple):
    """A case of more than one program."""

    name: str
    compile: Callable[[], Case]


class Shape(NamedTuple):
    """What all cases have in common."""

    config: Config  # of the student
    teacher_snapshots: int
    batch: int
    scan_steps: int
    mesh: Mesh | None
    made: dict[int, tuple[Params, State]]  # `variables` by snapshots, as far as they were needed

    def make(self, snapshots: int) -> System:
        """Builds the system of `snapshots` snapshots."""
        config = copy.deepcopy(self.config)
        config.masks.snapshots = snapshots
        return build_system(config, mesh=self.mesh)

    def variables(self, snapshots: int) -> tuple[Params, State]:
        """Returns (params, state) of this system at its random start, a copy on each device."""
        if snapshots not in self.made:
            start = jax.jit(self.make(snapshots).init)(jax.random.key(0))
            self.made[snapshots] = replicate(start, self.mesh)
        return self.made[snapshots]

    @property
    def roles(self) -> dict[str, int]:
        """Snapshots of student and teacher."""
        return {"student": self.config.masks.snapshots, "teacher": self.teacher_snapshots}


def inference_cases(shape: Shape) -> Iterator[Plan]:
    """Yields the recovery of a batch from its CDPs, and its parts, for student and teacher."""
    for role, snapshots in shape.roles.items():
        system = shape.make(snapshots)
        spectral = _work(shape, snapshots, "spectral")
        camera, network = (_work(shape, snapshots, part) for part in ("camera", "network"))

        # XLA computes only what is returned: for the estimate it drops the network.
        def estimate(variables, cdps, system=system):
            return system.recover(*variables, intensity=cdps)[0].estimate

        def recover(variables, cdps, system=system):
            return system.recover(*variables, intensity=cdps)[0].image

        def spectral_loss(optics, variables, images, system=system):
            params, state = variables
            output, _ = system.apply({**params, **optics}, state, images, jax.random.key(0))
            return jnp.sum(jnp.real(output.estimate))

        def with_cdps(snapshots=snapshots, system=system):
            params, state = shape.variables(snapshots)
            cdps = jax.jit(system.measure)(params, _images(shape), jax.random.key(2))
            return (params, state), cdps

        def with_images(snapshots=snapshots):
            params, state = shape.variables(snapshots)
            optics = {part: params[part] for part in ("phases", "filter")}
            return optics, (params, state), _images(shape)

        yield _plan(f"inference, {role}", recover, with_cdps, spectral + network)
        yield _plan(f"spectral initialisation, {role}", estimate, with_cdps, spectral)
        yield _plan(
            f"spectral value and gradient, {role}",
            jax.value_and_grad(spectral_loss),
            with_images,
            (spectral + camera).times(3),
        )


def frame_case(shape: Shape, name: str, prepare: Callable[[], Call]) -> Made:
    """Returns the case of a student's recovery of one frame on one device.

    `prepare` makes the call. Making it and calling it once count as compilation.
    """
    alone = shape._replace(batch=1)
    work = _work(alone, shape.roles["student"], "spectral") + _work(alone, 1, "network")

    def make() -> Case:
        started = time.perf_counter()
        call = prepare()
        call()
        return Case(name, call, 1, time.perf_counter() - started, None, work)

    return Made(name, make)


def network_cases(shape: Shape) -> Iterator[Plan]:
    """Yields the U-Net alone: forward, and with the gradient with respect to weights and input."""
    system = shape.make(shape.roles["student"])
    work = _work(shape, shape.roles["student"], "network")

    def arguments():
        params, state = shape.variables(shape.roles["student"])
        size = shape.config.data.size
        inputs = jax.random.normal(jax.random.key(3), (shape.batch, size, size, 2))
        return params["net"], _on_devices(inputs, shape.mesh), state

    def forward(net, inputs, state):
        return system.run_net({"net": net}, state, inputs)[0].image

    def loss(net, inputs, state):
        output, stats = system.run_net({"net": net}, state, inputs, train=True)
        return jnp.mean(jnp.square(output.image)), stats

    yield _plan("U-Net", forward, arguments, work)
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    yield _plan("U-Net value and gradient", gradient, arguments, work.times(3))


def convolution_cases(shape: Shape) -> Iterator[Plan]:
    """Yields each kind of 3 x 3 convolution in the U-Net: forward, gradients by input and weights.

    They have the network's layout and JAX's default precision. A kind that occurs twice is timed
    once.
    """
    layers = unet_layers(size=shape.config.data.size, widths=shape.config.net.widths)
    for side, inputs, outputs in dict.fromkeys(layers):

        def convolve(x, kernel):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        def arrays(side=side, inputs=inputs, outputs=outputs):
            keys = jax.random.split(jax.random.key(6), 3)
            x, seen = (
                _on_devices(jax.random.normal(key, (shape.batch, side, side, n)), shape.mesh)
                for key, n in ((keys[0], inputs), (keys[1], outputs))
            )
            kernel = jax.random.normal(keys[2], (3, 3, inputs, outputs))
            return x, replicate(kernel, shape.mesh), seen

        def by_input(x, kernel, seen, convolve=convolve):
            return jax.vjp(lambda x: convolve(x, kernel), x)[1](seen)

        def by_weights(x, kernel, seen, convolve=convolve):
            return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](seen)

        work = convolution_work(side=side, inputs=inputs, outputs=outputs).times(shape.batch)
        name = f"convolution, {side} px, {inputs} to {outputs}"
        yield _plan(name, lambda x, kernel, _, f=convolve: f(x, kernel), arrays, work)
        yield _plan(f"{name}, gradient by input", by_input, arrays, work)
        yield _plan(f"{name}, gradient by weights", by_weights, arrays, work)


def step_cases(shape: Shape, *, weights: Weights) -> Iterator[Plan]:
    """Yields a training step of each regime; a student has a live teacher or cached targets."""
    everything = trained_parts(Config(regime="e2e", masks=shape.config.masks))
    student, teacher = shape.roles["student"], shape.teacher_snapshots
    alone = {**weights, "task": 1.0, "cdp": 0.0, "feature": 0.0}
    yield _step_plan("step, random", shape, student, ("net",), alone)
    yield _step_plan("step, e2e", shape, student, everything, alone)
    yield _step_plan("step, teacher", shape, teacher, everything, alone)
    for name, cached in (("live teacher", False), ("cached targets", True)):
        yield _step_plan(
            f"step, student, {name}", shape, student, everything, weights, teacher, cached=cached
        )


def _plan(name: str, fn: Callable, arguments: Callable[[], tuple], work: Work) -> Plan:
    return Plan(name, lambda: Program(jax.jit(fn), arguments(), work))


def _step_plan(name: str, *arguments: Any, **options: Any) -> Plan:
    return Plan(name, lambda: _step(*arguments, **options))


def _step(
    shape: Shape,
    snapshots: int,
    trained: tuple[str, ...],
    weights: Weights,
    teacher_snapshots: int = 0,
    *,
    cached: bool = False,
) -> Program:
    system = shape.make(snapshots)
    optimizer = make_optimizer(OptimOptions(), total_steps=1000)
    count = BATCHES * shape.batch
    raw = jax.random.randint(jax.random.key(4), (count, NATIVE_SIZE, NATIVE_SIZE), 0, 256, "uint8")
    teach, guide = None, None
    if teacher_snapshots:
        teach = make_teach(shape.make(teacher_snapshots))
        guide = shape.variables(teacher_snapshots)
        if cached:
            batch = jnp.zeros((shape.batch, *_image_shape(shape)))
            one = jax.eval_shape(partial(teach, guide), batch, jax.random.key(0))
            filled = jax.tree.map(lambda leaf: jnp.ones((count, *leaf.shape[1:])), one)
            teach, guide = None, replicate(filled, shape.mesh)
    step = make_train_step(
        system,
        optimizer,
        trained=trained,
        batch_size=shape.batch,
        teach=teach,
    )
    epoch = Epoch(
        images=replicate(raw, shape.mesh),
        order=replicate(jnp.arange(count), shape.mesh),
        key=jax.random.key(5),
        weights=weights,
        guide=guide,
    )
    # A copy: a step donates its state.
    params, state = jax.tree.map(jnp.copy, shape.variables(snapshots))
    train_state = init_train_state(params, state, optimizer, trained=trained)
    train_state = replicate(train_state, shape.mesh)
    run = compile_steps(step, length=shape.scan_steps)

    work = _work(shape, snapshots, "camera") + _work(shape, snapshots, "spectral")
    work = work.times(3 if "phases" in trained else 1)
    work += _work(shape, snapshots, "network").times(3)
    if teach is not None:
        for part in ("camera", "spectral", "network"):
            work += _work(shape, teacher_snapshots, part)

    return Program(run, (train_state, epoch), work, units=shape.scan_steps, carries=True)


def _work(shape: Shape, snapshots: int, part: str) -> Work:
    """Returns the work of one part of a system on one batch."""
    size, oversample = shape.config.data.size, shape.config.masks.oversample
    match part:
        case "camera":
            one = measure_work(size=size, snapshots=snapshots, oversample=oversample)
        case "spectral":
            one = spectral_work(
                size=size,
                snapshots=snapshots,
                oversample=oversample,
                iterations=shape.config.spectral.iterations,
            )
        case _:
            channels = _image_shape(shape)[-1]
            one = unet_work(size=size, widths=shape.config.net.widths, channels=channels)
    return one.times(shape.batch)


def _image_shape(shape: Shape) -> tuple[int, int, int]:
    size = shape.config.data.size
    return size, size, shape.config.scene.channels


def _compile(program: Callable, arguments: tuple) -> tuple[Any, float, int]:
    """Returns (compiled, seconds of tracing and compiling, bytes it needs on all devices)."""
    started = time.perf_counter()
    compiled = program.lower(*arguments).compile()
    seconds = time.perf_counter() - started
    devices = len(jax.tree.leaves(arguments)[0].sharding.device_set)
    return compiled, seconds, program_bytes(compiled) * devices


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes of a program's arguments, results and temporaries on one device.

    Donated arguments, which are results too, count once.
    """
    parts: Any = compiled.memory_analysis()
    return (
        parts.argument_size_in_bytes
        + parts.output_size_in_bytes
        + parts.temp_size_in_bytes
        - parts.alias_size_in_bytes
    )


def _images(shape: Shape) -> Images:
    values = jax.random.uniform(jax.random.key(1), (shape.batch, *_image_shape(shape)))
    return _on_devices(values, shape.mesh)


def _on_devices(batch: Images, mesh: Mesh | None) -> Images:
    return batch if mesh is None else jax.device_put(batch, NamedSharding(mesh, P(AXIS)))
