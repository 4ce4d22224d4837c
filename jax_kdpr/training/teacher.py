"""A student's teacher: its run folder checked and read, and what the student takes from it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.config.schema import Config
from jax_kdpr.core import options, runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.registry import is_foreign
from jax_kdpr.core.sharding import replicate
from jax_kdpr.core.types import Params, State
from jax_kdpr.data import sources
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run, restore
from jax_kdpr.training.targets import Teach, target_bytes

# What student and teacher must share for their losses to be defined: scene, sensor, bottleneck.
TEACHER_FITS = (
    *("data.size", "masks.oversample", "scene.", "propagation."),
    *("net.kind", "net.widths", "net.norm"),
)
# What makes the estimates that a network was trained on.
NETWORK_FITS = (
    *("spectral.consistency_steps", "spectral.gauge", "spectral.iterations", "spectral.weights"),
    *("spectral.fraction", "spectral.threshold", "net.refine_steps"),
)
# The parts of `params` that a student takes over from its teacher.
TAKEN_OVER = {
    "none": (),
    "optics": ("phases", "filter"),
    "network": ("net",),
    "all": ("phases", "filter", "net"),
}


def load_teacher(config: Config, mesh: Mesh | None) -> Run | None:
    """Restores a student's teacher; None for other regimes.

    Raises:
        InputError: If there is none, it does not fit the student, or its training is not over.
    """
    if config.regime != "student":
        return None
    workdir = Path(config.distill.teacher)
    if not workdir.is_dir():
        raise InputError(
            f"distill.teacher: no folder {str(workdir)!r}; give the --workdir of a trained teacher"
        )
    theirs = run_folder.read_config(workdir)
    misfits = options.differences(config, theirs, only=TEACHER_FITS)
    if misfits:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} does not fit; differing (student against teacher): "
            f"{'; '.join(misfits)}; train a teacher with the student's values"
        )
    _require_start(config, theirs, workdir)
    # A teacher that is still training may improve: its best checkpoint would change under the
    # student, who could then never resume.
    done = run_folder.epochs_done(workdir)
    if done < theirs.train.epochs:
        raise InputError(
            f"distill.teacher: {str(workdir)!r} has finished {done} of {theirs.train.epochs} "
            "epochs; run its training to the end first"
        )
    teacher = restore(workdir, theirs, mesh=mesh)
    return dataclasses.replace(teacher, variables=replicate(teacher.variables, mesh))


def _require_start(config: Config, theirs: Config, workdir: Path) -> None:
    """Raises unless what the student takes over fits it.

    Optics: as many masks, a filter of the same size. Network: it was trained on estimates made in
    the same way.
    """
    taken = TAKEN_OVER[config.distill.start]
    misfits = []
    if "phases" in taken:
        misfits += options.differences(config, theirs, only=("spectral.filter_size",))
        if config.masks.snapshots > theirs.masks.snapshots:
            misfits.append(f"masks.snapshots: {config.masks.snapshots} of {theirs.masks.snapshots}")
    if "net" in taken:
        misfits += options.differences(config, theirs, only=NETWORK_FITS)
    if misfits:
        raise InputError(
            f"distill.start: {config.distill.start} takes {' and '.join(taken)} from "
            f"{str(workdir)!r}, which do not fit (student against teacher): {'; '.join(misfits)}; "
            "train a teacher with the student's values, or set distill.start=none"
        )


def require_same_split(config: Config, dataset: sources.Dataset) -> None:
    """Raises if the teacher may have been trained on images that the student is scored on."""
    theirs = run_folder.read_run(Path(config.distill.teacher))["digests"].get("held_back", "")
    if theirs != dataset.held_back_digest:
        raise InputError(
            f"distill.teacher: {config.distill.teacher!r} had other validation or test images "
            f"(digest {theirs[:12] or 'none'}, student's {dataset.held_back_digest[:12]}); "
            "give both the same data.*, data.train_images excepted"
        )


def take_over(config: Config, teacher: Run, params: Params, state: State) -> tuple[Params, State]:
    """Replaces the parts of a student's random start that `distill.start` takes from the teacher.

    Of a teacher's masks the first are taken, as many as the student has. A network is taken with
    its batch statistics, and with the start vector, which set the global phase that it has learned.
    """
    theirs, their_state = teacher.variables
    taken = {part: theirs[part] for part in TAKEN_OVER[config.distill.start]}
    if "phases" in taken:
        taken["phases"] = taken["phases"][: config.masks.snapshots]
    if "net" in taken:
        state = their_state
    # Copies: the first step donates its state, and may still need the teacher.
    return jax.tree.map(jnp.copy, ({**params, **taken}, state))


def can_cache_targets(
    config: Config,
    teach: Teach,
    teacher: Run,
    dataset: sources.Dataset,
    mesh: Mesh | None,
) -> bool:
    """Whether the teacher runs once for all; raises where it was asked for and cannot be."""
    mode = config.distill.targets
    if mode == "live":
        return False
    theirs = run_folder.read_config(Path(config.distill.teacher))
    copies = 1 if mesh is None or not runtime.on_cpu() else mesh.size
    size, channels = config.data.size, config.scene.channels
    needed = copies * target_bytes(
        teach,
        teacher.variables,
        jnp.zeros((config.train.batch_size, size, size, channels)),
        count=dataset.train_size,
    )
    allowed = int(runtime.TARGETS_SHARE * runtime.device_memory())
    obstacles = changing_targets(config, theirs)
    if needed > allowed:
        obstacles.append(
            f"they take {needed / 2**20:,.0f} MiB, and {allowed / 2**20:,.0f} MiB are a quarter of "
            "the device's memory"
        )
    if obstacles and mode == "cached":
        raise InputError(
            f"distill.targets: cannot be cached: {'; '.join(obstacles)}; set distill.targets=live"
        )
    return not obstacles


def changing_targets(config: Config, theirs: Config) -> list[str]:
    """Returns why a teacher's targets of an image change from step to step; none if they do not."""
    reasons = []
    if theirs.noise.kind != "none":
        reasons.append(f"the teacher's {theirs.noise.kind} noise is new in every step")
    if not theirs.jitter.is_none:
        reasons.append("the errors of the teacher's bench (jitter) are new in every step")
    source = config.data.source
    if source == "scenes" or is_foreign(source):
        reasons.append(f"data.source {source} may draw new images every epoch")
    return reasons
