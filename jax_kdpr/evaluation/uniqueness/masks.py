"""What one design, masks and the optics behind them, lets a recovery know; no network is involved.

Three answers, each over a few scenes: how well the false objects of `uniqueness.ambiguity` fit the
measurement and how far they are from the training images; the singular values of the Jacobian of
sqrt(y); Cramer-Rao bounds over photons (`uniqueness.information`). Works in double precision.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core import metrics
from jax_kdpr.core.types import Field, Image, Images
from jax_kdpr.evaluation.uniqueness import ambiguity, information
from jax_kdpr.evaluation.uniqueness import prior as priors
from jax_kdpr.evaluation.uniqueness.prior import Prior
from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.optics.objects import SceneOptions, field_image, image_beside, scene_field

SHIFTS = 1023  # at most: all of them up to 32 x 32 pixels
FITS = 0.01  # misfit below which a false object counts as one that fits
TURNS = 16  # global phases tried, where the nearest to the training images is meant
NULL, WEAK = 1e-6, 1e-2  # singular values below so much of the largest
# Where there are too many unknowns for matrices:
PROBES = 8  # random vectors
ROUNDS = 20  # of inverse iteration
LANCZOS = 500  # products for the largest singular value; 80 to 400 seen
STEPS = 200  # of conjugate gradients, each time, at most


Tick = Callable[[], object]  # called after each part of a long computation


def _no_tick() -> None:
    pass


class Design(NamedTuple):
    """Masks, what lies between them and the sensor, and the scenes; see `make_design`."""

    optics: Optics
    oversample: int
    scene: SceneOptions
    measure: information.Measure  # its noiseless CDPs


def make_design(optics: Optics, *, oversample: int, scene: SceneOptions) -> Design:
    """Builds a design. Its programs are compiled for its `measure`: make it once.

    Args:
        optics: In the precision that everything is computed in.
        oversample: Of the operator.
        scene: Encoding of images.
    """

    def measure(image: Image):
        field = scene_field(image, scene)
        return measure_intensity(
            field, optics.masks, oversample=oversample, transfer=optics.transfer
        )

    return Design(optics, oversample, scene, measure)


class Judged(NamedTuple):
    """False objects of one scene."""

    misfit: Float[np.ndarray, "f"]  # `ambiguity.misfit`
    constraint: Float[np.ndarray, "f"]  # `ambiguity.constraint_distance`
    psnr: Float[np.ndarray, "f"]  # of its image, at the best global phase, dB
    prior_distance: Float[np.ndarray, "f"]  # in units of the true scenes' own


def false_objects(
    design: Design, images: Images, *, prior: Prior, unit: float, tick: Tick = _no_tick
) -> dict[str, dict[str, Any]]:
    """Judges twin, mirror and shifts of each scene; medians over the scenes.

    The worst shift of a scene is, among those of a misfit below `FITS`, the one nearest to the
    training images; where none fits, the one that fits best.

    Args:
        design: What they are false for.
        images: Scenes.
        prior: Of the training images.
        unit: Distance that counts as 1: the true scenes' own (`own_distance`).
        tick: Called after each scene.
    """
    masks = design.optics.masks
    shifts = ambiguity.circular_shifts(*masks.shape[1:], most=SHIFTS)
    chosen: dict[str, list[Judged]] = {"twin": [], "mirror": [], "worst shift": []}
    fitting, worst = [], []
    for image in images:
        field = scene_field(image, design.scene)
        turned = [ambiguity.twin(field, masks), ambiguity.mirror(field, masks)]
        moved = jax.vmap(lambda s, x=field: ambiguity.shifted(x, masks, (s[0], s[1])))(
            jnp.asarray(shifts)
        )
        judged = _judge(design, image, jnp.concatenate([jnp.stack(turned), moved]), prior)
        judged = judged._replace(prior_distance=judged.prior_distance / unit)
        fits = judged.misfit[2:] < FITS
        rank = (
            np.where(fits, judged.prior_distance[2:], np.inf) if fits.any() else judged.misfit[2:]
        )
        number = int(np.argmin(rank))
        fitting.append(float(fits.mean()))
        worst.append(shifts[number])
        for name, place in (("twin", 0), ("mirror", 1), ("worst shift", 2 + number)):
            chosen[name].append(Judged(*[values[place] for values in judged]))
        tick()
    found: dict[str, dict[str, Any]] = {
        name: {
            field: float(np.median([getattr(one, field) for one in several]))
            for field in Judged._fields
        }
        for name, several in chosen.items()
    }
    found["worst shift"] |= {"fitting_share": float(np.mean(fitting)), "shifts": worst}
    return found


def longest_seconds(design: Design, images: Images, *, levels: int, steps: int = STEPS) -> float:
    """Returns about how long `conditioning` and `bounds` take at most, from one product or matrix.

    Not `false_objects`, which is the short part of large scenes.

    Args:
        design: Of which.
        images: Scenes.
        levels: Numbers of photons.
        steps: Of conjugate gradients.
    """
    image, scenes = images[0], len(images)
    if image.size <= information.DENSE:
        matrix = np.eye(image.size) + 1e-3
        started = time.monotonic()
        np.linalg.eigvalsh(matrix)
        # A level inverts, in the mean, for about as long as one spectrum takes.
        return scenes * (1 + levels) * (time.monotonic() - started)
    product = _product(design.measure, image, information.root_weights(design.measure(image)))
    vector = np.ones(image.size)
    product(vector)  # compiles
    started = time.monotonic()
    for _ in range(5):
        product(vector)
    products = scenes * (LANCZOS + steps * (ROUNDS + 2 * PROBES * levels))
    return products * (time.monotonic() - started) / 5


def own_distance(prior: Prior, images: Images) -> float:
    """Returns the median distance of true scenes to the training images' subspace."""
    mean, subspace = jnp.asarray(prior.mean), jnp.asarray(prior.subspace)
    return float(np.median(priors.subspace_distance(mean, subspace, images)))


