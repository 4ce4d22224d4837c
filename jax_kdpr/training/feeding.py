"""Feeds the steps of a training: all images at once, or the next ones of a stream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_kdpr.core.errors import InputError, StoppedError
from jax_kdpr.core.sharding import AXIS
from jax_kdpr.data.streaming import Batches, in_workers
from jax_kdpr.training.setup import Training
from jax_kdpr.training.steps import Epoch, Window

Feed = Callable[[Epoch, int, int], Epoch]
"""feed(epoch, step, length) -> the epoch with what `length` steps read; call it in order."""


@contextmanager
def feeding(training: Training, first: int) -> Iterator[Feed]:
    """Opens the feed of the steps from `first` on.

    Raises:
        StoppedError: From the feed, if an image can no longer be read, or a process that reads
            images has died.
    """
    if (batches := _batches(training)) is None:
        yield lambda epoch, step, length: epoch
        return
    with in_workers(batches, first=first, item_bytes=batches.item_bytes) as read:

        def feed(epoch: Epoch, step: int, length: int) -> Epoch:
            with _vanishing():
                images = np.stack(list(islice(read, length)))
            return epoch._replace(images=_window(training, images, step))

        yield feed


def first_batch(training: Training, epoch: Epoch, step: int) -> Epoch:
    """Returns the epoch that ends at `step`, with its first batch in place for the next step."""
    if (batches := _batches(training)) is None:
        return epoch
    with _vanishing():
        images = batches[step - training.steps_per_epoch][None]
    return epoch._replace(images=_window(training, images, step))


@contextmanager
def _vanishing() -> Iterator[None]:
    """Says what to do if a file can no longer be read, although it could at the start."""
    try:
        yield
    except InputError as failure:
        raise StoppedError(
            f"{str(failure).partition(';')[0]}, and could be read at the start; put it back, and "
            "run the same command again to go on"
        ) from failure


def _batches(training: Training) -> Batches | None:
    if training.dataset.stream is None:
        return None
    return training.dataset.stream.batches(
        training.keys.order,
        batch_size=training.config.train.batch_size,
        channels=training.config.scene.channels,
        steps=training.total_steps,
    )


def _window(training: Training, images: np.ndarray, step: int) -> Window:
    """Puts this process's share [s b c h w] of some batches on its devices."""
    if training.mesh is None:
        placed = jnp.asarray(images)
    else:
        split = NamedSharding(training.mesh, P(None, AXIS))
        placed = jax.make_array_from_process_local_data(split, images)
    return Window(placed, jnp.asarray(step))
