"""Losses of arXiv 2505.18352, eq. 3 to 7.

The paper writes squared norms (sums over pixels). Here every reduction is a mean, over scenes and
over pixels or features alike, so that weights keep their meaning at any image size: a weight of
ours equals the paper's up to the number of pixels (eq. 3, 5) or features (eq. 6).

The terms live on different scales: `presets.student` has measured ones. Choose alpha and beta with
that in mind.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_kdpr.core.types import Features, Images, Patterns, Scalar


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


def cdp_loss(student: Patterns, teacher: Patterns) -> Scalar:
    """Eq. 5 on the means of y over a system's own snapshots, [b h w] each.

    Mean over scenes and sensor pixels of (teacher - student)^2. For a phase scene such a mean has
    mean 1 without zero padding and 1/4 with `oversample` 2: the loss is then 16 times smaller, at
    the same weight.
    """
    return jnp.mean(jnp.square(teacher - student))


def feature_loss(student: Features, teacher: Features) -> Scalar:
    """Eq. 6 on two bottlenecks: mean over scenes and features of (teacher - student)^2."""
    return jnp.mean(jnp.square(teacher - student))


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
) -> Losses:
    """Eq. 7: alpha task + rho mask + beta cdp + sigma feature; eq. 4 with beta = sigma = 0."""
    total = alpha * task + rho * mask + beta * cdp + sigma * feature
    return Losses(total=total, task=task, mask=mask, cdp=cdp, feature=feature)
