"""Losses of arXiv 2505.18352, eq. 3 to 7.

The paper writes squared norms (sums over pixels). Here every reduction is a mean, over scenes and
over pixels or features alike, so that weights keep their meaning at any image size: a weight of
ours equals the paper's up to the number of pixels (eq. 3, 5) or features (eq. 6).

The terms live on different scales: `presets.student` has measured ones. Choose alpha and beta with
that in mind, or let `balance` take the scales away.

What the two guiding losses compare is a *view* of a system's outputs: the paper's, or one of those
that we tried beside it. A teacher's views are all that its student needs of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.physics.phase import fix_global_phase
from jax_kdpr.types import Features, Fields, Images, Intensities, Scalar

TINY = 1e-12  # below any variance or loss that means something


class Losses(NamedTuple):
    """The terms of eq. 7 before weighting, and their weighted sum."""

    total: Scalar
    task: Scalar
    mask: Scalar
    cdp: Scalar
    feature: Scalar


def task_loss(recovered: Images, images: Images) -> Scalar:
    """Eq. 3: mean over scenes and pixels of (D(z) - x)^2, images in [0, 1]."""
    return jnp.mean(jnp.square(recovered - images))


def cdp_view(
    intensity: Intensities, estimate: Fields, *, kind: str = "paper"
) -> Float[Array, "b ..."]:
    """Returns what of a measurement the CDP loss compares.

    With m the mean over a system's own snapshots of its y:

    * "paper": m (eq. 5). For a phase scene it has mean 1 without zero padding and 1/4 with
      `oversample` 2: the loss is then 16 times smaller, at the same weight.
    * "normalised": (m - mean) / standard deviation, scene by scene: two unrelated patterns are at a
      loss of 2, whatever their contrast.
    * "log": log(1 + m / mean): the bright pixels no longer drown the others.
    * "amplitude": sqrt(m / mean), likewise, and what a phase-retrieval residual compares.
    * "estimate": real and imaginary part of the spectral estimate, its mean made real and positive,
      since two systems' estimates have different global phases.

    Raises:
        ValueError: If `kind` is none of these.
    """
    pattern = jnp.mean(intensity, axis=1)
    mean = jnp.mean(pattern, axis=(1, 2), keepdims=True)
    # A dark frame, or noise of negative mean, must not divide by zero.
    relative = jnp.maximum(pattern, 0.0) / jnp.maximum(mean, TINY)
    match kind:
        case "paper":
            return pattern
        case "normalised":
            variance = jnp.var(pattern, axis=(1, 2), keepdims=True)
            return (pattern - mean) / jnp.sqrt(variance + TINY)
        case "log":
            return jnp.log1p(relative)
        case "amplitude":
            return jnp.sqrt(relative + TINY)
        case "estimate":
            settled = jax.vmap(lambda field: fix_global_phase(field, gauge="mean"))(estimate)
            return jnp.stack([settled.real, settled.imag], axis=-1)
    raise ValueError(f"cdp: expected paper, normalised, log, amplitude or estimate, got {kind!r}")


def cdp_loss(student: Float[Array, "b ..."], teacher: Float[Array, "b ..."]) -> Scalar:
    """Eq. 5 on two `cdp_view`s: mean over scenes and pixels of (teacher - student)^2."""
    return jnp.mean(jnp.square(teacher - student))


def feature_view(bottleneck: Features, *, kind: str = "paper") -> Features:
    """Returns what of the bottleneck the feature loss compares.

    * "paper": the features as they are (eq. 6).
    * "normalised": divided by their root mean square, scene by scene: the loss is then 2 - 2 times
      the cosine between the two, and no network gains by making its features small.

    Raises:
        ValueError: If `kind` is neither.
    """
    match kind:
        case "paper":
            return bottleneck
        case "normalised":
            power = jnp.mean(jnp.square(bottleneck), axis=(1, 2, 3), keepdims=True)
            return bottleneck / jnp.sqrt(power + TINY)
    raise ValueError(f"feature: expected paper or normalised, got {kind!r}")


def feature_loss(student: Features, teacher: Features) -> Scalar:
    """Eq. 6 on two `feature_view`s: mean over scenes and features of (teacher - student)^2."""
    return jnp.mean(jnp.square(teacher - student))


def guidance_share(progress: Scalar, *, kind: str = "constant") -> Scalar:
    """Returns the share of beta and sigma that is left after `progress` (0 to 1) of a training.

    "constant": all of it, always. "linear" and "cosine" (half a period) fall from 1 to 0: the
    teacher leads where it knows more, and in the end only the task counts.

    Raises:
        ValueError: If `kind` is none of these.
    """
    match kind:
        case "constant":
            return jnp.ones_like(progress)
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    raise ValueError(f"anneal: expected constant, linear or cosine, got {kind!r}")


def feature_weight(alpha: float, beta: float) -> float:
    """Returns sigma = 1 - alpha - beta (eq. 7), rounding errors below 1e-9 taken as zero.

    Raises:
        ValueError: If alpha, beta or sigma lies outside [0, 1].
    """
    sigma = 1.0 - alpha - beta
    if abs(sigma) < 1e-9:
        sigma = 0.0
    for name, weight in (("alpha", alpha), ("beta", beta), ("sigma = 1 - alpha - beta", sigma)):
        if not 0.0 <= weight <= 1.0:
            raise ValueError(
                f"{name}: expected in [0, 1], got {weight:.6g} (alpha = {alpha:g}, "
                f"beta = {beta:g}); lower alpha or beta"
            )
    return sigma


def weighted_sum(
    *,
    task: Scalar,
    mask: Scalar,
    cdp: Scalar,
    feature: Scalar,
    alpha: Scalar | float,
    rho: Scalar | float,
    beta: Scalar | float = 0.0,
    sigma: Scalar | float = 0.0,
    balance: str = "none",
) -> Losses:
    """Eq. 7: alpha task + rho mask + beta cdp + sigma feature; eq. 4 with beta = sigma = 0.

    With balance "task" the two guiding losses enter the total in units of the task loss: each is
    multiplied by task / itself, taken as a constant. Both then weigh as much as their beta and
    sigma say at every moment of the training, whatever their scale.

    Raises:
        ValueError: If `balance` is neither "none" nor "task".
    """
    if balance not in ("none", "task"):
        raise ValueError(f"balance: expected none or task, got {balance!r}")

    def scale(term: Scalar) -> Scalar | float:
        if balance == "none":
            return 1.0
        return jax.lax.stop_gradient(task / jnp.maximum(term, TINY))

    guidance = beta * scale(cdp) * cdp + sigma * scale(feature) * feature
    total = alpha * task + rho * mask + guidance
    return Losses(total=total, task=task, mask=mask, cdp=cdp, feature=feature)
