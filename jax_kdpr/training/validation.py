"""Measures after an epoch how well a system recovers images that it is not trained on."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jax_kdpr.core.metrics import ImageScores, psnr_from_mse
from jax_kdpr.core.types import Indices, Key, Params, RawImages, Residuals, State
from jax_kdpr.data.batches import over_batches
from jax_kdpr.recovery.system import System
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.training.steps import take

Validate = Callable[[tuple[Params, State]], dict[str, float]]
"""validate((params, state)) -> {name of a metric: its mean}, `SCORE` among them."""


def make_validate(system: System, images: RawImages, *, batch_size: int, key: Key) -> Validate:
    """Builds the jitted validation on simulated shots of `images`, `batch_size` at a time."""

    @jax.jit
    def step(
        variables: tuple[Params, State], images: RawImages, indices: Indices, key: Key
    ) -> tuple[ImageScores, Residuals]:
        batch = take(system, images, indices)
        output, _ = system.apply(*variables, batch, key)
        return system.camera.score(output.image, batch), output.residual

    def validate(variables: tuple[Params, State]) -> dict[str, float]:
        scores, residual = over_batches(
            partial(step, variables, images), len(images), batch_size=batch_size, key=key
        )
        return means(scores) | {"validation_residual": float(jnp.mean(residual))}

    return validate


def means(scores: ImageScores) -> dict[str, float]:
    """Returns the mean scores, named as in a row of metrics.jsonl."""
    return {
        SCORE: float(jnp.mean(scores.psnr)),
        "validation_psnr_pooled": float(psnr_from_mse(jnp.mean(scores.mse))),
        "validation_ssim": float(jnp.mean(scores.ssim)),
        "validation_rms": float(jnp.mean(scores.rms)),
    }
