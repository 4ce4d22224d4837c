"""Compares what the default device computes with what the CPU of the same process computes."""

import copy
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core.types import PyTree
from jax_kdpr.data.batches import take_batch
from jax_kdpr.evaluation.speed.cases import NATIVE_SIZE
from jax_kdpr.runs.assembly import build_system

AGREEMENT = 1e-4  # the largest ||a - b|| / ||b|| that float32 explains
BATCH = 4


def differences(config: Config) -> Iterator[tuple[str, float]]:
    """Yields (what, ||a - b|| / ||b||), a from the default device, b from the CPU, all in float32.

    These are the CDP, spectral estimate and image of the config's system, the gradient of the
    estimate with respect to masks and filter, resized images, and random numbers. Gradients through
    the network are not compared: where a ReLU or a pooling switches, one float32 rounding of the
    images changes them by 0.2 to 0.5 % on a CPU alone.
    """
    config = copy.deepcopy(config)
    config.net.precision = "float32"
    size = config.data.size
    system = build_system(config)
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (BATCH, NATIVE_SIZE, NATIVE_SIZE), np.uint8)
    images = rng.random((BATCH, size, size, 1), np.float32)
    variables = jax.tree.map(np.asarray, jax.jit(system.init)(jax.random.key(0)))

    def resized(raw):
        return {"resized images": take_batch(raw, jnp.arange(BATCH), size=size, channels=1)}

    def drawn(seed):
        key = jax.random.key(seed)
        return {
            "random bits": jax.random.bits(key, (1000,)).astype(jnp.float32),
            "normal numbers": jax.random.normal(key, (1000,)),
            "Poisson numbers": jax.random.poisson(key, 100.0, (1000,)).astype(jnp.float32),
            "permutation": jax.random.permutation(key, 1000).astype(jnp.float32),
        }

    def recovered(variables, images):
        params, state = variables
        output, _ = system.apply(params, state, images, jax.random.key(1))

        def loss(optics):
            seen, _ = system.apply({**params, **optics}, state, images, jax.random.key(1))
            return jnp.mean(jnp.square(jnp.abs(seen.estimate) - images[..., 0]))

        gradients = jax.grad(loss)({part: params[part] for part in ("phases", "filter")})
        return {
            "CDP": output.intensity,
            "spectral estimate": output.estimate,
            "image": output.image,
        } | {f"gradient, {part}": gradients[part] for part in gradients}

    yield from _compared(resized, raw)
    yield from _compared(drawn, np.uint32(0))
    yield from _compared(recovered, variables, images)


def _compared(fn: Callable[..., dict[str, PyTree]], *arguments: PyTree) -> Iterator:
    ours, theirs = (
        jax.device_get(jax.jit(fn)(*jax.device_put(arguments, device)))
        for device in (jax.devices()[0], jax.devices("cpu")[0])
    )
    for what, reference in theirs.items():
        a, b = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
            for tree in (ours[what], reference)
        )
        yield what, float(np.linalg.norm(a - b) / np.linalg.norm(b))
