"""Image quality, per image, for images in [0, 1] (data range 1), and global-phase alignment."""

from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.types import Field, Images

SSIM_WINDOW = 11  # pixels; Gaussian of sigma 1.5


class ImageScores(NamedTuple):
    """Quality of each image of a batch."""

    mse: Float[Array, "b"]
    ssim: Float[Array, "b"]

    @property
    def psnr(self) -> Float[Array, "b"]:
        """PSNR of each image, dB."""
        return psnr_from_mse(self.mse)


def score(recovered: Images, images: Images) -> ImageScores:
    """Scores each recovered image against the true one."""
    return ImageScores(mse=mse(recovered, images), ssim=ssim(recovered, images))


def mse(recovered: Images, images: Images) -> Float[Array, "b"]:
    """Mean squared error of each image, over pixels and channels."""
    return jnp.mean(jnp.square(recovered - images), axis=(1, 2, 3))


def psnr_from_mse(error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """PSNR in dB at data range 1: -10 log10(mse). An error below 1e-10 counts as 1e-10 (100 dB)."""
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def ssim(recovered: Images, images: Images) -> Float[Array, "b"]:
    """SSIM of each image (Wang et al., 2004): 11 x 11 Gaussian window of sigma 1.5, data range 1.

    Channels are averaged. Equals scikit-image's `structural_similarity` with
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False.

    Raises:
        ValueError: If the images are smaller than the window, or the shapes differ.
    """
    if recovered.shape != images.shape:
        raise ValueError(f"images: shapes {recovered.shape} and {images.shape} differ")
    if min(images.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"images: SSIM needs at least 11 x 11 pixels, got {images.shape[1:3]}")
    # One image at a time, each channel as an image of its own: dm_pix takes a batch of any depth.
    return jax.vmap(lambda a, b: jnp.mean(dm_pix.ssim(a, b)))(recovered, images)


def align_global_phase(estimate: Field, reference: Field) -> Field:
    """Returns e^{j t} * estimate with the real t that brings it closest to `reference`.

    Closed form: t is the angle of <estimate, reference>. Intensities do not hold the global phase,
    so a complex estimate is compared only after this.
    """
    overlap = jnp.sum(jnp.conj(estimate) * reference)  # in float32 on a GPU too
    modulus = jnp.abs(overlap)
    phasor = jnp.where(modulus > 0, overlap / jnp.where(modulus > 0, modulus, 1.0), 1.0)
    return phasor * estimate
