"""A Gaussian prior from the training images: their mean and principal components."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

QUANTUM = 1 / (255 * np.sqrt(12))  # standard deviation of rounding a pixel to 8 bits


class Prior(NamedTuple):
    """Mean and principal components of images of one channel, flattened."""

    mean: Float[np.ndarray, "p"]
    components: Float[np.ndarray, "p r"]  # orthonormal, largest variance first
    variances: Float[np.ndarray, "r"]
    kept: int  # how many components hold the requested share of the variance

    @property
    def subspace(self) -> Float[np.ndarray, "p s"]:
        """The kept components."""
        return self.components[:, : self.kept]


def fit_prior(images: Float[np.ndarray, "n h w"], *, share: float = 0.99) -> Prior:
    """Fits the mean and covariance of images.

    Args:
        images: At least two, in [0, 1].
        share: Share of the variance that the first `kept` components hold.
    """
    pixels = np.asarray(images, np.float64).reshape(len(images), -1)
    mean = pixels.mean(axis=0)
    centred = (pixels - mean) / np.sqrt(len(pixels) - 1)
    if len(pixels) >= pixels.shape[1]:
        variances, components = np.linalg.eigh(centred.T @ centred)
    else:  # fewer images than pixels: from the images' inner products
        variances, images_mixed = np.linalg.eigh(centred @ centred.T)
        components = centred.T @ images_mixed
        components /= np.maximum(np.linalg.norm(components, axis=0), 1e-30)
    order = np.argsort(variances)[::-1]
    order = order[variances[order] > 1e-12 * max(variances.max(), 1e-30)]
    variances, components = variances[order], components[:, order]
    held = np.cumsum(variances) / max(variances.sum(), 1e-30)
    kept = min(int(np.searchsorted(held, share)) + 1, len(variances))
    return Prior(mean, components, variances, kept)


def subspace_distance(
    mean: Float[Array, "p"], subspace: Float[Array, "p s"], images: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
    """Returns the distance of each image to mean + span(subspace) of a prior, rms over pixels."""
    channels = jnp.moveaxis(images, -1, 1)
    centred = channels.reshape(*channels.shape[:2], -1) - mean[None, None]
    left = centred - (centred @ subspace) @ subspace.T
    return jnp.sqrt(jnp.mean(jnp.square(left), axis=(1, 2)))


def precision(prior: Prior, *, floor: float = QUANTUM) -> Float[np.ndarray, "p p"]:
    """Returns the inverse of covariance + floor^2.

    Directions that no image shows have the variance floor^2, by default that of 8-bit rounding.
    """
    raised = prior.variances + floor**2
    return (
        np.eye(len(prior.mean)) / floor**2
        - (prior.components * (1 / floor**2 - 1 / raised)) @ prior.components.T
    )


def covariance_root(
    prior: Prior, vectors: Float[np.ndarray, "p c"], *, floor: float = QUANTUM
) -> Float[np.ndarray, "p c"]:
    """Returns (covariance + floor^2)^(1/2) times each of the vectors."""
    extra = np.sqrt(prior.variances + floor**2) - floor
    return floor * vectors + prior.components @ (extra[:, None] * (prior.components.T @ vectors))
