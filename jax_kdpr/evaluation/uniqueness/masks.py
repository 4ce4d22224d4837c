"""How well one design, that is masks and the optics behind them, determines an object.

No network is involved. There are three answers, each over a few scenes: how well the false objects
of `uniqueness.ambiguity` fit the measurement, and how far they are from the training images; the
singular values of the Jacobian of sqrt(y); and Cramer-Rao bounds against the number of photons
(`uniqueness.information`). All of it is meant for double precision.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jax_kdpr.core import metrics
from jax_kdpr.core.types import Field, Image, Images, Intensity
from jax_kdpr.evaluation.uniqueness import ambiguity, information
from jax_kdpr.evaluation.uniqueness import prior as priors
from jax_kdpr.evaluation.uniqueness.prior import Prior
from jax_kdpr.optics.cdp import Optics, measure_intensity, pixel_means
from jax_kdpr.optics.objects import SceneOptions, field_image, image_beside, scene_field

SHIFTS = 1023  # the most shifts that are tried: all of them up to 32 x 32 pixels
FITS = 0.01  # a false object fits if its misfit is below this
JUDGED_PIXELS = 32 * 128**2  # of false objects that are judged together
TURNS = 16  # global phases that are tried, to find the nearest to the training images
NULL, WEAK = 1e-6, 1e-2  # singular values below these shares of the largest
# For more unknowns than dense matrices allow:
PROBES = 8  # random vectors
ROUNDS = 20  # of inverse iteration
STEPS = 200  # of conjugate gradients in each solution, at most


Shift = Int[Array, "2"]
Bound = Callable[[list[Intensity]], dict[str, Any]]
"""bound(Fisher weights of each scene) -> {"cramer_rao", "bayesian"}."""


class Design(NamedTuple):
    """Masks, what lies between them and the sensor, and the scenes; see `make_design`."""

    optics: Optics
    oversample: int
    scene: SceneOptions
    measure: information.Measure  # from an image to its noiseless CDPs


def make_design(optics: Optics, *, oversample: int, scene: SceneOptions) -> Design:
    """Builds a design; make it only once, as programs are compiled for its `measure`.

    Everything is computed in the precision of the optics.
    """

    def measure(image: Image):
        field = scene_field(image, scene)
        return measure_intensity(field, optics.masks, oversample=oversample, path=optics.path)

    return Design(optics, oversample, scene, measure)


class Judged(NamedTuple):
    """False objects of one scene."""

    misfit: Float[np.ndarray, "f"]  # `ambiguity.misfit`
    constraint: Float[np.ndarray, "f"]  # `ambiguity.constraint_distance`
    psnr: Float[np.ndarray, "f"]  # of its image, at the best global phase, dB
    prior_distance: Float[np.ndarray, "f"]  # in units of the true scenes' `own_distance`


def false_objects(
    design: Design, images: Images, *, prior: Prior, unit: float
) -> dict[str, dict[str, Any]]:
    """Judges twin, mirror and shifts of each scene, and returns medians over the scenes.

    The worst shift of a scene is the one nearest to the training images among those with a misfit
    below `FITS`. If no shift fits, it is the one that fits best. Distances to the training images
    are in units of the true scenes' own (`own_distance`).
    """
    masks = pixel_means(design.optics)
    shifts = ambiguity.circular_shifts(*masks.shape[1:], most=SHIFTS)
    given = prior.mean, prior.subspace, design.oversample, design.scene
    chosen: dict[str, list[Judged]] = {"twin": [], "mirror": [], "worst shift": []}
    fitting, worst = [], []
    for image in images:
        field = scene_field(image, design.scene)
        turned = jnp.stack([ambiguity.twin(field, masks), ambiguity.mirror(field, masks)])
        found = [
            _judge(design.optics, image, turned, *given),
            _judge(design.optics, image, jnp.asarray(shifts), *given),
        ]
        judged = Judged(
            *[np.concatenate(both, dtype=np.float64) for both in zip(*found, strict=True)]
        )
        judged = judged._replace(prior_distance=judged.prior_distance / unit)
        fits = judged.misfit[2:] < FITS
        rank = judged.misfit[2:]
        if fits.any():
            rank = np.where(fits, judged.prior_distance[2:], np.inf)
        number = int(np.argmin(rank))
        fitting.append(float(fits.mean()))
        worst.append(shifts[number])
        for name, place in (("twin", 0), ("mirror", 1), ("worst shift", 2 + number)):
            chosen[name].append(Judged(*[values[place] for values in judged]))
    medians: dict[str, dict[str, Any]] = {
        name: dict(zip(Judged._fields, np.median(several, axis=0).tolist(), strict=True))
        for name, several in chosen.items()
    }
    medians["worst shift"] |= {"fitting_share": float(np.mean(fitting)), "shifts": worst}
    return medians


def own_distance(prior: Prior, images: Images) -> float:
    """Returns the median distance of true scenes to the training images' subspace."""
    mean, subspace = jnp.asarray(prior.mean), jnp.asarray(prior.subspace)
    return float(np.median(priors.subspace_distance(mean, subspace, images)))


