"""The teacher of a student: reads and checks its run folder, and what the student takes from it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.config.schema import PATHS, Config
from jax_kdpr.core import options, runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.registry import is_foreign
from jax_kdpr.core.sharding import replicate
from jax_kdpr.core.types import Params, State
from jax_kdpr.data.sources import Dataset
from jax_kdpr.optics.beam import Beam, read_beam
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run, restore
from jax_kdpr.training.targets import Targets, Teach, cache_targets, make_teach, target_bytes

# Options that student and teacher must share for the losses: scene, sensor, and bottleneck.
SHARED = (
    *("data.size", "masks.oversample", "scene.", "propagation.", "sensor."),
    *("illumination.", "aberrations."),
    *("net.kind", "net.widths", "net.norm"),
)
# Options that determine the estimates on which a network was trained.
ESTIMATES = (
    *("spectral.consistency_steps", "spectral.gauge", "spectral.iterations", "spectral.weights"),
    *("spectral.fraction", "spectral.threshold", "net.refine_steps"),
)
# The parts of `params` that a student takes over, and the options that must be equal for that.
TAKEN_OVER: dict[str, dict[str, tuple[str, ...]]] = {
    "none": {},
    "optics": {"phases": (), "filter": ("spectral.filter_size",)},
    "network": {"net": ESTIMATES},
    "all": {"phases": (), "filter": ("spectral.filter_size",), "net": ESTIMATES},
}


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained teacher, as one student needs it."""

    run: Run
    teach: Teach | None  # makes its targets; None if the guiding losses have no weight
    cached: bool  # whether the targets of all images are made once

    @property
    def live(self) -> Teach | None:
        """What makes the targets in every step; None if they are cached or not needed."""
        return None if self.cached else self.teach

    def guide(
        self, config: Config, dataset: Dataset, *, batch_size: int
    ) -> Targets | tuple[Params, State] | None:
        """Returns what the steps of `config` learn from: targets, made now, or the variables."""
        if self.teach is None or not self.cached:
            return self.teach and self.run.variables
        return cache_targets(
            self.teach,
            self.run.variables,
            dataset.train(0),
            size=config.data.size,
            channels=config.scene.channels,
            batch_size=batch_size,
            mesh=self.run.camera.mesh,
        )

    def take_over(self, start: str, params: Params, state: State) -> tuple[Params, State]:
        """Replaces the parts of a student's random start that `distill.start` takes over.

        Of the teacher's masks, the student takes the first ones, as many as it has. A network comes
        with its batch statistics and the start vector, which sets the global phase that it learned.
        """
        theirs, their_state = self.run.variables
        taken = {part: theirs[part] for part in TAKEN_OVER[start]}
        if "phases" in taken:
            taken["phases"] = taken["phases"][: len(params["phases"])]
        if "net" in taken:
            state = their_state
        # Copies, since the first step donates its state and may still need the teacher.
        return jax.tree.map(jnp.copy, ({**params, **taken}, state))


def load_teacher(
    config: Config, dataset: Dataset, *, guides: bool, mesh: Mesh | None
) -> Teacher | None:
    """Restores the teacher of a student; returns None for other regimes.

    Args:
        config: Config of the student.
        dataset: Data set of the student.
        guides: Whether one of the guiding losses has a weight.
        mesh: Devices that the student's batches are spread over.

    Raises:
        InputError: If there is no teacher, it does not fit the student, its training is not over,
            its validation and test images differ from the student's (so that it may have been
            trained on them), or its targets cannot be cached.
    """
    if config.regime != "student":
        return None
    workdir = Path(config.distill.teacher)
    if not workdir.is_dir():
        raise InputError(
            f"distill.teacher: no folder {str(workdir)!r}; give the --workdir of a trained teacher"
        )
    theirs = run_folder.read_config(workdir)
    _require_fit(config, theirs)
    # The best checkpoint of a teacher that is still training may change; the student could then
    # never resume.
    done = run_folder.epochs_done(workdir)
    if done < theirs.train.epochs:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} has finished {done} of {theirs.train.epochs} "
            "epochs; run its training to the end first"
        )
    held_back = run_folder.read_run(workdir)["digests"].get("held_back", "")
    if held_back != dataset.held_back_digest:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} had other validation or test images "
            f"(digest {held_back[:12] or 'none'}, student's {dataset.held_back_digest[:12]}); "
            "give both the same data.*, data.train_images excepted"
        )
    run = restore(workdir, theirs, mesh=mesh)
    run = dataclasses.replace(run, variables=replicate(run.variables, mesh))
    teach = make_teach(run.system) if guides else None
    return Teacher(run, teach, teach is not None and _can_cache(config, run, teach, dataset))


def _beam(config: Config) -> Beam | None:
    return read_beam(config.illumination, config.aberrations, size=config.data.size)


def _require_fit(config: Config, theirs: Config) -> None:
    """Raises unless teacher and student fit each other, as do the parts that are taken over."""
    where, start = repr(config.distill.teacher), config.distill.start
    misfits = options.differences(config, theirs, only=SHARED, ignore=PATHS)
    if not misfits and _beam(config) != _beam(theirs):
        misfits.append("illumination.file or aberrations.file: what it holds")
    if misfits:
        raise InputError(
            f"distill.teacher: {where} does not fit; differing (student against teacher): "
            f"{'; '.join(misfits)}; train a teacher with the student's values"
        )
    taken = TAKEN_OVER[start]
    misfits = options.differences(config, theirs, only=sum(taken.values(), ()))
    if "phases" in taken and config.masks.snapshots > theirs.masks.snapshots:
        misfits.append(f"masks.snapshots: {config.masks.snapshots} of {theirs.masks.snapshots}")
    if misfits:
        raise InputError(
            f"distill.start: {start} takes {' and '.join(taken)} from {where}, which do not fit "
            f"(student against teacher): {'; '.join(misfits)}; train a teacher with the student's "
            "values, or set distill.start=none"
        )


def _can_cache(config: Config, teacher: Run, teach: Teach, dataset: Dataset) -> bool:
    """Returns whether to cache the targets; raises if that was requested and is not possible."""
    if config.distill.targets == "live":
        return False
    mesh = teacher.camera.mesh
    copies = 1 if mesh is None or not runtime.on_cpu() else mesh.size
    size, channels = config.data.size, config.scene.channels
    obstacles = changing_targets(config, teacher.config)
    if dataset.stream is not None:
        obstacles.append("images are read while training (data.memory)")
    needed = copies * target_bytes(
        teach,
        teacher.variables,
        jnp.zeros((config.train.batch_size, size, size, channels)),
        count=dataset.train_size,
    )
    allowed = int(runtime.TARGETS_SHARE * runtime.device_memory())
    if needed > allowed:
        obstacles.append(
            f"they take {needed / 2**20:,.0f} MiB, and {allowed / 2**20:,.0f} MiB are a quarter of "
            "the device's memory"
        )
    if obstacles and config.distill.targets == "cached":
        raise InputError(
            f"distill.targets: cannot be cached: {'; '.join(obstacles)}; set distill.targets=live"
        )
    return not obstacles


def changing_targets(config: Config, theirs: Config) -> list[str]:
    """Returns why a teacher's targets of an image change from step to step; [] if they do not."""
    reasons = []
    if theirs.noise.kind != "none":
        reasons.append(f"the teacher's {theirs.noise.kind} noise is new in every step")
    if not theirs.jitter.is_none:
        reasons.append("the errors of the teacher's bench (jitter) are new in every step")
    source = config.data.source
    if source == "scenes" or is_foreign(source):
        reasons.append(f"data.source {source} may draw new images every epoch")
    return reasons
