"""Flags that name a system: a run folder, or a config whose optics need no network.

--workdir RUN                                  trained, recovers with its network
--pretrained NAME                              came with the package, recovers with its network
--config FILE [--config.masks.file=MASK ...]   not trained, recovers with a solver
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import cli
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs import pretrained
from jax_kdpr.runs.run import Run, load_run, untrained

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of the trained system.")
PRETRAINED = flags.DEFINE_string(
    "pretrained",
    None,
    f"A system that came with the package, in place of --workdir: {', '.join(pretrained.names())}.",
)


def take_pretrained() -> None:
    """Sets --workdir to the run folder of --pretrained, if the latter is given.

    Raises:
        InputError: If --workdir is given too, or there is no such system.
    """
    if PRETRAINED.value is None:
        return
    if WORKDIR.value:
        raise InputError("--workdir, --pretrained: both name a system; give one of them")
    flags.FLAGS.workdir = str(pretrained.workdir(PRETRAINED.value))


def read_system_config(given: flags.FlagHolder) -> Config:
    """Returns the config of --workdir or --pretrained, or of --config, whose system is not trained.

    Args:
        given: The flag of `cli.define_config`, which the command itself must define.

    Raises:
        InputError: If several or none of them are given, or the config cannot be read.
    """
    take_pretrained()
    if (given.value is None) == (not WORKDIR.value):
        raise InputError(
            "--workdir, --pretrained, --config: give one: a run folder, a system that came with "
            "the package, or what a run is made of"
        )
    if given.value is not None:
        return cli.read_optics_config(given)
    return run_folder.read_config(Path(WORKDIR.value or ""))


def read_system(config: Config, *, data_dir: str = "", images: int = 0) -> Run:
    """Returns the run of --workdir, or that which a training of --config would start from.

    Args:
        config: The config from `read_system_config`.
        data_dir: Where the data of a run lie now, if they have moved.
        images: As in `load_run`.

    Raises:
        InputError: If a file of the system cannot be used.
    """
    if WORKDIR.value:
        return load_run(Path(WORKDIR.value), data_dir=data_dir, images=images)
    if data_dir:
        raise InputError("--data_dir: is read only with --workdir; give --config.data.dir")
    run = untrained(config, images=images)
    for said in run.camera.warnings():
        print(f"warning: {said}", file=sys.stderr)
    if config.masks.start == "file":
        low, high = float(run.phases.min()), float(run.phases.max())
        shape = f"{run.snapshots} of {config.data.size} x {config.data.size}"
        print(f"masks.file: {shape}, {low:.3g} to {high:.3g} rad")
    return run


def output_folder(given: str | None, name: str) -> Path:
    """Returns --output, or the folder `name` in the run folder.

    Raises:
        InputError: If there is neither.
    """
    if given:
        return Path(given)
    if not WORKDIR.value or PRETRAINED.value:
        beside = "--pretrained" if PRETRAINED.value else "--config"
        raise InputError(f"--output: needed beside {beside}, a folder")
    return Path(WORKDIR.value, name)
