"""Batches of scenes from the images on the device: their order, their pixels, loops over them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jax_kdpr.core import signals
from jax_kdpr.core.types import Images, Indices, Key, PyTree, RawImages


def epoch_order(key: Key, epoch: int, count: int) -> Indices:
    """Returns the order in which one epoch visits its `count` images: a random permutation."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


def take_batch(images: RawImages, indices: Indices, *, size: int, channels: int) -> Images:
    """Gathers, scales to [0, 1] and resizes one batch; runs inside the jitted step.

    Integer pixels are divided by the largest value of their type. Resizing is bilinear, with
    antialiasing where it shrinks. Where images have one channel and scenes two (complex ones), the
    second, the amplitude, is the next image of the split; the last is followed by the first.

    Returns:
        Float images [b size size channels].
    """
    if images.ndim == 4:
        chosen = images[indices]
    else:
        following = [(indices + shift) % images.shape[0] for shift in range(channels)]
        chosen = jnp.stack([images[rows] for rows in following], axis=-1)
    if jnp.issubdtype(chosen.dtype, jnp.integer):
        chosen = chosen.astype(jnp.float32) / jnp.iinfo(images.dtype).max
    if chosen.shape[1:3] != (size, size):
        shape = (chosen.shape[0], size, size, channels)
        chosen = jax.image.resize(chosen, shape, method="linear", antialias=True)
    return chosen


def over_batches(
    step: Callable[[Indices, Key], PyTree], count: int, *, batch_size: int, key: Key | None = None
) -> PyTree:
    """Runs step(indices, key) over `count` items in order and joins what it returns per item.

    Each batch has a key of its own, drawn from `key`; a step that draws nothing needs none.

    All batches have one size, so that the step compiles once. The last batch is filled up with the
    first items, whose repeated results are dropped.

    Raises:
        Interrupted: If a signal was noted meanwhile.
    """
    parts, key = [], jax.random.key(0) if key is None else key
    for first in range(0, count, batch_size):
        jax.block_until_ready(parts[-2:-1])  # so that a signal waits for two batches at most
        if signals.received():
            break
        parts.append(step((jnp.arange(batch_size) + first) % count, jax.random.fold_in(key, first)))
    # Joining is a program for all devices too. On the few threads of a CPU it must not start while
    # batches are running, or the devices may wait for each other for ever (seen in jax 0.10.2).
    jax.block_until_ready(parts)
    signals.check()
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)
