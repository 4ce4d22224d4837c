"""The targets that a student learns from its teacher, made in every step or cached once.

Without noise and errors of the bench, the teacher's CDP and bottleneck of an image never change.
If they are cached on the device, the step does not run the teacher: a student then costs as much
as E2E.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_kdpr.core.progress import progress
from jax_kdpr.core.sharding import everywhere
from jax_kdpr.core.types import Features, Images, Indices, Key, Params, Patterns, RawImages, State
from jax_kdpr.data.batches import take_batch
from jax_kdpr.recovery.system import Output, System


class Targets(NamedTuple):
    """What the guiding losses compare between two systems, for a batch or for all images."""

    cdp: Patterns  # eq. 5
    feature: Features  # eq. 6

    def take(self, indices: Indices) -> "Targets":
        """Returns the targets of a batch."""
        return Targets(*[values[indices] for values in self])


Teach = Callable[[tuple[Params, State], Images, Key], Targets]


def targets_of(output: Output) -> Targets:
    """Returns the part of a system's output that the guiding losses compare."""
    return Targets(cdp=jnp.mean(output.intensity, axis=1), feature=output.bottleneck)


def make_teach(teacher: System) -> Teach:
    """Builds teach(variables, images, key): the frozen teacher's targets, without gradient.

    The teacher measures the scenes with its own noise.
    """

    def teach(variables: tuple[Params, State], images: Images, key: Key) -> Targets:
        output, _ = teacher.apply(*variables, images, key)
        return jax.lax.stop_gradient(targets_of(output))

    return teach


def target_bytes(
    teach: Teach, variables: tuple[Params, State], images: Images, *, count: int
) -> int:
    """Returns the memory that the targets of `count` images take, without making any.

    `images` is a batch for the teacher, or only its shape and type.
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
    mesh: Mesh | None = None,
) -> Targets:
    """Makes the targets of all training images, in order; needs a noiseless teacher.

    They are written in place, so that memory must hold only the targets of one batch besides them.

    Args:
        teach: From `make_teach`.
        variables: The teacher's (params, state).
        images: Training images on the device.
        size: Height and width that the system takes.
        channels: Channels of a scene.
        batch_size: Number of scenes at a time.
        mesh: Devices, each of which gets all targets; None for one device.
    """
    count, placed = len(images), everywhere(mesh)

    def of_batch(variables, images, indices):
        batch = take_batch(images, indices, size=size, channels=channels)
        return teach(variables, batch, jax.random.key(0))

    @partial(jax.jit, out_shardings=placed)
    def start(variables, images):
        one = jax.eval_shape(of_batch, variables, images, jnp.arange(batch_size))
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), one)

    @partial(jax.jit, donate_argnums=0, out_shardings=placed)
    def fill(targets, variables, images, first):
        indices = first + jnp.arange(batch_size)
        made = of_batch(variables, images, indices % count)
        # The last batch is filled up with the first images, whose repeated targets are dropped.
        return jax.tree.map(lambda to, part: to.at[indices].set(part, mode="drop"), targets, made)

    targets = start(variables, images)
    with progress(total=count, unit="image", desc="teacher's targets") as bar:
        for first in range(0, count, batch_size):
            targets = jax.block_until_ready(fill(targets, variables, images, first))
            bar.update(min(batch_size, count - first))
    return targets
