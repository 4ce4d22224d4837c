"""Scores of a trained system on its test images, beside baselines that need no training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_kdpr import metrics
from jax_kdpr.data.batches import take_batch
from jax_kdpr.data.sources import Dataset
from jax_kdpr.physics.scenes import field_image, scene_field
from jax_kdpr.systems import Output, System
from jax_kdpr.training.steps import over_batches
from jax_kdpr.types import Images, Key, Params, State

RECOVERED = "recovered"  # the network's image
SPECTRAL = "spectral_estimate"  # the network's input alone, its global phase taken from the truth
CONSTANT = "constant"  # the mean pixel of the training images
MEAN_IMAGE = "mean_image"  # the mean of the training images


class Score(NamedTuple):
    """Quality over a set of images; the errors are standard errors of the mean over images."""

    psnr: float  # dB, mean of the images' own PSNRs
    psnr_error: float
    psnr_pooled: float  # dB, PSNR of the squared error averaged over all images
    ssim: float
    ssim_error: float
    images: int


class Samples(NamedTuple):
    """A few test scenes and all that the system makes of them, for figures."""

    images: Images
    output: Output
    phases: Float[Array, "k h w"]


def score_system(
    system: System,
    variables: tuple[Params, State],
    dataset: Dataset,
    *,
    size: int,
    scene: dict[str, Any],
    batch_size: int,
    key: Key,
) -> dict[str, Score]:
    """Scores the test images: the recovery, the spectral estimate alone, and two trivial answers.

    Args:
        system: The trained system, with its `variables` (params, state).
        dataset: Its data.
        size: Height and width that the system takes.
        scene: Keyword arguments of `scene_field`, and "channels".
        batch_size: Images at a time.
        key: For sensor noise.

    Returns:
        {RECOVERED, SPECTRAL, CONSTANT, MEAN_IMAGE: score}.
    """
    shape = {"size": size, "channels": scene["channels"]}
    encoding = {name: value for name, value in scene.items() if name != "channels"}
    train = dataset.train(0)
    mean_image = over_batches(
        jax.jit(lambda indices, _: take_batch(train, indices, **shape)),
        train.shape[0],
        batch_size=batch_size,
        key=key,
    ).mean(axis=0)

    @jax.jit
    def score_batch(indices, batch_key):
        images = take_batch(dataset.test, indices, **shape)
        output, _ = system.apply(*variables, images, batch_key)

        def read(image, estimate):
            field = scene_field(image, **encoding)
            return field_image(metrics.align_global_phase(estimate, field), **encoding)

        answers = {
            RECOVERED: output.image,
            SPECTRAL: jax.vmap(read)(images, output.estimate),
            CONSTANT: jnp.full_like(images, jnp.mean(mean_image)),
            MEAN_IMAGE: jnp.broadcast_to(mean_image[None], images.shape),
        }
        return {
            name: (metrics.mse(answer, images), metrics.ssim(answer, images))
            for name, answer in answers.items()
        }

    scores = over_batches(score_batch, dataset.test.shape[0], batch_size=batch_size, key=key)
    return {name: summarise(mse, ssim) for name, (mse, ssim) in scores.items()}


def sample_outputs(
    system: System,
    variables: tuple[Params, State],
    dataset: Dataset,
    *,
    size: int,
    channels: int,
    count: int,
    key: Key,
) -> Samples:
    """Runs the system on the first `count` test scenes."""
    images = take_batch(dataset.test, jnp.arange(count), size=size, channels=channels)
    output, _ = jax.jit(system.apply)(*variables, images, key)
    return Samples(images, output, variables[0]["phases"])


def summarise(mse: Float[Array, "n"], ssim: Float[Array, "n"]) -> Score:
    """Reduces per-image squared errors and SSIMs."""
    psnr = metrics.psnr_from_mse(mse)
    return Score(
        psnr=float(jnp.mean(psnr)),
        psnr_error=_standard_error(psnr),
        psnr_pooled=float(metrics.psnr_from_mse(jnp.mean(mse))),
        ssim=float(jnp.mean(ssim)),
        ssim_error=_standard_error(ssim),
        images=psnr.shape[0],
    )


def _standard_error(values: Float[Array, "n"]) -> float:
    if len(values) < 2:
        return 0.0
    return float(np.std(np.asarray(values), ddof=1) / np.sqrt(len(values)))
