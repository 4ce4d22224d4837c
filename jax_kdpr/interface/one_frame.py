"""Benchmark cases of a camera that shows one object after another, one frame at a time."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.evaluation.speed.cases import Call, Made, Shape, frame_case
from jax_kdpr.interface.run import Run
from jax_kdpr.runs.assembly import build_system


def one_frame_cases(shape: Shape) -> list[Made]:
    """Returns two cases: CDP to image; and `Run.reconstruct`, counts to radians with a misfit.

    Each case uses one device.

    Args:
        shape: Shape of the student, which is at its random start.
    """

    def make_run() -> Run:
        system = build_system(shape.config)
        return Run(Path(), shape.config, system, jax.jit(system.init)(jax.random.key(0)))

    def measured(run: Run) -> np.ndarray:
        size = run.camera.size
        scene = np.random.default_rng(0).random((1, size, size, run.camera.channels))
        return run.measure(scene.astype(np.float32))

    def recovery() -> Call:
        run = make_run()
        intensity = jnp.asarray(measured(run))
        recover = jax.jit(lambda v, y: run.system.recover(*v, intensity=y)[0].image)
        return lambda: jax.block_until_ready(recover(run.variables, intensity))

    def front_door() -> Call:
        run = make_run()
        frames = np.round(1e3 * measured(run)).astype(np.uint16)
        return lambda: run.reconstruct(frames, centred=False, gain=1e3)

    return [
        frame_case(shape, "one frame, student", recovery),
        frame_case(shape, "one frame, Run.reconstruct", front_door),
    ]