def conditioning(design: Design, images: Images, *, steps: int = STEPS) -> dict[str, Any]:
    """Returns the singular values of the Jacobian of sqrt(y), without that of the global phase.

    Up to `information.DENSE` unknowns, "spectrum" has all of them (medians over scenes, largest
    first), and "null" and "weak" count those below 1e-6 and 1e-2 of the largest. For more unknowns
    there are only "largest" and "smallest", and too few `steps` of conjugate gradients leave the
    smallest too large. "condition" is the ratio of the two, infinite if the smallest is null.
    """
    measure = design.measure
    free = information.global_phase_direction(images.shape[1:], design.scene.kind)
    extreme = partial(information.extreme_singular_values, rounds=ROUNDS, steps=steps)
    spectra, extremes = [], []
    for image in images:
        weights = information.root_weights(measure(image))
        if image.size <= information.DENSE:
            jacobian = np.asarray(information.intensity_jacobian(measure, image))
            gram = information.gram_matrix(jacobian, np.asarray(weights).ravel())
            spectra.append(information.singular_values(gram, free))
            extremes.append((spectra[-1][0], spectra[-1][-1]))
        else:
            product = _product(measure, image, weights)
            extremes.append(extreme(product, image.size, free))
    largest, smallest = np.median(extremes, axis=0)
    condition = np.median(
        [top / bottom if bottom > NULL * top else np.inf for top, bottom in extremes]
    )
    found: dict[str, Any] = {
        "largest": float(largest),
        "smallest": float(smallest),
        "condition": float(condition),
    }
    if spectra:
        found["spectrum"] = np.median(spectra, axis=0).tolist()
        for name, level in (("null", NULL), ("weak", WEAK)):
            counts = [np.sum(values < level * values[0]) for values in spectra]
            found[name] = float(np.median(counts))
    return found


def bounds(
    design: Design,
    images: Images,
    *,
    prior: Prior,
    photons: tuple[float, ...],
    read_noise: float,
    steps: int = STEPS,
) -> Iterator[dict[str, Any]]:
    """Yields for each number of photons a frame the least error that an estimate can have.

    "cramer_rao" is the bound for unbiased estimates without a prior, the median over scenes.
    "bayesian" is the van Trees bound for Gaussian objects with the training images' mean and
    covariance. Both take the global phase from the truth. Each is given as rms of the image, as
    PSNR and, if the scene has a phase, as rms in radians. If the traces were estimated from random
    vectors, "probe_error" is the relative standard error of the mean squared error, which too few
    `steps` of conjugate gradients leave too low.
    """
    weigh = partial(information.fisher_weights, read_noise=read_noise)
    intensities = [design.measure(image) for image in images]
    given = design, images, information.global_phase_direction(images.shape[1:], design.scene.kind)
    if images[0].size <= information.DENSE:
        bound = _dense_bounds(*given, prior)
    else:
        bound = _probed_bounds(*given, prior, steps=steps)
    for level in photons:
        yield {"photons": level, **bound([weigh(y, photons=level) for y in intensities])}