def conditioning(
    design: Design, images: Images, *, steps: int = STEPS, tick: Tick = _no_tick
) -> dict[str, Any]:
    """Returns the singular values of the Jacobian of sqrt(y), global phase excluded.

    Up to `information.DENSE` unknowns "spectrum" has them all (medians over scenes, largest first),
    and "null" and "weak" say how many are below 1e-6 and 1e-2 of the largest; else there are only
    the largest and the smallest, which few `steps` of conjugate gradients leave too large.
    "condition", their ratio, is infinite where one is null. `tick` is called after each scene.
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
        tick()
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
    tick: Tick = _no_tick,
) -> Iterator[dict[str, Any]]:
    """Yields for each number of photons a frame the least error that an estimate can have.

    "cramer_rao" is the median over scenes, of unbiased estimates without a prior. "bayesian" is van
    Trees' bound for Gaussian objects of the training images' mean and covariance. The global phase
    is taken from the truth in both. Each as rms of the image, as PSNR, and where there are phases
    as rms in radians. "probe_error" is there where the traces were estimated from random vectors:
    the relative standard error of the mean squares; few `steps` of conjugate gradients leave them
    too low. `tick` is called after each scene of each number of photons.
    """
    measure = design.measure
    free = information.global_phase_direction(images.shape[1:], design.scene.kind)
    shape = images.shape[1:]
    dense = images[0].size <= information.DENSE
    intensities = [measure(image) for image in images]
    jacobians = [
        np.asarray(information.intensity_jacobian(measure, image)) for image in images if dense
    ]
    precision = np.kron(priors.precision(prior), np.eye(shape[2])) if dense else None
    for level in photons:
        weights = [
            information.fisher_weights(y, photons=level, read_noise=read_noise) for y in intensities
        ]
        if precision is not None:
            informations = [
                information.gram_matrix(jacobian, np.asarray(weight).ravel())
                for jacobian, weight in zip(jacobians, weights, strict=True)
            ]
            errors = []
            for one in informations:
                errors.append(information.cramer_rao(one, free).reshape(shape))
                tick()
            mean = np.mean(informations, axis=0)
            bayesian = information.bayesian_bound(mean, precision, free).reshape(shape)
            found: dict[str, Any] = {
                "cramer_rao": _as_error(np.median(_per_channel(errors), axis=0), design.scene),
                "bayesian": _as_error(_per_channel([bayesian])[0], design.scene),
            }
        else:
            found = _probed_bounds(design, images, weights, free, prior, steps=steps, tick=tick)
        yield {"photons": level, **found}


def _probed_bounds(
    design: Design, images, weights, free, prior, *, steps: int, tick: Tick
) -> dict[str, Any]:
    """The bounds without matrices; one number for all channels."""
    unknowns, shape = images[0].size, images.shape[1:]
    products = [
        _product(design.measure, image, weight)
        for image, weight in zip(images, weights, strict=True)
    ]

    def prior_root(vector: np.ndarray) -> np.ndarray:
        return priors.covariance_root(prior, vector.reshape(-1, shape[2])).ravel()

    def mean_product(vector: np.ndarray) -> np.ndarray:
        return np.mean([product(vector) for product in products], axis=0)

    each = []
    for product in products:
        found = information.probed_cramer_rao(product, unknowns, free, probes=PROBES, steps=steps)
        each.append(found)
        tick()
    middle = tuple(np.median(each, axis=0))
    bayesian = information.probed_bayesian_bound(
        mean_product, prior_root, unknowns, free, probes=PROBES, steps=steps
    )
    return {
        name: {**_as_error(np.full(shape[2], mean), design.scene), "probe_error": error / mean}
        for name, (mean, error) in (("cramer_rao", middle), ("bayesian", bayesian))
    }


def _per_channel(errors: list[np.ndarray]) -> np.ndarray:
    """Mean squared errors [scenes c] of variances [h w c]."""
    return np.array([np.mean(error, axis=(0, 1)) for error in errors])


def _as_error(squares: np.ndarray, scene: SceneOptions) -> dict[str, float]:
    """Mean squared errors of the image's channels as rms, PSNR and radians."""
    mean = float(np.mean(squares))
    found = {"rms": float(np.sqrt(mean)), "psnr": float(-10 * np.log10(mean))}
    if scene.has_phase:
        found["radians"] = float(scene.phase_range * np.sqrt(squares[0]))
    return found


