"""A system, restored from a run folder or untrained, with its data and its random streams."""

import dataclasses
from copy import copy
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.config import checks, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_COUNT, Range, require
from jax_kdpr.core.options import changed
from jax_kdpr.core.sharding import make_mesh
from jax_kdpr.core.types import Images, Key, Params, Phases, PyTree, State
from jax_kdpr.data import sources
from jax_kdpr.data.batches import take_batch
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solver_system import ALONE, STARTS, SolverSystem
from jax_kdpr.recovery.solvers import solver_names
from jax_kdpr.recovery.system import System
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_camera, build_system, read_planes, start_phases
from jax_kdpr.runs.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A system: the trained one of a run folder's best checkpoint, or the one of a config alone.

    `dataset` is read, and `optics` are computed, on first access.
    """

    workdir: Path
    config: Config
    system: System
    variables: tuple[Params, State]
    digest: str = ""  # of the checkpoint
    step: int = 0  # at which it was saved
    batch_size: int = 1  # images at a time, in a pass over many
    data_dir: str = ""  # where its data lie now; empty: where they were during training

    def __repr__(self) -> str:
        kind, size = self.config.regime, self.config.data.size
        if not self.is_trained:
            return f"<optics: {self.snapshots} shot(s), {size} x {size}>"
        return (
            f"<{kind} run {str(self.workdir)!r}: {self.snapshots} shot(s), {size} x {size}, step "
            f"{self.step}>"
        )

    @property
    def is_trained(self) -> bool:
        """Whether the system comes from a run folder."""
        return self.workdir != Path()

    @property
    def is_adapted(self) -> bool:
        """Whether the system was adapted to the optics found for a bench (`adapt`)."""
        record = self.workdir / run_folder.RUN_FILE
        return record.exists() and run_folder.PARENT in run_folder.read_run(self.workdir)["digests"]

    @property
    def has_network(self) -> bool:
        """Whether the system recovers by a network, not by a solver."""
        return not isinstance(self.system, SolverSystem)

    @property
    def camera(self) -> Camera:
        """Camera of the system."""
        return self.system.camera

    @property
    def phases(self) -> Phases:
        """Masks of the design, [k h w] in radians; `Camera.written` says what the device shows."""
        return self.variables[0]["phases"]

    @property
    def snapshots(self) -> int:
        """L, the number of frames of one object."""
        return self.config.masks.snapshots

    @property
    def sensor(self) -> tuple[int, int]:
        """Shape (sh, sw) of a CDP."""
        return self.camera.sensor

    @cached_property
    def optics(self) -> Optics:
        """Optics of `phases` in `camera`."""
        return self.camera.optics(self.phases)

    @property
    def in_radians(self) -> bool:
        """Whether its images are files of phases, to which `dataset` adds an offset."""
        return self.config.data.unit == "radians"

    @cached_property
    def dataset(self) -> sources.Dataset:
        """Data set that it was trained on, or that its config names; raises like `load_data`."""
        if not self.is_trained:
            return schema.load_data(self.config)
        return load_data(self.workdir, self.config, data_dir=self.data_dir)

    def scenes(self, count: int) -> Images:
        """Returns the first test images as the system takes them [n h w c]; raises as `dataset`."""
        test, camera = self.dataset.test, self.camera
        indices = jnp.arange(min(count, len(test)))
        return take_batch(test, indices, size=camera.size, channels=camera.channels)

    def with_optics(self, optics: dict[str, dict[str, Any]]) -> "Run":
        """Returns the run on a bench with other optics than those it was trained for.

        The recovery assumes the new optics; masks and network stay the same.

        Args:
            optics: Options of the config, by section (`lab.frames.calibration`).

        Raises:
            InputError: If they are not valid options.
        """
        config = schema.with_optics(self.config, optics)
        checks.validate(config, has_network=self.has_network)
        camera = build_camera(config, mesh=self.camera.mesh)
        system = dataclasses.replace(self.system, camera=camera)
        return self._sharing_data(dataclasses.replace(self, config=config, system=system))

    def by_solver(self, solver: Refinement, *, starts: int) -> "Run":
        """Returns the run with a solver in place of the network (`recovery.solver_system`).

        The solver starts from `starts` spectral estimates.

        Raises:
            InputError: If there is no such solver, or its steps or starts are out of range.
        """
        solver_names("solver", [solver.solver])
        require("solver: its steps", solver.steps, Range(1, MOST_COUNT))
        require("starts", starts, Range(1, 10_000))
        options = {field.name: getattr(self.system, field.name) for field in fields(System)}
        system = SolverSystem(**options, solver=solver)
        params, state = self.variables
        drawn = system.draw_starts(run_keys(self.config.seed).evaluation, starts)
        variables = params, {**state, "starts": drawn}
        return self._sharing_data(dataclasses.replace(self, system=system, variables=variables))

    def on_one_device(self) -> "Run":
        """Returns the run on one device, where it takes any number of images at a time."""
        camera = dataclasses.replace(self.camera, mesh=None)
        system = dataclasses.replace(self.system, camera=camera)
        return self._sharing_data(dataclasses.replace(self, system=system))

    def _sharing_data(self, other: "Run") -> "Run":
        if "dataset" in self.__dict__:  # so that it is not read again
            other.__dict__["dataset"] = self.dataset
        return other


class RunKeys(NamedTuple):
    """The random streams of a run, all derived from `config.seed`."""

    init: Key
    order: Key
    steps: Key
    evaluation: Key


def run_keys(seed: int) -> RunKeys:
    """Derives the independent streams of a run."""
    return RunKeys(*jax.random.split(jax.random.key(seed), 4))


def training_keys(config: Config) -> RunKeys:
    """Returns the random streams of a training; a teacher has its own, except for evaluation.

    A student and the E2E run that it is compared with start alike. A teacher with the same start
    would guide the student to the masks that the student starts with.
    """
    keys = run_keys(config.seed)
    if config.regime != "teacher" or config.distill.draws == "shared":
        return keys
    own = run_keys(int(jax.random.bits(keys.init)))
    return own._replace(evaluation=keys.evaluation)


def load_run(workdir: Path, *, data_dir: str = "", images: int = 0) -> Run:
    """Restores the best checkpoint of a run.

    Args:
        workdir: Its run folder.
        data_dir: Where its data lie now; empty for where they were during training.
        images: Number of images in a pass, 0 for many. No batch is larger.

    Raises:
        InputError: If the folder holds no run, or no checkpoint that can be read.
    """
    runtime.require_32_bits()
    config = run_folder.read_config(workdir)
    batch_size, mesh = _choose_batch(config, images)
    run = restore(workdir, config, mesh=mesh)
    run_folder.warn_of_code(workdir, config)
    return dataclasses.replace(run, batch_size=batch_size, data_dir=data_dir)


def untrained(
    config: Config, *, images: int = 0, solver: Refinement = ALONE, starts: int = STARTS
) -> Run:
    """Returns the optics with which a training of a config would start, and a solver.

    Args:
        config: A validated config.
        images: As in `load_run`.
        solver: Solver in place of the network, as in `Run.by_solver`.
        starts: As in `Run.by_solver`.

    Raises:
        InputError: If a file of its optics cannot be used.
    """
    planes, (batch_size, mesh) = read_planes(config), _choose_batch(config, images)
    camera = build_camera(config, mesh=mesh)
    system = SolverSystem(camera, config.masks.snapshots, copy(config.spectral))
    params, state = jax.jit(system.init)(training_keys(config).init)
    params = {**params, "phases": start_phases(config, params["phases"], planes)}
    run = Run(Path(), config, system, (params, state), batch_size=batch_size)
    return run.by_solver(solver, starts=starts)


def _choose_batch(config: Config, images: int) -> tuple[int, Mesh | None]:
    """Returns the batch size for `images` images (0: many), and the devices to spread it over."""
    batch_size = runtime.choose_eval_batch(
        config.train.eval_batch_size, size=config.data.size, features=config.net.widths[0]
    )
    batch_size = min(batch_size, images or batch_size)
    return batch_size, make_mesh(runtime.choose_devices(0, batch_size))


def restore(workdir: Path, config: Config, *, mesh: Mesh | None = None) -> Run:
    """Restores the best checkpoint of the run in `workdir`, made with `config`.

    Raises:
        InputError: If the folder holds no checkpoint that can be read.
    """
    system = build_system(config, mesh=mesh)
    if system.camera.beam is not None:
        run_folder.require_planes(workdir, system.camera.beam.planes)
    params, state = jax.eval_shape(system.init, run_keys(config.seed).init)
    wanted: PyTree = {"params": params, "state": state}
    if config.optim.average > 0:
        wanted = {"average": (params, state)}
    with Checkpoints(workdir, read_only=True) as checkpoints:
        best = checkpoints.restore_best(wanted)
    variables = best.tree.get("average") or (best.tree["params"], best.tree["state"])
    return Run(workdir, config, system, variables, best.digest, best.step)


def load_data(workdir: Path, config: Config, *, data_dir: str = "") -> sources.Dataset:
    """Loads the data that the run in `workdir` was trained on.

    Args:
        workdir: Its run folder.
        config: Config that says which data they are, and where.
        data_dir: Where the data lie now, if they have moved.

    Raises:
        InputError: If the data are missing, or are not those of the training.
    """
    runtime.require_32_bits()
    if data_dir and config.data.source == "scenes":
        raise InputError(
            f"--data_dir: nothing reads it, the scenes of {workdir} are procedural; leave it out"
        )
    named = f"{workdir}: its data.dir"
    remedy = "give --data_dir with where they lie now"
    if data_dir:
        named, remedy = "--data_dir", "give its path"
        config = changed(config, data=changed(config.data, dir=data_dir))
    dataset = schema.load_data(config, named=named, remedy=remedy)
    record = run_folder.read_run(workdir)
    if not run_folder.draws_alike(record, dataset.sample):
        raise InputError(f"{workdir}: its data have changed: {run_folder.DRAWN}; use that one")
    recorded = record["digests"]["data"]
    if dataset.digest != recorded and dataset.test.ndim == 4 and config.data.source == "images":
        raise InputError(
            f"{workdir}: its data have changed, or it was trained before complex scenes were pairs "
            "of image files (CHANGELOG.md): give --data_dir with the data it was trained on, or "
            "train again"
        )
    if dataset.digest != recorded:
        raise InputError(
            f"{workdir}: its data have changed (digest {dataset.digest[:12]}, trained on "
            f"{recorded[:12]}); give --data_dir with the data it was trained on"
        )
    return dataset
