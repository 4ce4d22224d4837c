"""Recovers a run's test scenes with classical solvers, beside its network, and times them."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_COUNT, Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.progress import progress
from jax_kdpr.core.registry import blaming
from jax_kdpr.core.sharding import shard_batch
from jax_kdpr.core.types import Images, Indices, Key, PyTree
from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import Shown
from jax_kdpr.optics.camera import Camera
from jax_kdpr.recovery.batched_solvers import Solved, make_random_starts, make_read, make_solve
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import (
    CONSTRAINTS,
    DEFAULTS,
    READ_BY,
    SOLVERS,
    reads,
    require_projection,
    solver_names,
)
from jax_kdpr.runs.run import Run, run_keys

START, NETWORK = "start", "network"  # answers that are not from a solver
PHASE_FROM = {
    "spectral": "taken from the truth",
    "random": "taken from the truth",
    "network": "the network's",
}  # where a recovery's global phase comes from, by its start


@section
class Plan:
    """How to solve: the flags of `jax_kdpr.solve`."""

    solver: tuple[str, ...] = option(
        ("raar",), f"One or several of {', '.join(SOLVERS)}, or your own."
    )
    steps: int = option(200, "Steps of each solver.", within=Range(1, MOST_COUNT))
    start: str = option(
        "spectral",
        "From the run's spectral estimate, its network, or noise.",
        choices=tuple(PHASE_FROM),
    )
    restarts: int = option(
        1,
        "Random starts; the one of the smallest misfit counts.",
        within=Range(1, 10_000),
        when=("start", ("random",)),
    )
    scene_constraint: str = option(
        "", "Known of the object; default: the scene's kind.", choices=tuple(CONSTRAINTS)
    )
    beta: float = option(
        DEFAULTS.beta, "Relaxation of hio and raar, in (0, 1].", within=Range(0.01, 1)
    )
    tv: float = option(
        0.0, "Weight of the total-variation prior of accelerated.", within=Range(0, 1e6)
    )
    images: int = option(100, "First test images to recover; 0: all.", within=Range(0, 10_000_000))
    samples: int = option(4, "Scenes in the figure.", within=Range(1, 100))


def check_plan(plan: Plan) -> None:
    """Refuses solvers that do not exist, and options that none of the given ones reads.

    Raises:
        InputError: With the name of the flag of `jax_kdpr.solve`.
    """
    if not plan.solver:
        raise InputError(f"--solver: expected some of {', '.join(SOLVERS)}, got none")
    names = solver_names("--solver", [*plan.solver])
    for number, by in READ_BY.items():
        is_given = getattr(plan, number) != getattr(DEFAULTS, number)
        if is_given and not any(reads(name, number) for name in names):
            raise InputError(
                f"--{number}: is read by {' or '.join(by)} alone; add such a one to --solver"
            )


def check_system(run: Run, plan: Plan) -> None:
    """Refuses solvers that the run's optics do not allow, and a start from a missing network.

    Raises:
        InputError: With the name of the flag of `jax_kdpr.solve`.
    """
    for name in plan.solver:
        require_projection(name, run.optics)
    if plan.start == "network" and not run.has_network:
        raise InputError("--start: network is of a trained run; give --workdir, or another start")


class Answer(NamedTuple):
    """What one solver, or the network, made of all images."""

    solved: Solved
    gauge: str  # where the global phase comes from
    seconds: float | None = None  # wall time of an image


class Report(NamedTuple):
    """All answers by name, and their first scenes for a figure."""

    answers: dict[str, Answer]
    camera: Camera
    images: Images
    samples: dict[str, Shown]


def solve_images(run: Run, plan: Plan, *, support: np.ndarray | None = None) -> Report:
    """Recovers the first test images with each solver, from the same CDPs as the network.

    The noise of a scene is the same as in `evaluate` with batches of the same size. There is an
    answer of each solver, of the spectral estimate if the solvers start from it, and of the network
    if there is one. Objects count as zero outside a `support` [h w].
    """
    camera, optics, test = run.camera, run.optics, run.dataset.test
    count = min(plan.images or len(test), len(test))
    key, everywhere = run_keys(run.config.seed).evaluation, range(0, count, run.batch_size)
    over = partial(over_batches, count=count, batch_size=run.batch_size, key=key)
    passes = 2 * run.has_network + (2 - run.has_network) * (plan.start == "spectral")
    passes += plan.restarts * (len(plan.solver) + (plan.start == "random"))
    bar = progress(total=len(everywhere) * passes, unit="batch")
    compiled: dict[Callable, Any] = {}

    def each(program: Callable, shared: PyTree, *arrays: PyTree) -> tuple[Any, float]:
        """Maps program(shared, *batch) over all images; also returns the seconds an image."""

        def take(indices: Indices) -> PyTree:
            return shard_batch(jax.tree.map(lambda leaf: leaf[indices], arrays), camera.mesh)

        def step(indices: Indices, _: Key) -> PyTree:
            found = compiled[program](shared, *take(indices))
            bar.update()
            return found

        if program not in compiled:
            first = take(jnp.arange(run.batch_size) % count)
            compiled[program] = jax.jit(program).lower(shared, *first).compile()
        started = time.perf_counter()
        found = jax.block_until_ready(over(step))
        return found, (time.perf_counter() - started) / (len(everywhere) * run.batch_size)

    @jax.jit
    def measure(params, test, indices, key):
        images = take_batch(test, indices, size=camera.size, channels=camera.channels)
        images = shard_batch(images, camera.mesh)
        return images, run.system.measure(params, images, key)

    images, intensity = over(lambda indices, key: measure(run.variables[0], test, indices, key))
    references, read = images, make_read(camera)
    answers, network = {}, None
    if run.has_network:
        output, seconds = each(
            lambda variables, y: run.system.recover(*variables, intensity=y)[0],
            *(run.variables, intensity),
        )
        recovered, estimate = output.image, output.estimate
        fields = camera.encode(recovered)
        found, _ = each(read, optics, fields, intensity, recovered)
        network = Answer(found, PHASE_FROM["network"], seconds)
    match plan.start:
        case "spectral":
            if not run.has_network:
                estimate, _ = each(
                    lambda known, y: run.system.estimate(known[0], known[1], y, known[2])[0],
                    *((*run.variables, optics), intensity),
                )
            starts = [estimate]
            read_beside, _ = each(read, optics, estimate, intensity, images)
            answers[START] = Answer(read_beside, PHASE_FROM[plan.start])
        case "network":
            starts, references = [fields], recovered
        case _:
            # Each image has its own key, so that the batch size changes nothing.
            attempts = [jax.random.fold_in(key, attempt) for attempt in range(plan.restarts)]
            numbers = jnp.arange(count)
            keys = [jax.vmap(jax.random.fold_in, (None, 0))(one, numbers) for one in attempts]
            draw = make_random_starts(camera)
            starts = [each(draw, optics, one, intensity)[0] for one in keys]
    for name in plan.solver:
        solve = make_solve(
            camera,
            solver=name,
            steps=plan.steps,
            constraint=plan.scene_constraint,
            support=support,
            settings=Settings(beta=plan.beta, tv=plan.tv),
        )
        with blaming([name]):
            tries = [each(solve, optics, start, intensity, references) for start in starts]
        best = _best([solved for solved, _ in tries])
        seconds = sum(seconds for _, seconds in tries)
        answers[name] = Answer(best, PHASE_FROM[plan.start], seconds)
    if network is not None:
        answers[NETWORK] = network
    bar.close()

    shown, phases = slice(0, plan.samples), camera.written(run.phases)
    drawn = {
        name: Shown(images[shown], answer.solved.image[shown], phases)
        for name, answer in answers.items()
    }
    return Report(answers, camera, images, drawn)


def summarise(report: Report) -> dict[str, dict[str, Any]]:
    """Returns the numbers of each answer: `evaluation.Summary`, misfit, time, global phase."""
    return {
        name: {
            **evaluation.summarise(report.camera.score(solved.image, report.images))._asdict(),
            "misfit": float(jnp.mean(solved.misfit)),
            "misfit_median": float(jnp.median(solved.misfit)),
            "seconds_per_image": seconds,
            "global_phase": gauge,
        }
        for name, (solved, gauge, seconds) in report.answers.items()
    }


def _best(tries: list[Solved]) -> Solved:
    """Takes for each scene the try that fits its CDP best."""
    misfits = jnp.stack([one.misfit for one in tries])
    chosen = jnp.argmin(misfits, axis=0)
    images = jnp.stack([one.image for one in tries])
    return Solved(images[chosen, jnp.arange(len(chosen))], jnp.min(misfits, axis=0))
