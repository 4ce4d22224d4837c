"""A trained system, restored from its run folder, its data, and the random streams that made it."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core.choices import Source
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Key, Params, PyTree, State
from jax_kdpr.data import sources
from jax_kdpr.recovery.system import System
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.checkpoint import Checkpoints


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


def load_data(workdir: Path, config: Config, *, data_dir: str = "") -> sources.Dataset:
    """Loads the data that the run in `workdir` was trained on.

    Args:
        workdir: Its run folder.
        config: That says where and which they are.
        data_dir: Where they lie now, if they have moved.

    Raises:
        InputError: If they are not there, or not those.
    """
    arguments = config_lib.data_arguments(config)
    arguments["dir"] = data_dir or config.data.dir
    if data_dir and config.data.source == Source.SCENES:
        raise InputError(
            f"--data_dir: nothing reads it, the scenes of {workdir} are procedural; leave it out"
        )
    if data_dir:
        arguments["named"] = "--data_dir"
    else:
        arguments["named"] = f"{workdir}: its data.dir"
        arguments["remedy"] = "give --data_dir with where they lie now"
    dataset = sources.load(**arguments)
    record = run_folder.read_run(workdir)
    if not run_folder.draws_alike(record, dataset.sample):
        raise InputError(f"{workdir}: its data have changed: {run_folder.DRAWN}; use that one")
    recorded = record["digests"]["data"]
    if dataset.digest != recorded:
        raise InputError(
            f"{workdir}: its data have changed (digest {dataset.digest[:12]}, trained on "
            f"{recorded[:12]}); give --data_dir with the data it was trained on"
        )
    return dataset
