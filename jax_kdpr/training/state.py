"""What training carries from step to step, and the optimiser that advances it."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int

from jax_kdpr.core.types import Params, PyTree, State
from jax_kdpr.training.losses import Losses


@struct.dataclass
class TrainState:
    """Everything a resumed run needs: restoring it continues bit for bit on one device."""

    step: Int[Array, ""]  # optimiser steps done
    params: Params
    state: State  # of the system: start vector, batch statistics
    opt_state: PyTree
    totals: Losses  # sums of the losses over the current epoch so far
    average: tuple[Params, State] | None = None  # running mean of both, where one is kept

    @property
    def variables(self) -> tuple[Params, State]:
        """What is validated, and what the run is for: the running mean, or what is trained."""
        return (self.params, self.state) if self.average is None else self.average


def make_optimizer(
    *, mask_lr: float, filter_lr: float, net_lr: float, schedule: str, total_steps: int
) -> optax.GradientTransformation:
    """Builds Adam with a learning rate for each top-level part of `params`.

    Args:
        mask_lr: Rate of "phases": about the largest change of a phase in one step, radians.
        filter_lr: Rate of "filter".
        net_lr: Rate of "net".
        schedule: "constant", or "cosine" from the rate to zero over `total_steps`.
        total_steps: Length of the training in steps.

    Raises:
        ValueError: If `schedule` is neither.
    """

    def adam(rate: float) -> optax.GradientTransformation:
        match schedule:
            case "constant":
                return optax.adam(rate)
            case "cosine":
                return optax.adam(optax.cosine_decay_schedule(rate, total_steps))
        raise ValueError(f"schedule: expected constant or cosine, got {schedule!r}")

    return optax.partition(
        {"phases": adam(mask_lr), "filter": adam(filter_lr), "net": adam(net_lr)},
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
    """Starts training; the optimiser only ever sees the `trained` parts of `params`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init({part: params[part] for part in trained}),
        # One buffer each: the step donates them.
        totals=Losses(*[jnp.zeros(()) for _ in Losses._fields]),
        average=jax.tree.map(jnp.copy, (params, state)) if keep_average else None,
    )


def advance_average(
    average: tuple[Params, State],
    latest: tuple[Params, State],
    step: Int[Array, ""],
    *,
    decay: float,
) -> tuple[Params, State]:
    """Moves the running mean: d average + (1 - d) latest, with d = min(decay, (1 + t) / (10 + t)).

    The smaller d of the first steps t lets it forget the random start.
    """
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda mean, new: weight * mean + (1.0 - weight) * new, average, latest)
