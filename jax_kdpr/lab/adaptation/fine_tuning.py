"""Fine-tunes the filter and the network of a trained system on shots of its own bench.

Half of each batch are shots of the bench. The other half are simulated shots of the data of the
first training, on the optics as far as they are known; they keep the system from forgetting. The
masks do not change, since they are mounted on the bench.

With several shots of each object it is known what the objects were, and the loss is that of eq. 3.
With one shot it is not known, and the loss asks two things of a recovered object: measured again,
it must give the shot; shifted and measured, it must be recovered at its new place (equivariant
imaging, Chen et al., arXiv 2103.14756).
"""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jax_kdpr.config import checks, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import ImageScores, psnr_from_mse
from jax_kdpr.core.types import Images, Key, Params, Scalar, State
from jax_kdpr.data.batches import over_batches
from jax_kdpr.lab.frames.recovery import make_explain
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.recovery.system import System
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_system, read_planes
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.runs.run import Run, training_keys
from jax_kdpr.training.lessons import Lessons
from jax_kdpr.training.losses import TERMS, Objective, TaskLoss, loss_weights
from jax_kdpr.training.setup import Training
from jax_kdpr.training.state import TrainState, init_train_state, make_optimizer
from jax_kdpr.training.steps import Epoch, Loss, Window, compile_steps, make_step, take
from jax_kdpr.training.validation import Validate, means

TRAINED = ("filter", "net")
ROUND = 50  # steps from one validation to the next
REACH = 8  # objects are shifted by up to 1 / REACH of their side each way


def adapted_config(run: Run, optics: dict, *, rounds: int, rate: float) -> Config:
    """Returns the config of the run that an adaptation makes.

    Args:
        run: The run to adapt, on the bench as far as a calibration knows it.
        optics: Further options of its optics, by section.
        rounds: Number of rounds of `ROUND` steps; they are the epochs of the new run.
        rate: Factor on the learning rates of the run's training.

    Raises:
        InputError: If the options of the optics are not valid.
    """
    config = schema.with_optics(run.config, optics)
    config.optics = ""  # it is in the options
    config.train.epochs, config.train.validate_every = rounds, 1
    config.train.log_gradients = False
    config.optim.filter_lr *= rate
    config.optim.net_lr *= rate
    config.optim.schedule, config.optim.average = "cosine", 0.0
    checks.validate(config)
    return config


def require_folder(run: Run, workdir: Path) -> Config | None:
    """Refuses a folder that an adaptation may not write into, before anything is computed.

    Returns:
        The config of the adaptation of this run that has begun there; None if none has.

    Raises:
        InputError: If the folder holds something else, or the run's data are missing.
    """
    sample = run.dataset.sample
    if not run_folder.has_begun(workdir):
        _check_folder(workdir, run.config, {}, sample)
        return None
    if run_folder.read_run(workdir)["digests"].get(run_folder.PARENT) != run.digest:
        raise InputError(
            f"--output: {str(workdir)!r} is no adaptation of this run; give another folder"
        )
    return run_folder.read_config(workdir)


def _check_folder(
    workdir: Path, config: Config, digests: dict[str, str], sample: tuple[float, ...]
) -> None:
    """Calls `run_folder.check_workdir` for a folder that --output names here."""
    try:
        run_folder.check_workdir(workdir, config, digests, sample)
    except InputError as failure:
        raise InputError(str(failure).replace("--workdir", "--output")) from failure


def prepare(
    run: Run, config: Config, workdir: Path, lessons: Lessons, held_back: Lessons, digest: str
) -> Training:
    """Builds the training of an adaptation; writes nothing.

    Args:
        run: The run to adapt.
        config: The config from `adapted_config`.
        workdir: Folder of the new run: new, empty, or that of this very adaptation.
        lessons: Lessons to learn from.
        held_back: Lessons of other objects, to validate on.
        digest: Digest of all frames and of what is asked of them; it is kept beside those of the
            data.

    Raises:
        InputError: If the folder holds something else, or a file of the optics cannot be used.
    """
    dataset = run.dataset._replace(stream=None)  # the images in memory are enough
    planes = read_planes(config)
    digests = {"data": dataset.digest, "held_back": dataset.held_back_digest}
    digests |= {section: plane.digest for section, plane in planes.items()}
    digests |= {run_folder.PARENT: run.digest, "frames": digest}
    _check_folder(workdir, config, digests, dataset.sample)
    system = build_system(config)
    optimizer = make_optimizer(config.optim, total_steps=config.train.epochs * ROUND)
    step = make_step(
        _loss(
            system,
            Objective.of(config).task,
            len(lessons.intensity),
            batch_size=config.train.batch_size,
        ),
        optimizer,
        trained=TRAINED,
        length=lambda _: ROUND,
    )
    params, state = jax.tree.map(jnp.copy, run.variables)  # the first step donates them
    batch = runtime.choose_eval_batch(
        config.train.eval_batch_size, size=config.data.size, features=config.net.widths[0]
    )
    keys = training_keys(config)
    return Training(
        config=config,
        workdir=workdir,
        keys=keys,
        dataset=dataset,
        digests=digests,
        planes=planes,
        teacher=None,
        system=system,
        train_steps=cache(partial(compile_steps, step)),
        validate=_make_validate(system, held_back, batch_size=min(batch, len(held_back.intensity))),
        gradients=None,
        start=init_train_state(params, state, optimizer, trained=TRAINED),
        weights=loss_weights(config),
        steps_per_epoch=ROUND,
        eval_batch_size=batch,
        scan_steps=runtime.choose_scan_steps(config.train.scan_steps, ROUND),
        mesh=None,
        lessons=lessons,
        from_trained=True,
    )


