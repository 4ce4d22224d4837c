"""Tells from its rows of metrics whether a finished training has learned anything."""

from typing import Any

import jax.numpy as jnp

from jax_kdpr.core.metrics import psnr_from_mse
from jax_kdpr.data.batches import take_batch
from jax_kdpr.training.setup import Training

FAR = 10.0


def warning(training: Training, rows: list[dict[str, Any]]) -> str:
    """Returns a warning if a run has diverged or learned nothing; "" if it has learned something.

    It has learned nothing if a single grey recovers the validation images better. It has diverged
    if moreover the loss has risen, or if its weighted task and mask losses exceed `FAR`, more than
    images in [0, 1] can cause.

    Args:
        training: The training.
        rows: Its metrics, epoch by epoch.
    """
    first, last = rows[0], rows[-1]
    config, images = training.config, training.dataset.validation
    few = jnp.arange(min(len(images), training.eval_batch_size))
    channels = config.scene.channels
    scenes = take_batch(images, few, size=config.data.size, channels=channels)
    grey = jnp.mean(jnp.var(scenes, axis=(0, 1, 2)))  # one grey for each channel
    found = (
        f"the pooled PSNR of the validation images is {last['validation_psnr_pooled']:.2f} dB, and "
        f"that of one grey for all their pixels {psnr_from_mse(grey):.2f} dB"
    )
    learned = last["validation_psnr_pooled"] >= psnr_from_mse(grey)
    own = config.loss.alpha * last["train_task"] + config.loss.rho * last["train_mask"]
    if own > FAR or (not learned and last["train_total"] > first["train_total"]):
        return f"it diverged: the loss is {last['train_total']:.3g}, {found}; lower optim.*_lr"
    return "" if learned else f"it learned nothing: {found}; raise train.epochs"
