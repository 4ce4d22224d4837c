"""The state that training carries from step to step, and the optimiser that advances it."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int

from jax_kdpr.config.schema import OptimOptions
from jax_kdpr.core.types import Params, PyTree, Scalar, State
from jax_kdpr.training.losses import TERMS


@struct.dataclass
class TrainState:
    """Everything that a resumed run needs to continue bit for bit on one device."""

    step: Int[Array, ""]  # optimiser steps done
    params: Params
    state: State  # of the system: start vector, batch statistics
    opt_state: PyTree
    totals: dict[str, Scalar]  # sums of the losses over the current epoch so far
    average: tuple[Params, State] | None = None  # running mean of both, if kept

    @property
    def variables(self) -> tuple[Params, State]:
        """The variables to validate and to use: the running mean if kept, else the trained ones."""
        return (self.params, self.state) if self.average is None else self.average


def make_optimizer(optim: OptimOptions, *, total_steps: int) -> optax.GradientTransformation:
    """Builds Adam with a learning rate for each top-level part of `params`.

    Args:
        optim: Learning rates; that of the masks is about the largest change of a phase in a step,
            in radians.
        total_steps: Length of the training in steps; a cosine schedule reaches zero at its end.
    """

    def adam(rate: float) -> optax.GradientTransformation:
        if optim.schedule == "cosine":
            return optax.adam(optax.cosine_decay_schedule(rate, total_steps))
        return optax.adam(rate)

    return optax.partition(
        {
            "phases": adam(optim.mask_lr),
            "filter": adam(optim.filter_lr),
            "net": adam(optim.net_lr),
        },
        lambda params: {
            part: jax.tree.map(lambda _, part=part: part, leaves) for part, leaves in params.items()
        },
    )


def init_train_state(
    params: Params,
    state: State,
    optimizer: optax.GradientTransformation,
    *,
    trained: tuple[str, ...],
    keep_average: bool = False,
) -> TrainState:
    """Returns the state at step 0; the optimiser only sees the `trained` parts of `params`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init({part: params[part] for part in trained}),
        # Separate buffers, because the step donates them.
        totals={name: jnp.zeros(()) for name in (*TERMS, "total")},
        average=jax.tree.map(jnp.copy, (params, state)) if keep_average else None,
    )


def advance_average(
    average: tuple[Params, State],
    latest: tuple[Params, State],
    step: Int[Array, ""],
    *,
    decay: float,
) -> tuple[Params, State]:
    """Advances the running mean to d average + (1 - d) latest.

    d is min(decay, (1 + t) / (10 + t)). It is smaller in the first steps t, so that the mean
    forgets the random start.
    """
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda mean, new: weight * mean + (1.0 - weight) * new, average, latest)