def _loss(system: System, task_loss: TaskLoss, count: int, *, batch_size: int) -> Loss:
    """Builds the loss of a batch, half from the bench and half simulated: (terms, state)."""
    shown = max(1, batch_size // 2)
    simulated = max(1, batch_size - shown)
    explain = make_explain(system.camera)

    def loss(parts: Params, train_state: TrainState, epoch: Epoch):
        if not isinstance(epoch.guide, Lessons) or isinstance(epoch.images, Window):
            raise ValueError("epoch: expected the lessons of a bench, and images that are held")
        params = {**train_state.params, **parts}
        optics = system.camera.optics(params["phases"])
        key = jax.random.fold_in(epoch.key, train_state.step)
        pick_key, choose_key, noise_key, own_key = jax.random.split(key, 4)
        some = jax.random.randint(pick_key, (shown,), 0, count)
        others = jax.random.randint(choose_key, (simulated,), 0, len(epoch.images))
        seen, scenes = epoch.guide.take(some), take(system, epoch.images, others)
        measured = system.camera.measure(optics, scenes, noise_key)
        output, state = system.recover(
            params,
            train_state.state,
            jnp.concatenate([seen.intensity, measured]),
            train=True,
            optics=optics,
        )
        recovered = output.image[:shown]
        remembered = task_loss(output.image[shown:], scenes)
        if seen.images is None:
            explained = jnp.mean(jnp.square(explain(optics, recovered, seen.intensity)))
            variables = params, train_state.state
            again = explained + _moved_loss(
                system, task_loss, variables, optics, recovered, own_key
            )
        else:
            again = task_loss(recovered, seen.images)
        # Of the terms of a training only the task loss is used here; the others are 0.
        terms = dict.fromkeys(TERMS, jnp.zeros(()))
        return terms | {"task": again, "total": again + remembered}, state

    return loss


def _moved_loss(
    system: System,
    task_loss: TaskLoss,
    variables: tuple[Params, State],
    optics: Optics,
    recovered: Images,
    key: Key,
) -> Scalar:
    """Returns the task loss of recovered objects that are shifted, measured and recovered again."""
    move_key, noise_key = jax.random.split(key)
    reach = system.camera.size // REACH
    shifts = jax.random.randint(move_key, (len(recovered), 2), -reach, reach + 1)
    moved = jax.lax.stop_gradient(_shifted(recovered, shifts))
    shots = system.camera.measure(optics, moved, noise_key)
    output, _ = system.recover(*variables, intensity=shots, train=True, optics=optics)
    return task_loss(output.image, moved)


def _shifted(images: Images, shifts: Int[Array, "b 2"]) -> Images:
    return jax.vmap(lambda image, shift: jnp.roll(image, shift, axis=(0, 1)))(images, shifts)


def _make_validate(system: System, held_back: Lessons, *, batch_size: int) -> Validate:
    """Builds the validation: scores against known objects, else the shots' misfit in dB."""
    count, explain = len(held_back.intensity), make_explain(system.camera)

    @jax.jit
    def step(variables: tuple[Params, State], held_back: Lessons, indices: Array):
        seen = held_back.take(indices)
        optics = system.camera.optics(variables[0]["phases"])
        output, _ = system.recover(*variables, intensity=seen.intensity, optics=optics)
        if seen.images is None:
            return explain(optics, output.image, seen.intensity), output.residual
        return system.camera.score(output.image, seen.images), output.residual

    def validate(variables: tuple[Params, State]) -> dict[str, float]:
        found, residual = over_batches(
            lambda indices, _: step(variables, held_back, indices),
            count,
            batch_size=batch_size,
        )
        left = {"validation_residual": float(jnp.mean(residual))}
        if isinstance(found, ImageScores):
            return means(found) | left
        size = float(jnp.mean(jnp.square(found)))
        score = float(psnr_from_mse(jnp.asarray(size)))
        return left | {"validation_misfit": size**0.5, SCORE: score}

    return validate