def _dense_bounds(design: Design, images: Images, free, prior: Prior) -> Bound:
    shape = images.shape[1:]
    jacobians = [
        np.asarray(information.intensity_jacobian(design.measure, image)) for image in images
    ]
    precision = np.kron(priors.precision(prior), np.eye(shape[2]))

    def error(variances: list[np.ndarray]) -> dict[str, float]:
        """Returns the error for variances of all pixels and channels, one array a scene."""
        squares = np.mean(np.reshape(variances, (-1, *shape)), axis=(1, 2))
        return _as_error(np.median(squares, axis=0), design.scene)

    def bound(weights: list[Intensity]) -> dict[str, Any]:
        informations = [
            information.gram_matrix(jacobian, np.asarray(weight).ravel())
            for jacobian, weight in zip(jacobians, weights, strict=True)
        ]
        mean = np.mean(informations, axis=0)
        return {
            "cramer_rao": error([information.cramer_rao(one, free) for one in informations]),
            "bayesian": error([information.bayesian_bound(mean, precision, free)]),
        }

    return bound


def _probed_bounds(design: Design, images: Images, free, prior: Prior, *, steps: int) -> Bound:
    """Builds the bounds without matrices, as one number for all channels."""
    channels, probes = images.shape[3], {"probes": PROBES, "steps": steps}
    given = images[0].size, free

    def prior_root(vector: np.ndarray) -> np.ndarray:
        return priors.covariance_root(prior, vector.reshape(-1, channels)).ravel()

    def bound(weights: list[Intensity]) -> dict[str, Any]:
        products = [
            _product(design.measure, image, weight)
            for image, weight in zip(images, weights, strict=True)
        ]

        def mean_product(vector: np.ndarray) -> np.ndarray:
            return np.mean([product(vector) for product in products], axis=0)

        each = [information.probed_cramer_rao(one, *given, **probes) for one in products]
        found = {
            "cramer_rao": np.median(each, axis=0),
            "bayesian": information.probed_bayesian_bound(
                mean_product, prior_root, *given, **probes
            ),
        }
        return {
            name: _as_error(np.full(channels, mean), design.scene) | {"probe_error": error / mean}
            for name, (mean, error) in found.items()
        }

    return bound


def _as_error(squares: np.ndarray, scene: SceneOptions) -> dict[str, float]:
    """Returns the mean squared errors of the image's channels as rms, PSNR and radians."""
    mean = float(np.mean(squares))
    found = {"rms": float(np.sqrt(mean)), "psnr": float(-10 * np.log10(mean))}
    if scene.has_phase:
        found["radians"] = float(scene.phase_range * np.sqrt(squares[0]))
    return found


@partial(jax.jit, static_argnames=("oversample", "scene"))
def _judge(optics, image, others, mean, subspace, oversample, scene):
    """Judges false objects, given as fields [f h w] or as shifts [f 2], some at a time."""
    field, masks = scene_field(image, scene), pixel_means(optics)
    turns = jnp.exp(2j * jnp.pi * jnp.arange(TURNS) / TURNS)
    mean, subspace = mean.astype(jnp.float32), subspace.astype(jnp.float32)

    def judge(other: Field | Shift):
        if other.ndim == 1:
            other = ambiguity.shifted(field, masks, (other[0], other[1]))
        misfit = ambiguity.misfit(
            field, other, optics.masks, oversample=oversample, path=optics.path
        )
        constraint = ambiguity.constraint_distance(
            other, scene=scene.kind, min_amplitude=scene.min_amplitude
        )
        aligned = image_beside(other, image, scene)
        psnr = metrics.psnr_from_mse(jnp.mean(jnp.square(aligned - image)))
        turned = jax.vmap(lambda turn: field_image(turn * other, scene))(turns)
        distances = priors.subspace_distance(mean, subspace, turned.astype(jnp.float32))
        return misfit, constraint, psnr, jnp.min(distances)

    return lax.map(judge, others, batch_size=max(1, min(32, JUDGED_PIXELS // field.size)))


def _product(measure, image, weights) -> information.Product:
    return lambda vector: np.asarray(
        information.gram_product(measure, image, weights, jnp.asarray(vector))
    )
