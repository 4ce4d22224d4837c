"""A run's test scenes recovered by classical solvers, beside its network; timed."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.registry import blaming, is_foreign
from jax_kdpr.core.sharding import shard_batch
from jax_kdpr.core.types import Images
from jax_kdpr.data.batches import take_batch
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import Samples
from jax_kdpr.optics.camera import Camera
from jax_kdpr.recovery import refinement as classical
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.refinement import Solved
from jax_kdpr.recovery.solvers import DEFAULTS, SOLVERS
from jax_kdpr.recovery.system import Output
from jax_kdpr.runs.run import Run, run_keys

START, NETWORK = "start", "network"  # rows that are no solver
PHASE_FROM = {
    "spectral": "taken from the truth",
    "random": "taken from the truth",
    "network": "the network's",
}  # what sets the global phase of a recovery, by what it starts from


class Plan(NamedTuple):
    """How to solve."""

    solvers: tuple[str, ...]
    count: int  # of test images, from the first
    steps: int
    start: str  # one of PHASE_FROM
    restarts: int = 1  # random starts, of which the smallest residual counts
    constraint: str = ""  # as of `refinement.make_solve`
    beta: float = DEFAULTS.beta
    tv: float = 0.0


def check_plan(plan: Plan) -> None:
    """Refuses what nothing would read, by the flags of `jax_kdpr.solve`.

    Raises:
        InputError: If there is no solver, or an option that none of them reads.
    """
    if not plan.solvers:
        raise InputError(f"--solver: expected some of {', '.join(SOLVERS)}, got none")
    if plan.restarts > 1 and plan.start != "random":
        raise InputError(
            f"--restarts: a {plan.start} start is the same every time; give --start random"
        )
    if any(map(is_foreign, plan.solvers)):  # which may read all
        return
    if plan.tv and "accelerated" not in plan.solvers:
        raise InputError("--tv: only the solver accelerated has this prior; add it to --solver")
    if plan.beta != DEFAULTS.beta and not {"hio", "raar"} & set(plan.solvers):
        raise InputError("--beta: only hio and raar read it; add one of them to --solver")


class Measured(NamedTuple):
    """A batch of test scenes, and all that the run's own system makes of them."""

    images: Images
    output: Output


class Answer(NamedTuple):
    """What one solver, or the network, made of all images."""

    solved: Solved
    gauge: str  # what set the global phase
    seconds: float | None = None  # wall time of an image


class Report(NamedTuple):
    """All answers by name, and their first scenes for a figure."""

    answers: dict[str, Answer]
    camera: Camera
    images: Images
    samples: dict[str, Samples]


