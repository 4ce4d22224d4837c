"""One jitted training step for all four regimes, and one evaluation step.

The regimes differ in constants only: which parts of `params` are trained, how many snapshots the
system takes, and which losses have a weight. What is not trained is not differentiated either.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jax_kdpr import losses, metrics
from jax_kdpr.data.batches import take_batch
from jax_kdpr.metrics import ImageScores
from jax_kdpr.physics.masks import mask_penalty
from jax_kdpr.sharding import shard_batch
from jax_kdpr.systems import Output, System
from jax_kdpr.training.state import TrainState
from jax_kdpr.types import Indices, Key, Params, RawImages, Residuals, Scalar, State


class LossWeights(NamedTuple):
    """Weights of eq. 7 (eq. 4 with beta = sigma = 0) and the regulariser behind rho."""

    alpha: float
    rho: float
    beta: float = 0.0
    sigma: float = 0.0
    regulariser: str = "range"
    levels: int = 256


def make_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    *,
    trained: tuple[str, ...],
    weights: LossWeights,
    batch_size: int,
    size: int,
    channels: int,
    teacher: System | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., tuple[TrainState, Scalar]]:
    """Builds step(train_state, teacher_variables, images, order, key) -> train_state, loss; jitted.

    Args:
        system: The system to train.
        optimizer: From `make_optimizer`.
        trained: Parts of `params` that are trained; the others are constants of the step.
        weights: Of the losses. `beta` and `sigma` need a teacher.
        batch_size: Images a step.
        size: Height and width that the systems take.
        channels: Images that make one scene.
        teacher: The frozen system that guides a student; its variables are the step's second
            argument, (params, state), or None without a teacher.
        mesh: Devices to spread the batch over.

    The step takes images [n ...] on the device, and `order`, the epoch's permutation of them;
    its place in the epoch follows from `train_state.step`, so nothing is sent to the device from
    step to step. Its argument `train_state` is donated. `key` is the run's: every step folds its
    own number into it.
    """

    def loss_fn(parts: Params, train_state: TrainState, teacher_variables, images, key: Key):
        params = {**train_state.params, **parts}
        key, teacher_key = jax.random.split(key)
        output, state = system.apply(params, train_state.state, images, key, train=True)
        cdp = feature = jnp.zeros(())
        if teacher is not None:
            guide = _teach(teacher, teacher_variables, images, teacher_key)
            cdp = losses.cdp_loss(output.intensity, guide.intensity)
            feature = losses.feature_loss(output.bottleneck, guide.bottleneck)
        terms = losses.weighted_sum(
            task=losses.task_loss(output.image, images),
            mask=mask_penalty(params["phases"], kind=weights.regulariser, levels=weights.levels),
            cdp=cdp,
            feature=feature,
            alpha=weights.alpha,
            rho=weights.rho,
            beta=weights.beta,
            sigma=weights.sigma,
        )
        return terms.total, (terms, state)

    gradient_fn = jax.grad(loss_fn, has_aux=True)

    def step(
        train_state: TrainState,
        teacher_variables: tuple[Params, State] | None,
        images: RawImages,
        order: Indices,
        key: Key,
    ) -> tuple[TrainState, Scalar]:
        place = train_state.step % (order.shape[0] // batch_size)
        indices = jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)
        batch = shard_batch(take_batch(images, indices, size=size, channels=channels), mesh)

        parts = {part: train_state.params[part] for part in trained}
        gradients, (terms, state) = gradient_fn(
            parts, train_state, teacher_variables, batch, jax.random.fold_in(key, train_state.step)
        )
        updates, opt_state = optimizer.update(gradients, train_state.opt_state, parts)
        stepped = cast(Params, optax.apply_updates(parts, updates))
        advanced = TrainState(
            step=train_state.step + 1,
            params={**train_state.params, **stepped},
            state=state,
            opt_state=opt_state,
            totals=jax.tree.map(
                lambda total, term: jnp.where(place == 0, 0.0, total) + term,
                train_state.totals,
                terms,
            ),
        )
        return advanced, terms.total

    return jax.jit(step, donate_argnums=0)


def _teach(teacher: System, variables: tuple[Params, State], images: jax.Array, key: Key) -> Output:
    """What the frozen teacher makes of the same scenes, with noise of its own, without gradient."""
    params, state = variables
    output, _ = teacher.apply(params, state, images, key)
    return jax.lax.stop_gradient(output)


def make_eval_step(
    system: System, *, size: int, channels: int, mesh: Mesh | None = None
) -> Callable[[Params, State, RawImages, Indices, Key], tuple[ImageScores, Residuals]]:
    """Builds step(params, state, images, indices, key) -> (scores, residuals) per image, jitted."""

    def step(params: Params, state: State, images: RawImages, indices: Indices, key: Key):
        batch = shard_batch(take_batch(images, indices, size=size, channels=channels), mesh)
        output, _ = system.apply(params, state, batch, key)
        return metrics.score(output.image, batch), output.residual

    return jax.jit(step)
