"""Defines what `import jax_kdpr` gives beside `Run`: systems and trainings, by a call each."""

import dataclasses
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config, DistillOptions
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import shallow
from jax_kdpr.core.registry import allow
from jax_kdpr.interface.run import Run
from jax_kdpr.lab import bench_options
from jax_kdpr.lab.bench_file import read_bench
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solver_system import ALONE, STARTS
from jax_kdpr.runs import checkpoint, folder
from jax_kdpr.runs import pretrained as trained
from jax_kdpr.runs import run as runs
from jax_kdpr.training import loop


def load(
    workdir: str | Path, *, data_dir: str | Path = "", allow_code: str | Sequence[str] = ()
) -> Run:
    """Restores the trained system of a run folder: its best checkpoint.

    Args:
        workdir: Run folder of a training.
        data_dir: Where its data lie now; empty if they have not moved since the training.
        allow_code: Packages, your own or trusted, whose code run folders may name, and thereby
            run, for the rest of this process.

    Raises:
        InputError: If the folder is not a run, names code that is not allowed, or has no checkpoint
            that can be read, or if JAX computes in 64 bits.
    """
    checkpoint.quiet_logs()
    allow(allow_code)
    folder_of_run = Path(workdir).expanduser().resolve()
    run = runs.load_run(folder_of_run, data_dir=str(data_dir)).on_one_device()
    return Run(**shallow(run))


def pretrained(name: str) -> Run:
    """Restores a system that came with the package, such as "bench-32".

    docs/start/pretrained.md lists these systems. The run folder is made in the user's cache;
    `run.workdir` says where.

    Raises:
        InputError: If there is no system of that name.
    """
    return load(trained.workdir(name))


def bench(
    masks: str | Path | ArrayLike,
    config: Config | None = None,
    *,
    solver: Refinement = ALONE,
    starts: int = STARTS,
) -> Run:
    """Makes a `Run` from existing masks; it has no network, and recovers by a solver.

    Args:
        masks: A mask file, which is read by its sidecar if it has one. Else, a file or an array of
            phases phi in radians, [h w] or one per shot [L h w]. A mask multiplies the light by
            e^{-j phi}.
        config: Config of the rest of the bench (scenes, device, beam, camera, noise); default: a
            plain one. Its `data.size` and `masks.snapshots` are set to those of the masks.
        solver: Solver that recovers; default: 500 accelerated steps, total variation 0.02.
        starts: Number of spectral estimates to start from; the answer that fits a frame best
            counts.

    Raises:
        InputError: If the masks are not phases, or a file of the config or the solver cannot be
            used.
    """
    is_file = isinstance(masks, str | Path)
    given = read_phases("masks", str(masks)) if is_file else np.asarray(masks)
    phases = given[None] if given.ndim == 2 else given
    is_square = phases.ndim == 3 and phases.shape[1] == phases.shape[2] and phases.size
    if not is_square or phases.dtype.kind != "f" or not np.all(np.isfinite(phases)):
        raise InputError(
            f"masks: expected finite phases in radians, floats, square [L h h], got {phases.dtype} "
            f"{list(phases.shape)}"
        )
    config = deepcopy(config) if config is not None else Config()
    config.data.size, config.masks.snapshots = phases.shape[1], len(phases)
    config.masks.start, config.masks.file = "random", ""  # not those of another file
    config.regime, config.distill = "e2e", DistillOptions()
    config = checks.ready(config, has_network=False)
    run = runs.untrained(config, solver=solver, starts=starts).on_one_device()
    params, state = run.variables
    params = {**params, "phases": jnp.asarray(phases, jnp.float32)}
    return Run(**shallow(dataclasses.replace(run, variables=(params, state))))


def on_bench(config: Config, bench: str | Path) -> Config:
    """Returns a config with the options of a bench.toml set, as `train --bench` sets them.

    A printed line lists these options: those of the modulator, of the camera and its light, and the
    lengths of a near field. A Python warning says what cannot be set or is sampled too coarsely.

    Args:
        config: Any config; it is not changed. To override the bench, set options in the result.
        bench: The file (docs/guides/devices.md).

    Raises:
        InputError: If the file, or the measured table that it names, cannot be read.
    """
    found, options, notes = bench_options.on_bench(config, read_bench(Path(bench).expanduser()))
    print(f"{bench}: {bench_options.in_words(options)}")
    for note in notes:
        warnings.warn(f"{bench}: {note}", stacklevel=2)
    return found


def train(
    config: Config, workdir: str | Path, *, allow_code: str | Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Trains, or resumes, a run; prints what it does, epoch by epoch.

    If it is interrupted (by a notebook's stop button), the epoch under way is lost, and the same
    call resumes. JAX is used as it is set up here; `python -m jax_kdpr.train` also spreads batches
    over a CPU's cores, keeps compiled programs on disk, and saves on Ctrl-C within an epoch.

    Args:
        config: A `jax_kdpr.Config`, such as one from `jax_kdpr.presets`.
        workdir: Run folder: new, or that of this very run.
        allow_code: As in `load`, for a teacher's folder; code that the config itself names may run.

    Returns:
        The rows of metrics.jsonl, one for each epoch. Those of epochs that were validated
        (`train.validate_every`), and always the last one, also have "validation_...".

    Raises:
        InputError: If config, data, teacher or folder do not fit.
        StoppedError: If the loss is no longer finite, or a checkpoint cannot be written.
    """
    checkpoint.quiet_logs()
    allow(allow_code)
    place = Path(workdir).expanduser()
    loop.train(checks.ready(config), place)
    return folder.read_metrics(place)