def solve_images(
    run: Run, plan: Plan, *, support: np.ndarray | None = None, samples: int
) -> Report:
    """Recovers the first test images with each solver, from the CDPs that the network gets too.

    The noise of a scene is that of `evaluate` with batches of the same size. The answers are the
    spectral estimate if it is the start, each solver's, and the network's.

    Args:
        run: The run.
        plan: How to solve.
        support: Where an object may be other than zero [h w]; None for everywhere.
        samples: Scenes to keep for a figure, at most those of one batch.
    """
    camera, optics, batch_size = run.camera, run.optics, run.batch_size
    places = [
        (np.arange(batch_size) + first) % len(run.dataset.test)
        for first in range(0, plan.count, batch_size)
    ]
    bar = progress(total=len(places) * (1 + len(plan.solvers) * plan.restarts), unit="batch")
    batches, network_seconds = _measure(run, places, bar)
    truths = [batch.images for batch in batches]
    recovered = [batch.output.image for batch in batches]
    fields = [camera.encode(image) for image in recovered]
    intensities = [batch.output.intensity for batch in batches]

    def each(program, *columns) -> list:
        return [program(optics, *row) for row in zip(*columns, strict=True)]

    def joined(parts: list) -> Any:
        jax.block_until_ready(parts)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: plan.count], *parts)

    read = jax.jit(classical.make_read(camera))
    answers = {}
    match plan.start:
        case "spectral":
            starts = [[batch.output.estimate for batch in batches]]
            estimate = joined(each(read, starts[0], intensities, truths))
            answers[START] = Answer(estimate, PHASE_FROM[plan.start])
        case "network":
            starts = [fields]
        case _:
            draw = jax.jit(classical.make_random_starts(camera))
            starts = []
            for attempt in range(plan.restarts):
                # A key for each image: the batch size changes nothing.
                key = jax.random.fold_in(run_keys(run.config.seed).evaluation, attempt)
                keys = [jax.vmap(jax.random.fold_in, (None, 0))(key, at) for at in places]
                starts.append(each(draw, keys, intensities))

    references = recovered if plan.start == "network" else truths
    for name in plan.solvers:
        solve = classical.make_solve(
            camera,
            solver=name,
            steps=plan.steps,
            constraint=plan.constraint,
            support=support,
            settings=Settings(beta=plan.beta, tv=plan.tv),
        )
        with blaming([name]):
            program = jax.jit(solve).lower(optics, starts[0][0], intensities[0], references[0])
        program = program.compile()
        tries, seconds = [], 0.0
        for attempt in starts:
            rows = zip(attempt, intensities, references, strict=True)
            parts, lasted = _timed(program, [(optics, *row) for row in rows], bar)
            tries.append(joined(parts))
            seconds += lasted / (len(places) * batch_size)
        answers[name] = Answer(_best(tries), PHASE_FROM[plan.start], seconds)
    network = joined(each(read, fields, intensities, recovered))
    answers[NETWORK] = Answer(network, PHASE_FROM["network"], network_seconds)
    bar.close()

    shown = slice(0, min(samples, plan.count, batch_size))
    output = jax.tree.map(lambda leaf: leaf[shown], batches[0].output)
    images = joined([batch.images for batch in batches])
    phases = camera.written(run.phases)
    drawn = {
        name: Samples(images[shown], output._replace(image=answer.solved.image[shown]), phases)
        for name, answer in answers.items()
    }
    return Report(answers, camera, images, drawn)


def summarise(report: Report) -> dict[str, dict[str, Any]]:
    """Returns the numbers of each answer: `evaluation.Summary`, residual, time, global phase."""
    return {
        name: {
            **evaluation.summarise(report.camera.score(solved.image, report.images))._asdict(),
            "residual": float(jnp.mean(solved.residual)),
            "residual_median": float(jnp.median(solved.residual)),
            "seconds_per_image": seconds,
            "global_phase": gauge,
        }
        for name, (solved, gauge, seconds) in report.answers.items()
    }


def _measure(run: Run, places: list[np.ndarray], bar: tqdm) -> tuple[list[Measured], float]:
    """Measures all batches and recovers them with the network; its seconds an image come too."""
    camera, test = run.camera, run.dataset.test
    key = run_keys(run.config.seed).evaluation

    @jax.jit
    def measure(params, test, indices, key):
        images = take_batch(test, indices, size=camera.size, channels=camera.channels)
        images = shard_batch(images, camera.mesh)
        return images, run.system.measure(params, images, key)

    made = [
        measure(run.variables[0], test, at, jax.random.fold_in(key, int(at[0]))) for at in places
    ]
    jax.block_until_ready(made)
    arguments = [(*run.variables, intensity) for _, intensity in made]
    recover = jax.jit(lambda *given: run.system.recover(*given)[0])
    outputs, seconds = _timed(recover.lower(*arguments[0]).compile(), arguments, bar)
    pairs = zip(made, outputs, strict=True)
    batches = [Measured(images, output) for (images, _), output in pairs]
    return batches, seconds / (len(places) * run.batch_size)


def _timed(program: Any, arguments: list[tuple], bar: tqdm) -> tuple[list[Any], float]:
    """Runs a compiled program on one batch after another; returns its answers and the seconds."""
    answers = []
    started = time.perf_counter()
    for given in arguments:
        answers.append(jax.block_until_ready(program(*given)))
        bar.update()
    return answers, time.perf_counter() - started


def _best(tries: list[Solved]) -> Solved:
    """Takes for each scene the try that fits its CDP best."""
    residuals = jnp.stack([one.residual for one in tries])
    chosen = jnp.argmin(residuals, axis=0)
    images = jnp.stack([one.image for one in tries])
    return Solved(images[chosen, jnp.arange(len(chosen))], jnp.min(residuals, axis=0))
