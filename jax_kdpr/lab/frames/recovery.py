"""Recovers objects from CDPs, and says how far to trust them.

A recovery is trusted as far as it explains its measurement: the recovered object is sent through
the optics again, and the amplitudes of the two patterns are compared,

    misfit = norm(abs(A x) - sqrt(y)) / norm(sqrt(y)).

A pattern that the system was not made for (flipped, transposed, badly scaled, of another mask)
still gives an object that looks like its training set, but the pattern of that object differs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Images, Intensities
from jax_kdpr.data.batches import take_batch
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement, make_refine
from jax_kdpr.recovery.solvers import amplitude_misfit, require_projection
from jax_kdpr.runs.run import Run, run_keys

PERCENTILE = 99.0  # of the misfits of simulated scenes
MARGIN = 1.2  # factor by which the misfit of a bench may exceed these
CONFUSED = 1.0  # percent of wrong patterns that may be trusted
RESAMPLES = 500
SOLVED = 0.3  # misfit beyond which the answer of a solver is not an object of the frame
LIMIT_IMAGES = 256  # validation images for a limit, at most


class Recovered(NamedTuple):
    """What a batch of CDPs gives."""

    image: Images  # refined, if asked for
    estimate: Fields  # spectral, as the network saw it
    misfit: Float[Array, "b"]  # of the network's image
    refined_misfit: Float[Array, "b"]  # of `image`; equal to `misfit` without refinement


Recover = Callable[[Intensities], Recovered]
Explain = Callable[[Optics, Images, Intensities], Float[Array, "b"]]
# Misfits of simulated scenes, and of the same CDPs transposed, which are wrong patterns.
Simulated = tuple[list[float], list[float]]


def make_explain(camera: Camera) -> Explain:
    """Builds explain(optics, images, intensities): the misfit of each image to its CDPs."""
    return data_parallel(
        lambda optics, image, y: amplitude_misfit(scene_field(image, camera.scene), y, optics),
        camera.mesh,
    )


def make_recover(run: Run, *, refinement: Refinement = NO_REFINEMENT) -> Recover:
    """Builds recover(intensity) for a batch of CDPs in the model's unit.

    Refinement lowers the misfit of almost any pattern, so that trust depends on the image before
    it. The misfit of a solver without a network (`recovery.solver_system`) says less than that of a
    network: a solver fits patterns that no object has made nearly as well.
    """
    camera = run.camera
    if refinement.steps:
        require_projection(refinement.solver, run.optics)
    refine, explain = make_refine(camera, refinement), make_explain(camera)

    @jax.jit
    def recover(variables, intensity):
        optics = camera.optics(variables[0]["phases"])
        output, _ = run.system.recover(*variables, intensity=intensity, optics=optics)
        image = output.image
        misfit = after = explain(optics, image, intensity)
        if refinement.steps:
            image = refine(optics, image, intensity)
            after = explain(optics, image, intensity)
        return Recovered(image, output.estimate, misfit, after)

    return lambda intensity: recover(run.variables, intensity)


def simulated_misfits(
    run: Run, recover: Recover, *, noise_sigma: Float[np.ndarray, "sh sw"], batch_size: int
) -> Simulated:
    """Returns the misfits of a run on its validation images, and on wrong patterns.

    The CDPs are simulated with the noise that the run was trained with. The noise of the bench is
    added where it is known: `noise_sigma`, in model units.
    """
    camera, key = run.camera, run_keys(run.config.seed).evaluation
    images = run.dataset.validation[:LIMIT_IMAGES]
    measure, right, wrong = jax.jit(run.system.measure), [], []
    for first in range(0, len(images), batch_size):
        indices = (jnp.arange(batch_size) + first) % len(images)
        scenes = take_batch(images, indices, size=camera.size, channels=camera.channels)
        run_key, bench_key = jax.random.split(jax.random.fold_in(key, first))
        clean = measure(run.variables[0], scenes, run_key)
        noise = jnp.asarray(noise_sigma)[None, None] * jax.random.normal(bench_key, clean.shape)
        right.append(np.asarray(recover(clean + noise).misfit))
        wrong.append(np.asarray(recover(jnp.swapaxes(clean + noise, -1, -2)).misfit))
    right, wrong = (np.concatenate(found)[: len(images)].astype(float) for found in (right, wrong))
    return right.tolist(), wrong.tolist()


def misfit_limit(simulated: Simulated, count: int = 1) -> float:
    """Returns the largest median misfit of `count` frames to trust; for one frame, its misfit.

    It is `MARGIN` times the `PERCENTILE`th percentile of such medians, drawn with replacement from
    the simulated misfits. One good frame in a hundred is above the percentile itself, and the
    margin leaves room for the errors that every bench has. But at most `CONFUSED` percent of wrong
    patterns may stay below the limit. A system that was hardly trained, or was trained for large
    errors of the bench, explains some scenes as badly as a wrong pattern, and neither is to be
    trusted.
    """
    right, wrong = (_medians(misfits, count) for misfits in simulated)
    return min(
        MARGIN * float(np.percentile(right, PERCENTILE)), float(np.percentile(wrong, CONFUSED))
    )


def _medians(misfits: list[float], count: int) -> np.ndarray:
    """Returns medians of `count` draws each; for a count of one, the misfits themselves."""
    if count == 1:
        return np.asarray(misfits)
    rng = np.random.default_rng(0)
    return np.median(rng.choice(misfits, (RESAMPLES, min(count, 1000))), axis=1)
