"""Pooling and upsampling of the U-Net against the library's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_kdpr.recovery.networks.resampling import max_pool, upsample

pytestmark = pytest.mark.gpu

SHAPES = [(2, 4, 6, 3), (1, 1, 2, 1), (3, 5, 1, 2)]


def noise(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def resized(x):
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, 2 * h, 2 * w, c), method="linear")


@pytest.mark.parametrize("shape", SHAPES)
def test_upsampling_is_bilinear_with_its_gradient(shape):
    x = noise(shape)
    np.testing.assert_allclose(upsample(x), resized(x), atol=1e-6)
    seen = noise(resized(x).shape, seed=1)
    (ours,), (theirs,) = (jax.vjp(fn, x)[1](seen) for fn in (upsample, resized))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_pooling_takes_the_largest_with_its_gradient():
    x = noise((2, 6, 4, 3))  # no two values are equal
    pooled = lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2))  # noqa: E731
    np.testing.assert_array_equal(max_pool(x), pooled(x))
    seen = noise((2, 3, 2, 3), seed=1)
    (ours,), (theirs,) = (jax.vjp(fn, x)[1](seen) for fn in (max_pool, pooled))
    np.testing.assert_array_equal(ours, theirs)


def test_equal_pixels_share_the_gradient():
    (gradient,) = jax.vjp(max_pool, jnp.ones((1, 2, 2, 1)))[1](jnp.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(gradient, np.full((1, 2, 2, 1), 0.25))
