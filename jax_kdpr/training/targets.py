"""What a student learns from its teacher, made in every step or once for all.

Without noise and errors of the bench the teacher's CDP and bottleneck of an image never change.
Kept on the device, they take the teacher out of the step: a student then costs what E2E costs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.losses import cdp_view, feature_view
from jax_kdpr.progress import progress
from jax_kdpr.systems import Output, System
from jax_kdpr.types import Features, Images, Indices, Key, Params, RawImages, State


class Targets(NamedTuple):
    """The two views of a system that the guiding losses compare; of a batch, or of all images."""

    cdp: Float[Array, "n ..."]  # eq. 5
    feature: Features  # eq. 6

    def take(self, indices: Indices) -> "Targets":
        """Returns those of a batch, in float32."""
        return Targets(*[values[indices].astype(jnp.float32) for values in self])


Views = Callable[[Output], Targets]
Teach = Callable[[tuple[Params, State], Images, Key], Targets]


def make_views(*, cdp: str = "paper", feature: str = "paper") -> Views:
    """Builds views(output) -> what `losses.cdp_view` and `losses.feature_view` make of it."""

    def views(output: Output) -> Targets:
        return Targets(
            cdp=cdp_view(output.intensity, output.estimate, kind=cdp),
            feature=feature_view(output.bottleneck, kind=feature),
        )

    return views


def make_teach(teacher: System, views: Views) -> Teach:
    """Builds teach(variables, images, key): the frozen teacher's views, without gradient.

    The teacher measures the scenes with noise of its own.
    """

    def teach(variables: tuple[Params, State], images: Images, key: Key) -> Targets:
        output, _ = teacher.apply(*variables, images, key)
        return jax.lax.stop_gradient(views(output))

    return teach


def target_bytes(
    teach: Teach, variables: tuple[Params, State], images: Images, *, count: int, dtype
) -> int:
    """Returns the memory that the targets of `count` images take as `dtype`, without making any.

    `images` is a batch, or the shape of one, that the teacher takes.
    """
    batch = jax.eval_shape(lambda images: teach(variables, images, jax.random.key(0)), images)
    numbers = sum(leaf.size // len(leaf) for leaf in batch)
    return count * numbers * jnp.dtype(dtype).itemsize


def cache_targets(
    teach: Teach,
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
        teach: From `make_teach`.
        variables: The teacher's (params, state).
        images: Training images on the device.
        size: Height and width that the system takes.
        channels: Images that make one scene.
        batch_size: Images at a time.
        dtype: Number type to keep.
    """

    @jax.jit
    def one_batch(variables, images, indices, key):
        batch = take_batch(images, indices, size=size, channels=channels)
        targets = teach(variables, batch, key)
        return Targets(*[values.astype(dtype) for values in targets])

    count = len(images)
    with progress(total=count, unit="image", desc="teacher's targets") as bar:

        def counted(indices, key):
            bar.update(min(batch_size, count - bar.n))
            return one_batch(variables, images, indices, key)

        return over_batches(counted, count, batch_size=batch_size, key=jax.random.key(0))
