"""What a student learns from its teacher, made in every step or once for all.

Without noise and errors of the bench the teacher's CDP and bottleneck of an image never change.
Kept on the device, they take the teacher out of the step: a student then costs what E2E costs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Features, Images, Indices, Key, Params, Patterns, RawImages, State
from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.recovery.system import Output, System


class Targets(NamedTuple):
    """What the guiding losses compare of a system; of a batch, or of all images."""

    cdp: Patterns  # eq. 5
    feature: Features  # eq. 6

    def take(self, indices: Indices) -> "Targets":
        """Returns those of a batch."""
        return Targets(*[values[indices] for values in self])


Teach = Callable[[tuple[Params, State], Images, Key], Targets]


def targets_of(output: Output) -> Targets:
    """Returns what the guiding losses compare of a system's output."""
    return Targets(cdp=jnp.mean(output.intensity, axis=1), feature=output.bottleneck)


def make_teach(teacher: System) -> Teach:
    """Builds teach(variables, images, key): the frozen teacher's targets, without gradient.

    The teacher measures the scenes with noise of its own.
    """

    def teach(variables: tuple[Params, State], images: Images, key: Key) -> Targets:
        output, _ = teacher.apply(*variables, images, key)
        return jax.lax.stop_gradient(targets_of(output))

    return teach


def target_bytes(
    teach: Teach, variables: tuple[Params, State], images: Images, *, count: int
) -> int:
    """Returns the memory that the targets of `count` images take, without making any.

    `images` is a batch, or the shape of one, that the teacher takes.
    """
    batch = jax.eval_shape(lambda images: teach(variables, images, jax.random.key(0)), images)
    return count * sum(leaf.size * leaf.dtype.itemsize // len(leaf) for leaf in batch)


def cache_targets(
    teach: Teach,
    variables: tuple[Params, State],
    images: RawImages,
    *,
    size: int,
    channels: int,
    batch_size: int,
) -> Targets:
    """Makes the targets of all training images, in order; needs a noiseless teacher.

    Args:
        teach: From `make_teach`.
        variables: The teacher's (params, state).
        images: Training images on the device.
        size: Height and width that the system takes.
        channels: Images that make one scene.
        batch_size: Images at a time.
    """

    @jax.jit
    def one_batch(variables, images, indices, key):
        batch = take_batch(images, indices, size=size, channels=channels)
        return teach(variables, batch, key)

    count = len(images)
    with progress(total=count, unit="image", desc="teacher's targets") as bar:

        def counted(indices, key):
            bar.update(min(batch_size, count - bar.n))
            return one_batch(variables, images, indices, key)

        return over_batches(counted, count, batch_size=batch_size, key=jax.random.key(0))
