"""Scores of a trained system on its test images, beside baselines that need no training."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_kdpr.core import metrics
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.core.progress import progress
from jax_kdpr.core.sharding import replicate, shard_batch
from jax_kdpr.core.types import Image, Images, Intensities, Key, PyTree, RawImages
from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.data.sources import Dataset
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import image_beside
from jax_kdpr.optics.phase import align_global_phase
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement, make_refine
from jax_kdpr.recovery.system import Output
from jax_kdpr.runs.run import Run

RECOVERED = "recovered"  # the network's image
REFINED = "refined"  # the network's image after steps of a solver that start from it
SPECTRAL = "spectral_estimate"  # the network's input alone, read beside the truth
CONSTANT = "constant"  # the mean pixel of the training images
MEAN_IMAGE = "mean_image"  # the mean of the training images

Shoot = Callable[[Optics, Images, Key, PyTree], Intensities]
"""shoot(optics, images, key, condition) -> the CDPs of a batch."""
Score = Callable[..., dict[str, ImageScores]]


class Summary(NamedTuple):
    """Quality over a set of images; the errors are standard errors of the mean over images."""

    psnr: float  # dB, mean of the images' own PSNRs
    psnr_error: float
    psnr_pooled: float  # dB, PSNR of the squared error averaged over all images
    ssim: float
    ssim_error: float
    rms: float  # radians over the object, mean of the images' own (`metrics.object_rms`)
    rms_error: float
    images: int


class Shown(NamedTuple):
    """A few test scenes, their recoveries, and the masks of the measurement, for figures."""

    images: Images
    recovered: Images
    phases: Float[Array, "k h w"]


class Samples(NamedTuple):
    """A few test scenes and all that the system makes of them, for figures."""

    images: Images
    output: Output
    phases: Float[Array, "k h w"]

    @property
    def shown(self) -> Shown:
        """The recoveries alone."""
        return Shown(self.images, self.output.image, self.phases)


def make_score(
    run: Run,
    images: RawImages,
    shoot: Shoot,
    *,
    refinement: Refinement = NO_REFINEMENT,
    also: Callable[[Optics, Output, Images], dict[str, Images]] | None = None,
) -> Score:
    """Builds score(condition, key, desc=""), which measures, recovers and scores images.

    Every pass over test images uses it. The passes differ only in how they measure.

    Args:
        run: The system; it recovers as it was trained to.
        images: Test images.
        shoot: Makes the CDPs of a batch under a condition that is an argument of the program.
        refinement: Refinement of the network's images, which is then scored too.
        also: Returns further answers by name, which are scored too.

    Returns:
        score(condition, key, desc="") -> {RECOVERED, REFINED if there are steps, and those of
        `also`: scores of all images, in order}. With `desc` it shows its progress.
    """
    camera, mesh = run.camera, run.camera.mesh
    shape = {"size": camera.size, "channels": camera.channels}
    refine = make_refine(camera, refinement)

    # Large arrays are arguments: in a closure they would be compiled into the program.
    @jax.jit
    def score_batch(variables, images, condition, indices, key):
        scenes = shard_batch(take_batch(images, indices, **shape), mesh)
        optics = camera.optics(variables[0]["phases"])
        intensity = shoot(optics, scenes, key, condition)
        output, _ = run.system.recover(*variables, intensity=intensity, optics=optics)
        answers = {RECOVERED: output.image}
        if not run.has_network:  # a solver's global phase is arbitrary
            fields = camera.encode(output.image)
            beside = jax.vmap(lambda field, image: image_beside(field, image, camera.scene))
            answers = {RECOVERED: beside(fields, scenes)}
        if refinement.steps:
            answers[REFINED] = refine(optics, output.image, intensity)
        if also is not None:
            answers |= also(optics, output, scenes)
        return {name: camera.score(answer, scenes) for name, answer in answers.items()}

    variables, images = replicate((run.variables, images), mesh)

    def score(condition: PyTree, key: Key, desc: str = "") -> dict[str, ImageScores]:
        batches = -(-len(images) // run.batch_size)
        with progress(total=batches, desc=desc, leave=False, disable=not desc or None) as bar:

            def step(indices, key):
                found = score_batch(variables, images, condition, indices, key)
                bar.update()
                return found

            return over_batches(step, len(images), batch_size=run.batch_size, key=key)

    return score


def score_test_images(
    run: Run, *, key: Key, refinement: Refinement = NO_REFINEMENT
) -> dict[str, ImageScores]:
    """Scores each test image: the recovery, the spectral estimate alone, and two trivial answers.

    Returns:
        {RECOVERED, SPECTRAL, CONSTANT, MEAN_IMAGE, and REFINED if there are steps: scores of all
        test images, in order}.
    """
    camera = run.camera
    mean_image = mean_train_image(run.dataset, size=camera.size, channels=camera.channels)

    def beside(_: Optics, output: Output, images: Images) -> dict[str, Images]:
        read = jax.vmap(lambda field, image: image_beside(field, image, camera.scene))
        return {
            SPECTRAL: read(output.estimate, images),
            CONSTANT: jnp.broadcast_to(jnp.mean(mean_image, axis=(0, 1)), images.shape),
            MEAN_IMAGE: jnp.broadcast_to(mean_image[None], images.shape),
        }

    def shoot(optics: Optics, images: Images, key: Key, _) -> Intensities:
        return camera.measure(optics, images, key)

    return make_score(run, run.dataset.test, shoot, refinement=refinement, also=beside)((), key)


def mean_train_image(dataset: Dataset, *, size: int, channels: int) -> Image:
    """Returns the mean of the (first epoch's) training images as the system sees them.

    Resizing is linear, so only the mean is resized. A second channel that is the next image of the
    split has the same mean.
    """
    train = dataset.train(0)
    mean = jnp.mean(train, axis=0, dtype=jnp.float32)
    if jnp.issubdtype(train.dtype, jnp.integer):
        mean = mean / jnp.iinfo(train.dtype).max
    return take_batch(mean[None], jnp.zeros(1, int), size=size, channels=channels)[0]


def sample_outputs(run: Run, images: Images, *, key: Key) -> Samples:
    """Runs the system on a few scenes; the estimates get the true global phase."""
    run = run.on_one_device()  # which takes any number of scenes
    camera = run.camera
    output, _ = jax.jit(run.system.apply)(*run.variables, images, key)
    fields = camera.encode(images)
    aligned = jax.vmap(align_global_phase)(output.estimate, fields)
    phases = camera.written(run.variables[0]["phases"])
    return Samples(images, output._replace(estimate=aligned), phases)


def summarise(scores: ImageScores) -> Summary:
    """Reduces per-image scores to their means and standard errors."""
    return Summary(
        psnr=float(jnp.mean(scores.psnr)),
        psnr_error=standard_error(scores.psnr),
        psnr_pooled=float(metrics.psnr_from_mse(jnp.mean(scores.mse))),
        ssim=float(jnp.mean(scores.ssim)),
        ssim_error=standard_error(scores.ssim),
        rms=float(jnp.mean(scores.rms)),
        rms_error=standard_error(scores.rms),
        images=len(scores.mse),
    )


def paired_gain(scores: ImageScores, baseline: ImageScores) -> tuple[float, float]:
    """Returns the mean PSNR gain over a baseline on the same images, and its standard error, in dB.

    Some images are harder than others for every system. The paired differences therefore spread far
    less than the PSNRs themselves, and their standard error is the one to compare two runs by.
    """
    gain = scores.psnr - baseline.psnr
    return float(jnp.mean(gain)), standard_error(gain)


def standard_error(values: Float[Array, "n"]) -> float:
    """Returns the standard error of the mean, from the sample variance; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(np.std(np.asarray(values), ddof=1) / np.sqrt(len(values)))
