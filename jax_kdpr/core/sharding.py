"""Spreading a batch over several devices.

Only the per-sample physics needs care. Under plain `jit`, XLA does not partition an FFT over a
sharded batch, but gathers the whole batch on every device (jax-ml/jax#15680). `spread` therefore
runs the physics inside `jax.shard_map`, on the local samples. Losses and the network stay outside,
under plain `jit`, so that batch statistics mean the same on any number of devices.
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
    """Returns a one-axis mesh over `devices` devices; None for one device.

    The mesh takes the first devices of this process or, if there are several processes, of all.
    """
    if devices == 1:
        return None
    there = jax.devices() if jax.process_count() > 1 else jax.local_devices()
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:devices])


def data_parallel(fn: Callable, mesh: Mesh | None) -> Callable:
    """Batches a one-sample function fn(shared, *sample); each device computes its own samples.

    Arguments and result are those of `spread`, except that `fn` sees no batch axis.
    """

    def batched(shared, *samples):
        return jax.vmap(fn, in_axes=(None, *[0] * len(samples)))(shared, *samples)

    return spread(batched, mesh)


def spread(fn: Callable, mesh: Mesh | None) -> Callable:
    """Runs fn(shared, *batches) with each device's part of the batches on that device.

    Args:
        fn: Its first argument is what all samples share, the others are arrays [b ...]. The result
            of a sample must not depend on other samples.
        mesh: From `make_mesh`; None leaves the function as it is.

    Returns:
        The function of the whole batch, whose size must be divisible by the size of the mesh.
    """
    if mesh is None:
        return fn

    def local(shared, *batches):
        # Each device computes with its own copy; the gradients of the copies are summed.
        copied = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, AXIS, to="varying"), shared)
        return fn(copied, *batches)

    def sharded(shared, *batches):
        specs = (P(), *[P(AXIS)] * len(batches))
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(AXIS))(shared, *batches)

    return sharded


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Copies every array to each device once, so that the calls that read it need not."""
    if mesh is None:
        return tree
    if jax.process_count() > 1:
        return jax.tree.map(lambda leaf: _replicate_own(leaf, mesh), tree)
    return jax.device_put(tree, everywhere(mesh))


def _replicate_own(leaf: Any, mesh: Mesh) -> jax.Array:
    """Makes one global array, replicated over all devices, of the copy that each process holds."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _replicate_own(jax.random.key_data(leaf), mesh)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # already a global array
    values = np.asarray(leaf)
    return jax.make_array_from_callback(
        values.shape, NamedSharding(mesh, P()), lambda at: values[at]
    )


def everywhere(mesh: Mesh | None) -> NamedSharding | None:
    """Returns the sharding that replicates an array on each device; None for one device."""
    return None if mesh is None else NamedSharding(mesh, P())


def shard_batch(batch, mesh: Mesh | None):
    """Marks arrays [b ...] inside jitted code as split over the mesh along their first axis."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P(AXIS)))
