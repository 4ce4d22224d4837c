"""What a student learns from its teacher, made in every step or once for all.

Without noise the teacher's CDP and bottleneck of a training image never change. Kept on the device,
they take the teacher out of the step: a student then costs what an E2E run costs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tqdm import tqdm

from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.systems import System
from jax_kdpr.types import Features, Images, Indices, Key, Params, RawImages, State


class Targets(NamedTuple):
    """Of a batch, or of all training images."""

    intensity: Float[Array, "n sh sw"]  # mean over the teacher's snapshots of its CDPs (eq. 5)
    bottleneck: Features  # eq. 6

    def take(self, indices: Indices) -> "Targets":
        """Returns those of a batch, in float32."""
        return Targets(*[values[indices].astype(jnp.float32) for values in self])


def teach(teacher: System, variables: tuple[Params, State], images: Images, key: Key) -> Targets:
    """What the frozen teacher makes of scenes, with noise of its own, without gradient."""
    params, state = variables
    output, _ = teacher.apply(params, state, images, key)
    targets = Targets(jnp.mean(output.intensity, axis=1), output.bottleneck)
    return jax.lax.stop_gradient(targets)


def target_bytes(
    teacher: System, variables: tuple[Params, State], images: Images, *, count: int, dtype
) -> int:
    """Returns the memory that the targets of `count` images take as `dtype`, without making any.

    `images` is a batch, or the shape of one, that the teacher takes.
    """
    batch = jax.eval_shape(
        lambda images: teach(teacher, variables, images, jax.random.key(0)), images
    )
    numbers = sum(leaf.size // len(leaf) for leaf in batch)
    return count * numbers * jnp.dtype(dtype).itemsize


def cache_targets(
    teacher: System,
    variables: tuple[Params, State],
    images: RawImages,
    *,
    size: int,
    channels: int,
    batch_size: int,
    dtype,
) -> Targets:
    """Makes the targets of all training images, in order, as `dtype`; needs a noiseless teacher.

    Args:
        teacher: The frozen system.
        variables: Its (params, state).
        images: Training images on the device.
        size: Height and width that the system takes.
        channels: Images that make one scene.
        batch_size: Images at a time.
        dtype: Number type to keep.
    """

    @jax.jit
    def one_batch(variables, images, indices, key):
        batch = take_batch(images, indices, size=size, channels=channels)
        targets = teach(teacher, variables, batch, key)
        return Targets(*[values.astype(dtype) for values in targets])

    count = len(images)
    with tqdm(total=count, unit="image", desc="teacher's targets", disable=None) as bar:

        def counted(indices, key):
            bar.update(min(batch_size, count - bar.n))
            return one_batch(variables, images, indices, key)

        return over_batches(counted, count, batch_size=batch_size, key=jax.random.key(0))
