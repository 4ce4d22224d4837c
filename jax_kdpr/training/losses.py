"""Losses of arXiv 2505.18352, eq. 3 to 7.

The paper writes squared norms (sums over pixels). Here every reduction is a mean over scenes and
over pixels or features, so that weights mean the same at any image size. The paper's weight is ours
over the number of pixels (eq. 3), samples (eq. 5) or features (eq. 6). That the three sum to 1
(eq. 7) is imposed on ours; with Adam only their ratios matter, and theirs to rho.

The terms have different scales, of which `presets.student` lists measured ones. Choose alpha and
beta with that in mind.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from jax_kdpr.config.schema import TASK_LOSSES, Config
from jax_kdpr.core.types import Features, Images, Patterns, Phases, Scalar
from jax_kdpr.optics.masks import REGULARISERS, range_penalty
from jax_kdpr.recovery.system import Output
from jax_kdpr.training.targets import Targets, targets_of

TaskLoss = Callable[[Images, Images], Scalar]  # of recovered and true images, [b h w c]
Weights = Mapping[str, Scalar | float]  # by the name of the term


def task_loss(recovered: Images, images: Images) -> Scalar:
    """Returns eq. 3: the mean over scenes and pixels of (D(z) - x)^2, for images in [0, 1]."""
    return jnp.mean(jnp.square(recovered - images))


class Objective(NamedTuple):
    """The parts of the loss that options choose, `loss.task` and `masks.regulariser`."""

    task: TaskLoss = task_loss
    penalty: Callable[[Phases], Scalar] = range_penalty  # R

    @classmethod
    def of(cls, config: Config) -> "Objective":
        """Returns that of a config."""
        return cls(TASK_LOSSES[config.loss.task], REGULARISERS[config.masks.regulariser])


class Seen(NamedTuple):
    """What the loss terms of one step may depend on."""

    images: Images  # true scenes
    output: Output  # all outputs of the system for them
    phases: Phases
    objective: Objective
    targets: Targets | None  # the teacher's targets for these scenes


def cdp_loss(student: Patterns, teacher: Patterns) -> Scalar:
    """Returns eq. 5 for the CDPs of both systems, averaged over their own snapshots: [b sh sw].

    It is the mean over scenes and sensor pixels of (teacher - student)^2. For a phase scene, an
    averaged CDP has mean 1 without zero padding and 1/4 with `oversample` 2, where the loss is
    therefore 16 times smaller at the same weight.
    """
    return jnp.mean(jnp.square(teacher - student))


def feature_loss(student: Features, teacher: Features) -> Scalar:
    """Returns eq. 6: the mean over scenes and features of (teacher - student)^2 of bottlenecks."""
    return jnp.mean(jnp.square(teacher - student))


def _of_teacher(loss: Callable, name: str) -> Callable[[Seen], Scalar]:
    """Returns a loss term that is zero without a teacher."""

    def term(seen: Seen) -> Scalar:
        if seen.targets is None:
            return jnp.zeros(())
        return loss(getattr(targets_of(seen.output), name), getattr(seen.targets, name))

    return term


TERMS: dict[str, Callable[[Seen], Scalar]] = {
    "task": lambda seen: seen.objective.task(seen.output.image, seen.images),
    "mask": lambda seen: seen.objective.penalty(seen.phases),
    "cdp": _of_teacher(cdp_loss, "cdp"),
    "feature": _of_teacher(feature_loss, "feature"),
}


def loss_weights(config: Config) -> dict[str, float]:
    """Returns the weight of each of `TERMS`: alpha, rho, beta, sigma = 1 - alpha - beta (eq. 7).

    Without a teacher beta = sigma = 0 (eq. 4). A sigma below 1e-9 is a rounding error: it is 0.
    """
    loss, is_student = config.loss, config.regime == "student"
    sigma = 1.0 - loss.alpha - loss.beta
    return {
        "task": loss.alpha,
        "mask": loss.rho,
        "cdp": loss.beta if is_student else 0.0,
        "feature": sigma if is_student and abs(sigma) >= 1e-9 else 0.0,
    }


def guides(weights: Weights) -> bool:
    """Returns whether a loss that compares with the teacher has a weight."""
    return bool(weights["cdp"] or weights["feature"])


def evaluate_terms(seen: Seen, weights: Weights) -> dict[str, Scalar]:
    """Returns each of `TERMS`, and "total": their weighted sum (eq. 7)."""
    terms = {name: term(seen) for name, term in TERMS.items()}
    total = sum((weights[name] * value for name, value in terms.items()), jnp.zeros(()))
    return {**terms, "total": total}
