"""Scores of a trained system on its test images, beside baselines that need no training."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_kdpr.core import metrics
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.core.sharding import data_parallel, replicate, shard_batch
from jax_kdpr.core.types import Image, Images, Key, RawImages
from jax_kdpr.data.batches import over_batches, take_batch
from jax_kdpr.data.sources import Dataset
from jax_kdpr.optics.noise import add_noise
from jax_kdpr.optics.objects import image_beside
from jax_kdpr.optics.phase import align_global_phase
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement, make_refine, make_solve
from jax_kdpr.recovery.system import Output
from jax_kdpr.runs.run import Run

RECOVERED = "recovered"  # the network's image
REFINED = "refined"  # the network's image after steps of a solver that start from it
SPECTRAL = "spectral_estimate"  # the network's input alone, read beside the truth
CONSTANT = "constant"  # the mean pixel of the training images
MEAN_IMAGE = "mean_image"  # the mean of the training images
SOLVED = "solver_"  # and its name: from the spectral estimate, read beside the truth


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


class Samples(NamedTuple):
    """A few test scenes and all that the system makes of them, for figures."""

    images: Images
    output: Output
    phases: Float[Array, "k h w"]


def score_test_images(
    run: Run,
    *,
    key: Key,
    refinement: Refinement = NO_REFINEMENT,
    solvers: tuple[str, ...] = (),
    solver_steps: int = 200,
) -> dict[str, ImageScores]:
    """Scores each test image: the recovery, the spectral estimate alone, and two trivial answers.

    Args:
        run: The system, and its data.
        key: For sensor noise.
        refinement: Of the network's images, which are then scored too.
        solvers: Solvers (`recovery.solvers`) to score beside, from the spectral estimate.
        solver_steps: Steps of each of them.

    Returns:
        {RECOVERED, SPECTRAL, CONSTANT, MEAN_IMAGE: scores of all test images, in order}, REFINED
        if there are steps, and SOLVED + name for each solver.
    """
    camera = run.camera
    mesh = camera.mesh
    refine_batch = make_refine(camera, refinement)
    solve_batch = {name: make_solve(camera, solver=name, steps=solver_steps) for name in solvers}
    shape = {"size": camera.size, "channels": camera.channels}
    mean_image = mean_train_image(run.dataset, **shape)

    # What is large is an argument: as a closure it would be compiled into the program.
    @jax.jit
    def score_batch(variables, test, indices, batch_key):
        images = shard_batch(take_batch(test, indices, **shape), mesh)
        output, _ = run.system.apply(*variables, images, batch_key)
        read = partial(image_beside, **camera.scene)
        answers = {
            RECOVERED: output.image,
            SPECTRAL: jax.vmap(read)(output.estimate, images),
            CONSTANT: jnp.full_like(images, jnp.mean(mean_image)),
            MEAN_IMAGE: jnp.broadcast_to(mean_image[None], images.shape),
        }
        if refinement.steps:
            answers[REFINED] = refine_batch(variables[0], output.image, output.intensity)
        for name, solve in solve_batch.items():
            solved = solve(variables[0], output.estimate, output.intensity, images)
            answers[SOLVED + name] = solved.image
        return {name: camera.score(answer, images) for name, answer in answers.items()}

    variables, test = replicate((run.variables, run.dataset.test), mesh)
    return over_batches(
        partial(score_batch, variables, test),
        len(run.dataset.test),
        batch_size=run.batch_size,
        key=key,
    )


def score_under_noise(
    run: Run,
    images: RawImages,
    *,
    levels: dict[str, tuple[float, ...]],
    key: Key,
    refinement: Refinement = NO_REFINEMENT,
) -> dict[str, dict[str, dict[float, ImageScores]]]:
    """Scores recoveries from CDPs with sensor noise; the same draws of it at every level.

    Args:
        run: The system, built without noise of its own.
        images: Test images.
        levels: For each kind of noise its levels: "gaussian" in dB, "poisson" in photons a shot,
            "none" of any one value.
        key: For the noise.
        refinement: Of the network's images, which are then scored too.

    Returns:
        {RECOVERED, and REFINED if there are steps: {kind: {level: scores}}}.
    """
    camera = run.camera
    mesh = camera.mesh
    variables, images = replicate((run.variables, images), mesh)
    shape = {"size": camera.size, "channels": camera.channels}
    refine_batch = make_refine(camera, refinement)

    def make_step(kind: str):
        # Each device draws its own part: a Poisson draw is a loop of unknown length, which devices
        # that share one would have to agree on in every round.
        disturb = data_parallel(
            lambda level, y, key: add_noise(key, y, kind=kind, snr_db=level, photons=level), mesh
        )

        @jax.jit
        def step(variables, images, level, indices, key):
            clean_key, noise_key = jax.random.split(key)
            batch = shard_batch(take_batch(images, indices, **shape), mesh)
            clean = run.system.measure(variables[0], batch, clean_key)
            noisy = disturb(level, clean, jax.random.split(noise_key, len(indices)))
            output, _ = run.system.recover(*variables, noisy)
            answers = {RECOVERED: output.image}
            if refinement.steps:
                answers[REFINED] = refine_batch(variables[0], output.image, output.intensity)
            return {name: camera.score(answer, batch) for name, answer in answers.items()}

        return step

    found: dict[str, dict[str, dict[float, ImageScores]]] = {}
    for kind, values in levels.items():
        step = make_step(kind)  # the level is an argument: one program does for all
        for level in values:
            scores = over_batches(
                partial(step, variables, images, jnp.float32(level)),
                len(images),
                batch_size=run.batch_size,
                key=key,
            )
            for answer, score in scores.items():
                found.setdefault(answer, {}).setdefault(kind, {})[level] = score
    return found


def mean_train_image(dataset: Dataset, *, size: int, channels: int) -> Image:
    """Returns the mean of the (first epoch's) training images as the system sees them.

    Resizing is linear, so one image is resized: the mean. Every channel of a scene has the same.
    """
    train = dataset.train(0)
    mean = jnp.mean(train, axis=0, dtype=jnp.float32)
    if jnp.issubdtype(train.dtype, jnp.integer):
        mean = mean / jnp.iinfo(train.dtype).max
    return take_batch(mean[None], jnp.zeros(1, int), size=size, channels=channels)[0]


def sample_outputs(run: Run, *, count: int, key: Key) -> Samples:
    """Runs the system on the first `count` test scenes; the estimates get the true global phase."""
    run = run.on_one_device()  # which takes any number of them
    camera = run.camera
    images = run.scenes(count)
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
    """Mean PSNR gain over a baseline on the same images, dB, and its paired standard error.

    Some images are harder than others for every system: the differences image by image spread far
    less than the PSNRs themselves, so this is the error to compare two runs by.
    """
    gain = scores.psnr - baseline.psnr
    return float(jnp.mean(gain)), standard_error(gain)


def standard_error(values: Float[Array, "n"]) -> float:
    """Standard error of the mean, from the sample variance; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(np.std(np.asarray(values), ddof=1) / np.sqrt(len(values)))
