"""Further masks beside those of a run: what a teacher on the bench sees the objects through."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import changed
from jax_kdpr.core.types import Phases
from jax_kdpr.data.pages.opening import matching_files
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.runs.run import Run, run_keys


def draw_further(run: Run, count: int) -> Phases:
    """Draws masks of independent phases [count h w], radians: always the same ones for a run."""
    key, size = run_keys(run.config.seed).evaluation, run.camera.size

    def draw(number: Array) -> Float[Array, "h w"]:
        # Each of its own key: the first of 9 are those of 5.
        own = jax.random.fold_in(key, number)
        return init_phases(own, snapshots=1, height=size, width=size)[0]

    return jax.vmap(draw)(jnp.arange(count))


def read_further(run: Run, files: list[str]) -> Phases:
    """Reads them from files, or patterns of files, in order; phases as of `masks.file`.

    Raises:
        InputError: As `read_phases`, or if nothing matches.
    """
    # What matches nothing is named by who reads it.
    paths = [str(path) for file in files for path in matching_files(file) or [file]]
    found = [read_phases("--masks", path, size=run.camera.size) for path in paths]
    return jnp.concatenate([jnp.asarray(phases, jnp.float32) for phases in found])


def with_further(
    run: Run, shots: int, files: list[str] | None = None, *, flag: str = "--teacher"
) -> Run:
    """Returns the optics of a run that takes `shots` shots of an object, through its masks first.

    Its network would not know what to do with them: a solver recovers from all (`Run.by_solver`).

    Args:
        run: Of L shots.
        shots: In all.
        files: Of the further masks, or their patterns; none for those of `draw_further`.
        flag: That said how many, for messages.

    Raises:
        InputError: If that is not more than the run's own, or the files hold another number.
    """
    count = shots - run.snapshots
    if count < 0:
        raise InputError(
            f"{flag}: expected at least the run's own {run.snapshots} shot(s) of each object, got "
            f"{shots}"
        )
    further = read_further(run, files) if files else draw_further(run, count)
    if len(further) != count:
        raise InputError(
            f"--masks: expected {count} further mask(s), those of the {shots} shots of each object "
            f"that are not through the run's own {run.snapshots}, got {len(further)}"
        )
    params, state = run.variables
    phases = jnp.concatenate([params["phases"], further])
    # They are at hand: where the run's own began does not matter.
    masks = changed(run.config.masks, snapshots=shots, start="random", file="", trained=True)
    return dataclasses.replace(
        run,
        config=changed(run.config, masks=masks),
        system=dataclasses.replace(run.system, snapshots=shots),
        variables=({**params, "phases": phases}, state),
    )
