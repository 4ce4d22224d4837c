"""A trained system, restored from its run folder, and the random streams that made it."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jax_kdpr.assembly import build_system
from jax_kdpr.checkpoint import Checkpoints
from jax_kdpr.config import Config
from jax_kdpr.systems import System
from jax_kdpr.types import Key, Params, PyTree, State


class Trained(NamedTuple):
    """A system with the variables of the best checkpoint of its run."""

    system: System
    variables: tuple[Params, State]
    digest: str  # of the checkpoint
    step: int


class RunKeys(NamedTuple):
    """The random streams of a run, all derived from `config.seed`."""

    init: Key
    order: Key
    steps: Key
    evaluation: Key


def run_keys(seed: int) -> RunKeys:
    """Derives the independent streams of a run."""
    return RunKeys(*jax.random.split(jax.random.key(seed), 4))


def load_trained(workdir: Path, config: Config, *, mesh: Mesh | None = None) -> Trained:
    """Restores the best checkpoint of the run in `workdir`, made with `config`.

    Raises:
        InputError: If the folder holds no checkpoint that can be read.
    """
    system = build_system(config, mesh=mesh)
    params, state = jax.eval_shape(system.init, run_keys(config.seed).init)
    wanted: PyTree = {"params": params, "state": state}
    if config.optim.average > 0:
        wanted = {"average": (params, state)}
    with Checkpoints(workdir, read_only=True) as checkpoints:
        best = checkpoints.restore_best(wanted)
    variables = best.tree.get("average") or (best.tree["params"], best.tree["state"])
    return Trained(system, variables, best.digest, best.step)