def _judge(design: Design, image: Image, others: Complex[Array, "f h w"], prior: Prior) -> Judged:
    mean, subspace = (jnp.asarray(values, jnp.float32) for values in (prior.mean, prior.subspace))
    judged = _judge_all(
        design.optics, image, others, mean, subspace, design.oversample, design.scene
    )
    return Judged(*[np.asarray(values, np.float64) for values in judged])


@partial(jax.jit, static_argnames=("oversample", "scene"))
def _judge_all(optics, image, others, mean, subspace, oversample, scene):
    field = scene_field(image, scene)
    turns = jnp.exp(2j * jnp.pi * jnp.arange(TURNS) / TURNS)
    known = {"scene": scene.kind, "min_amplitude": scene.min_amplitude}

    def judge(other: Field):
        misfit = ambiguity.misfit(
            field, other, optics.masks, oversample=oversample, transfer=optics.transfer
        )
        constraint = ambiguity.constraint_distance(other, **known)
        aligned = image_beside(other, image, scene)
        psnr = metrics.psnr_from_mse(jnp.mean(jnp.square(aligned - image)))
        turned = jax.vmap(lambda turn: field_image(turn * other, scene))(turns)
        distances = priors.subspace_distance(mean, subspace, turned.astype(jnp.float32))
        return misfit, constraint, psnr, jnp.min(distances)

    return lax.map(judge, others, batch_size=32)


def _product(measure, image, weights) -> information.Product:
    return lambda vector: np.asarray(
        information.gram_product(measure, image, weights, jnp.asarray(vector))
    )
