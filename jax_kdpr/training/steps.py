"""One training step for all four regimes, as a pure function.

The regimes differ in constants only: which parts of `params` are trained, how many snapshots the
system takes, and which losses have a weight. Parts that are not trained are not differentiated.

`compile_steps` makes a program of several steps in one call (a `lax.scan`, for a GPU).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jax_kdpr.core.sharding import shard_batch
from jax_kdpr.core.types import (
    Images,
    Indices,
    Key,
    Params,
    RawImages,
    Scalar,
    State,
)
from jax_kdpr.data.batches import take_batch
from jax_kdpr.recovery.system import System
from jax_kdpr.training.lessons import Lessons
from jax_kdpr.training.losses import Objective, Seen, Weights, evaluate_terms
from jax_kdpr.training.state import TrainState, advance_average
from jax_kdpr.training.targets import Targets, Teach


class Window(NamedTuple):
    """The images of the next steps only, if not all images are on the device."""

    images: Float[Array, "s b c h w"]  # in [0, 1]
    first: Int[Array, ""]  # the step that takes the first batch


class Epoch(NamedTuple):
    """What the steps of one epoch read and do not change."""

    images: RawImages | Window  # training images, on the device
    order: Indices  # the epoch's permutation of them
    key: Key  # the run's; every step folds its own number into it
    weights: Weights
    guide: Targets | tuple[Params, State] | Lessons | None = None
    """The teacher of a student, as cached targets (one row per image) or (params, state); or the
    lessons of a bench."""


class Batch(NamedTuple):
    """What one step learns from."""

    images: Images
    targets: Targets | None  # the teacher's targets for them
    key: Key  # for noise and errors of the bench


PAPERS = Objective()
Loss = Callable[[Params, TrainState, Epoch], tuple[dict[str, Scalar], State]]
Step = Callable[[TrainState, Epoch], tuple[TrainState, Scalar]]
Steps = Callable[[TrainState, Epoch], tuple[TrainState, Float[Array, "*steps"]]]


def batch_of_step(
    system: System,
    train_state: TrainState,
    epoch: Epoch,
    *,
    batch_size: int,
    teach: Teach | None = None,
) -> Batch:
    """Returns the batch of the next step of `train_state`; arguments as in `make_train_step`."""
    place = train_state.step % (epoch.order.shape[0] // batch_size)
    indices = jax.lax.dynamic_slice_in_dim(epoch.order, place * batch_size, batch_size)
    if isinstance(epoch.images, Window):
        batch = epoch.images.images[train_state.step - epoch.images.first]
        images = shard_batch(jnp.moveaxis(batch, 1, -1), system.camera.mesh)
    else:
        images = take(system, epoch.images, indices)
    key, teacher_key = jax.random.split(jax.random.fold_in(epoch.key, train_state.step))
    guide = epoch.guide
    if guide is None or isinstance(guide, Targets):
        return Batch(images, guide and guide.take(indices), key)
    if isinstance(guide, Lessons):
        raise ValueError("guide: lessons of a bench have a step of their own")
    if teach is None:
        raise ValueError("guide: a teacher's variables need its system, pass teach=")
    return Batch(images, teach(guide, images, teacher_key), key)


def evaluate_batch(
    system: System,
    parts: Params,
    train_state: TrainState,
    batch: Batch,
    objective: Objective,
    weights: Weights,
) -> tuple[dict[str, Scalar], State]:
    """Returns the losses of a batch (`losses.evaluate_terms`), and the new state of the system.

    `parts` replace those of `train_state.params`.
    """
    params = {**train_state.params, **parts}
    output, state = system.apply(params, train_state.state, batch.images, batch.key, train=True)
    seen = Seen(batch.images, output, params["phases"], objective, batch.targets)
    return evaluate_terms(seen, weights), state


def make_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    *,
    trained: tuple[str, ...],
    batch_size: int,
    objective: Objective = PAPERS,
    teach: Teach | None = None,
    average: float = 0.0,
) -> Step:
    """Builds step(train_state, epoch) -> (train_state, loss), which `compile_steps` compiles.

    The step's place in the epoch follows from `train_state.step`, so nothing is sent to the device
    from step to step.

    Args:
        system: The system to train.
        optimizer: From `make_optimizer`.
        trained: Parts of `params` that are trained; the others are constants of the step.
        batch_size: Number of images per step.
        objective: Task loss and mask regulariser (`Objective.of`).
        teach: From `make_teach`, for a teacher that runs in every step; None with cached targets.
        average: Decay of the running mean that the train state keeps, if it keeps one.
    """

    def loss(parts: Params, train_state: TrainState, epoch: Epoch):
        batch = batch_of_step(system, train_state, epoch, batch_size=batch_size, teach=teach)
        return evaluate_batch(system, parts, train_state, batch, objective, epoch.weights)

    def length(epoch: Epoch) -> int:
        return epoch.order.shape[0] // batch_size

    return make_step(loss, optimizer, trained=trained, length=length, average=average)


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    trained: tuple[str, ...],
    length: Callable[[Epoch], int],
    average: float = 0.0,
) -> Step:
    """Builds the training step of a loss.

    Args:
        loss: loss(parts, train_state, epoch) -> (terms, state), with `parts` in place of those of
            the train state: each of `losses.TERMS` and their "total", and the new state.
        optimizer: As in `make_train_step`.
        trained: As in `make_train_step`.
        length: length(epoch) -> steps of an epoch, over which the terms are summed.
        average: As in `make_train_step`.
    """

    def total(parts: Params, train_state: TrainState, epoch: Epoch):
        terms, state = loss(parts, train_state, epoch)
        return terms["total"], (terms, state)

    gradient_fn = jax.grad(total, has_aux=True)

    def step(train_state: TrainState, epoch: Epoch) -> tuple[TrainState, Scalar]:
        place = train_state.step % length(epoch)
        parts = {part: train_state.params[part] for part in trained}
        gradients, (terms, state) = gradient_fn(parts, train_state, epoch)
        updates, opt_state = optimizer.update(gradients, train_state.opt_state, parts)
        stepped = cast(Params, optax.apply_updates(parts, updates))
        params = {**train_state.params, **stepped}
        running = train_state.average
        if running is not None:
            running = advance_average(running, (params, state), train_state.step, decay=average)
        advanced = TrainState(
            step=train_state.step + 1,
            params=params,
            state=state,
            opt_state=opt_state,
            totals=jax.tree.map(
                lambda total, term: jnp.where(place == 0, 0.0, total) + term,
                train_state.totals,
                terms,
            ),
            average=running,
        )
        return advanced, terms["total"]

    return step


def compile_steps(step: Step, length: int = 1) -> Steps:
    """Compiles `length` steps into one program: (train_state, epoch) -> (train_state, losses).

    The argument `train_state` is donated. Losses are [length].

    Args:
        step: From `make_train_step`.
        length: Number of steps per call. Above 1 they are a `lax.scan`, which is not for a CPU:
            there XLA runs convolutions inside a loop tens of times slower.
    """

    def run(train_state: TrainState, epoch: Epoch):
        if length == 1:
            train_state, loss = step(train_state, epoch)
            return train_state, loss[None]
        return jax.lax.scan(lambda state, _: step(state, epoch), train_state, length=length)

    return jax.jit(run, donate_argnums=0)


def take(system: System, images: RawImages, indices: Indices) -> Images:
    """Returns a batch as the system takes it, sharded over its devices."""
    camera = system.camera
    batch = take_batch(images, indices, size=camera.size, channels=camera.channels)
    return shard_batch(batch, camera.mesh)
