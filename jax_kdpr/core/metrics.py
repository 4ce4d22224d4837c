"""Quality metrics, one value per image, for images in [0, 1] (data range 1)."""

import math
from typing import Any, NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.core.types import Images

SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # standard deviation of the Gaussian window, pixels
OBJECT = 0.1  # the object exceeds an image's darkest pixel by at least this share of its range


class ImageScores(NamedTuple):
    """Quality of each image of a batch."""

    mse: Float[Array, "b"]
    ssim: Float[Array, "b"]
    rms: Float[Array, "b"]  # `object_rms`, in radians; in units of the image for amplitude scenes

    @property
    def psnr(self) -> Float[Array, "b"]:
        """PSNR of each image, in dB."""
        return psnr_from_mse(self.mse)


def score(recovered: Images, images: Images, *, phase_range: float | None) -> ImageScores:
    """Scores each recovered image against the true one.

    Args:
        recovered: Recovered images.
        images: True images.
        phase_range: Phase of a white pixel of the first channel, in radians; None for an amplitude
            scene.
    """
    first = recovered[..., 0], images[..., 0]
    unit = 1.0 if phase_range is None else phase_range
    return ImageScores(
        mse=mse(recovered, images),
        ssim=ssim(recovered, images),
        rms=unit * object_rms(*first, piston=phase_range is not None),
    )


def mse(recovered: Images, images: Images) -> Float[Array, "b"]:
    """Returns the mean squared error of each image, over pixels and channels."""
    return jnp.mean(jnp.square(recovered - images), axis=(1, 2, 3))


def object_rms(
    recovered: Float[Array, "b h w"], images: Float[Array, "b h w"], *, piston: bool = True
) -> Float[Array, "b"]:
    """Returns the RMS error over the object of each image, in the unit of the images.

    The object is the set of pixels that exceed the darkest pixel of the true image by at least
    `OBJECT` of its range; in a uniform image these are all pixels. An empty background, which any
    method gets right, therefore does not count.

    Args:
        recovered: Recovered images.
        images: True images.
        piston: Whether to subtract the mean error over the whole image first: no measurement
            determines it. An error between object and background stays.
    """
    low, high = (pick(images, axis=(1, 2), keepdims=True) for pick in (jnp.min, jnp.max))
    inside = (images >= low + OBJECT * (high - low)).astype(images.dtype)

    error = recovered - images
    if piston:
        error = error - jnp.mean(error, axis=(1, 2), keepdims=True)
    square = jnp.sum(jnp.square(error) * inside, axis=(1, 2))
    return jnp.sqrt(square / jnp.sum(inside, axis=(1, 2)))


def psnr_from_mse(error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Returns the PSNR at data range 1, -10 log10(mse), in dB.

    An error below 1e-10 counts as 1e-10 (100 dB).
    """
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


@jax.jit  # called outside other jitted code, its many small operations become one program
def ssim(recovered: Images, images: Images) -> Float[Array, "b"]:
    """Returns the SSIM of each image (Wang et al., 2004), for data range 1.

    The window is a Gaussian of sigma 1.5 on 11 x 11 pixels. Channels are averaged. The result
    equals scikit-image's `structural_similarity` with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False.

    Raises:
        ValueError: If the images are smaller than the window, or the shapes differ.
    """
    if recovered.shape != images.shape:
        raise ValueError(f"images: shapes {recovered.shape} and {images.shape} differ")
    if min(images.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"images: SSIM needs at least 11 x 11 pixels, got {images.shape[1:3]}")
    return jnp.asarray(dm_pix.ssim(recovered, images, filter_fn=_window_mean))


def _window_mean(images: Any) -> Any:
    """Returns the mean of [b h w c] under the Gaussian window, where the window lies fully inside.

    Along one axis after the other, it is a sum of shifted images. XLA fuses these sums into few
    kernels, whereas on a GPU each convolution of dm_pix is a kernel of its own. Channels move to
    the first axis, because a CPU vectorises over neighbours along the last one.
    """
    half = SSIM_WINDOW // 2
    taps = [math.exp(-0.5 * (at / SSIM_SIGMA) ** 2) for at in range(-half, half + 1)]
    mean = jnp.moveaxis(images, -1, 0)
    for axis in (-2, -1):
        width = mean.shape[axis] - 2 * half
        shifted = [jax.lax.slice_in_dim(mean, at, at + width, axis=axis) for at in range(len(taps))]
        weighted = [tap / sum(taps) * part for tap, part in zip(taps, shifted, strict=True)]
        mean = sum(weighted[1:], weighted[0])
    return jnp.moveaxis(mean, 0, -1)


def rms_unit(scene: str) -> str:
    """Returns the unit to print after `ImageScores.rms`: radians if a scene has a phase."""
    return "" if scene == "amplitude" else " rad"


def rms_header(scene: str) -> str:
    """Returns the column header of `ImageScores.rms`."""
    return "rms" if scene == "amplitude" else "rms (rad)"
