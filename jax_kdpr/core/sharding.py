"""Spreading a batch over several devices.

Only the per-sample physics needs care: under plain `jit` XLA does not partition an FFT over a
sharded batch but gathers the whole batch on every device (jax-ml/jax#15680). `spread` runs it
inside `jax.shard_map` on the local samples. Losses and the network stay outside, under plain
`jit`, so that batch statistics mean the same on any number of devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_kdpr.core.types import PyTree

AXIS = "data"


def make_mesh(devices: int) -> Mesh | None:
    """Returns a one-axis mesh over `devices` devices; None for one.

    They are the first of this process, or all that several processes have.
    """
    if devices == 1:
        return None
    there = jax.devices() if jax.process_count() > 1 else jax.local_devices()
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:devices])


def data_parallel(fn: Callable, mesh: Mesh | None) -> Callable:
    """Batches a one-sample function fn(shared, *sample) over its samples, each on its own device.

    Args and result are as of `spread`, less the batch's axis.
    """

    def batched(shared, *samples):
        return jax.vmap(fn, in_axes=(None, *[0] * len(samples)))(shared, *samples)

    return spread(batched, mesh)


def spread(fn: Callable, mesh: Mesh | None) -> Callable:
    """Runs fn(shared, *batches) with each device's part of the batches on that device.

    Args:
        fn: Takes what all samples share as its first argument, then arrays [b ...]; no sample's
            result may depend on another.
        mesh: From `make_mesh`; None leaves the function as it is.

    Returns:
        The function of the whole batch; with a mesh, the batch must be divisible by its size.
    """
    if mesh is None:
        return fn

    def local(shared, *batches):
        # Each device gets its own copy to compute with; gradients of the copies are summed.
        copied = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, AXIS, to="varying"), shared)
        return fn(copied, *batches)

    def sharded(shared, *batches):
        specs = (P(), *[P(AXIS)] * len(batches))
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(AXIS))(shared, *batches)

    return sharded


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Puts a copy of every array on each device, once, instead of at every call that reads it."""
    if mesh is None:
        return tree
    if jax.process_count() > 1:
        return jax.tree.map(lambda leaf: _replicate_own(leaf, mesh), tree)
    return jax.device_put(tree, everywhere(mesh))


def _replicate_own(leaf: Any, mesh: Mesh) -> jax.Array:
    """Puts what every process has onto its devices: one array of all of them."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _replicate_own(jax.random.key_data(leaf), mesh)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # it is one already
    values = np.asarray(leaf)
    return jax.make_array_from_callback(
        values.shape, NamedSharding(mesh, P()), lambda at: values[at]
    )


def everywhere(mesh: Mesh | None) -> NamedSharding | None:
    """Returns the sharding of an array of which each device has a copy; None for one device."""
    return None if mesh is None else NamedSharding(mesh, P())


def shard_batch(batch, mesh: Mesh | None):
    """Marks arrays [b ...] inside jitted code as split over the mesh along their first axis."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P(AXIS)))
