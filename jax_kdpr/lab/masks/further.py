"""Further masks beside those of a run, through which a teacher on the bench sees the objects."""

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
    """Draws masks of independent phases [count h w] in radians, always the same for a run."""
    key, size = run_keys(run.config.seed).evaluation, run.camera.size

    def draw(number: Array) -> Float[Array, "h w"]:
        # Each mask has a key of its own, so that the first 5 of 9 masks are those of 5.
        own = jax.random.fold_in(key, number)
        return init_phases(own, snapshots=1, height=size, width=size)[0]

    return jax.vmap(draw)(jnp.arange(count))


def read_further(run: Run, files: list[str]) -> Phases:
    """Reads further masks from files or patterns, in order; the phases are as in `masks.file`.

    Raises:
        InputError: As `read_phases`, or if nothing matches a pattern.
    """
    # A pattern that matches nothing is kept, so that `read_phases` names it in its error.
    paths = [str(path) for file in files for path in matching_files(file) or [file]]
    found = [read_phases("--masks", path, size=run.camera.size) for path in paths]
    return jnp.concatenate([jnp.asarray(phases, jnp.float32) for phases in found])


def with_further(
    run: Run, shots: int, files: list[str] | None = None, *, flag: str = "--teacher"
) -> Run:
    """Returns a run's optics for `shots` shots of an object, through the run's own masks first.

    The run's network cannot use the further shots: a solver recovers from all (`Run.by_solver`).

    Args:
        run: A run of L shots.
        shots: Number of shots in all.
        files: Files of the further masks, or patterns; None takes those of `draw_further`.
        flag: The flag that gave `shots`, for messages.

    Raises:
        InputError: If the run itself has more shots, or the files hold another number of masks.
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
    # The phases are given, so it does not matter how the run's own masks started.
    masks = changed(run.config.masks, snapshots=shots, start="random", file="", trained=True)
    return dataclasses.replace(
        run,
        config=changed(run.config, masks=masks),
        system=dataclasses.replace(run.system, snapshots=shots),
        variables=({**params, "phases": phases}, state),
    )
