"""The gradient of each loss term with respect to masks, filter and network.

Terms are weighted as in eq. 7, and evaluated on the batch of one step. A term whose gradient is
small beside that of the task decides nothing, whatever its value is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jax_kdpr.core.types import PyTree, Scalar
from jax_kdpr.recovery.system import System
from jax_kdpr.training.losses import TERMS, Objective
from jax_kdpr.training.state import TrainState
from jax_kdpr.training.steps import Epoch, batch_of_step, evaluate_batch
from jax_kdpr.training.targets import Teach

Report = Callable[[TrainState, Epoch], dict[str, Scalar]]


def make_report(
    system: System,
    *,
    trained: tuple[str, ...],
    batch_size: int,
    objective: Objective,
    teach: Teach | None = None,
) -> Report:
    """Builds the jitted report(train_state, epoch) on the next step.

    The arguments are those of `steps.make_train_step`.

    Returns:
        {"gradient_TERM_PART": the Euclidean norm, "cosine_TERM_PART": the cosine of the angle to
        the task's gradient, 0 if either vanishes}, for each of `losses.TERMS` and each part that is
        trained; there is no cosine for the task itself.
    """

    @jax.jit
    def report(train_state: TrainState, epoch: Epoch) -> dict[str, Scalar]:
        batch = batch_of_step(system, train_state, epoch, batch_size=batch_size, teach=teach)

        def weighted(parts):
            terms, _ = evaluate_batch(system, parts, train_state, batch, objective, epoch.weights)
            return {name: epoch.weights[name] * terms[name] for name in TERMS}

        _, pull = jax.vjp(weighted, {part: train_state.params[part] for part in trained})
        nothing = dict.fromkeys(TERMS, jnp.zeros(()))
        gradients = {name: pull({**nothing, name: jnp.ones(())})[0] for name in TERMS}
        found = {}
        for part in trained:
            task = gradients["task"][part]
            for name in TERMS:
                own = gradients[name][part]
                size = jnp.sqrt(_inner(own, own))
                found[f"gradient_{name}_{part}"] = size
                if name != "task":
                    both = size * jnp.sqrt(_inner(task, task))
                    cosine = _inner(own, task) / jnp.where(both > 0, both, 1.0)
                    found[f"cosine_{name}_{part}"] = cosine
        return found

    return report


def _inner(one: PyTree, other: PyTree) -> Scalar:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
