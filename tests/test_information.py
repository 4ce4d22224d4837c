"""Jacobian, Fisher information and bounds against explicit matrices and against real estimates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.optimize import minimize

from jax_kdpr.evaluation.uniqueness import information
from jax_kdpr.evaluation.uniqueness import prior as priors
from jax_kdpr.optics.cdp import measure_intensity
from jax_kdpr.optics.objects import SceneOptions, scene_field

pytestmark = pytest.mark.usefixtures("x64")
H, W = 6, 5
RNG = np.random.default_rng(0)


class Shots(NamedTuple):
    """One image through k masks, and what is known of its intensities y."""

    measure: Any
    phases: np.ndarray
    image: jax.Array
    free: np.ndarray | None  # the direction of the global phase
    jacobian: np.ndarray

    @property
    def y(self) -> jax.Array:
        return self.measure(self.image)

    def gram(self, weights=None) -> np.ndarray:
        """Of the intensities with weights; without any, of their roots."""
        weights = information.root_weights(self.y) if weights is None else weights
        return information.gram_matrix(self.jacobian, np.asarray(weights).ravel())


def shots(k: int, kind: str = "phase", oversample: int = 1) -> Shots:
    phases = jnp.asarray(np.random.default_rng(1).uniform(0, 2 * np.pi, (k, H, W)))
    scene = SceneOptions(kind=kind, phase_range=2.0)

    def measure(image):
        return measure_intensity(scene_field(image, scene), phases, oversample=oversample)

    image = jnp.asarray(RNG.uniform(0.2, 0.8, (H, W, 2 if kind == "complex" else 1)))
    free = information.global_phase_direction(image.shape, kind)
    jacobian = np.asarray(information.intensity_jacobian(measure, image))
    return Shots(measure, np.asarray(phases), image, free, jacobian)


@pytest.fixture
def four():
    return shots(4)


def oracle_jacobian(image: np.ndarray, phases: np.ndarray, kind: str, oversample: int):
    """Central differences of sqrt(y), from dense matrices."""
    matrix = oracles.cdp_matrix(phases, oversample)

    def root(flat):
        pixels = flat.reshape(image.shape)
        field = np.exp(2j * pixels[..., 0]) if kind != "amplitude" else pixels[..., 0] + 0j
        if kind == "complex":
            field = field * (0.5 + 0.5 * pixels[..., 1])
        return np.abs(matrix @ field.ravel())

    flat, step = image.ravel(), 1e-6 * np.eye(image.size)
    return np.array([(root(flat + e) - root(flat - e)) / 2e-6 for e in step]).T


@pytest.mark.parametrize("kind", ["phase", "amplitude", "complex"])
@pytest.mark.parametrize(("k", "oversample"), [(1, 1), (1, 2), (3, 1)])
def test_singular_values_equal_those_of_central_differences(kind, k, oversample):
    one = shots(k, kind, oversample)
    values = information.singular_values(one.gram(), one.free)
    dense = oracle_jacobian(np.asarray(one.image), one.phases, kind, oversample)
    expected = np.linalg.svd(dense, compute_uv=False)
    missing = one.image.size - min(dense.shape)  # fewer equations than unknowns
    expected = np.append(expected, np.zeros(missing))
    if one.free is not None:
        np.testing.assert_allclose(dense @ one.free, 0, atol=1e-7)
        expected = expected[:-1]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    if missing:  # a shot that shows nothing of a direction is seen as singular
        assert np.sum(values < 1e-6 * values[0]) == missing - (one.free is not None)
        assert np.all(np.isinf(information.cramer_rao(one.gram(), one.free)))
    if kind == "phase":  # at most phase_range sqrt(k), reached by what changes moduli alone
        assert values[0] <= 2 * np.sqrt(k) * (1 + 1e-12)


def test_products_equal_the_matrix_and_extremes_the_spectrum(four):
    weights, gram = information.root_weights(four.y), four.gram()

    def product(vector):
        found = information.gram_product(four.measure, four.image, weights, jnp.asarray(vector))
        return np.asarray(found)

    vector = RNG.normal(size=H * W)
    np.testing.assert_allclose(product(vector), gram @ vector, rtol=1e-9)
    values = information.singular_values(gram, four.free)
    largest, smallest = information.extreme_singular_values(product, H * W, four.free, rounds=30)
    np.testing.assert_allclose([largest, smallest], values[[0, -1]], rtol=1e-3)


def test_few_rounds_leave_the_smallest_singular_value_too_large_never_too_small():
    values, few = np.geomspace(1e-6, 1, 40), {"rounds": 1, "steps": 3}
    _, smallest = information.extreme_singular_values(lambda v: values * v, 40, None, **few)
    assert smallest >= 1e-3


@pytest.mark.parametrize("read_noise", [0.0, 3.0])
def test_fisher_information_of_counts(read_noise):
    """sum_i (dn_i / dx)^2 / (n_i + sigma^2) with n_i the counts, each frame apart."""
    two, photons = shots(2, "amplitude"), 5e3
    y = np.asarray(two.y)
    weights = information.fisher_weights(two.y, photons=photons, read_noise=read_noise)
    scale = np.repeat(photons / y.sum(axis=(1, 2)), H * W)
    rows, counts = scale[:, None] * two.jacobian, scale * y.ravel()
    expected = np.einsum("ni,nj,n->ij", rows, rows, 1 / (counts + read_noise**2))
    floor = 1e-9 * np.abs(expected).max()
    np.testing.assert_allclose(two.gram(weights), expected, rtol=1e-9, atol=floor)


def test_bounds_do_not_count_the_global_phase_and_a_prior_only_helps(four):
    """The pseudo-inverse, and diag(Q (F + P)^-1 Q), which is below it in every pixel."""
    gram, free = four.gram(), four.free
    without = information.cramer_rao(gram, free)
    expected = np.diag(np.linalg.pinv(gram, rcond=1e-10, hermitian=True))
    np.testing.assert_allclose(without, expected, rtol=1e-6)
    precision = np.diag(RNG.uniform(1, 3, H * W))
    q = np.eye(H * W) - np.outer(free, free)
    bound = information.bayesian_bound(gram, precision, free)
    expected = np.diag(q @ np.linalg.inv(gram + precision) @ q)
    np.testing.assert_allclose(bound, expected, rtol=1e-9)
    assert np.all(bound < without)


def test_probed_traces_equal_the_matrices_bounds_within_their_error(four):
    matrix = four.gram(information.fisher_weights(four.y, photons=1e4))
    prior = priors.fit_prior(oracles.smooth_images(RNG, 200, H, W, 1.0))

    def root(v):
        return priors.covariance_root(prior, v[:, None])[:, 0]

    free, unknowns, probes = four.free, H * W, 200
    bound = information.bayesian_bound(matrix, priors.precision(prior), free)
    for (mean, error), expected in (
        (
            information.probed_cramer_rao(lambda v: matrix @ v, unknowns, free, probes=probes),
            np.mean(information.cramer_rao(matrix, free)),
        ),
        (
            information.probed_bayesian_bound(
                lambda v: matrix @ v, root, unknowns, free, probes=probes
            ),
            np.mean(bound),
        ),
    ):
        assert 0 < error < 0.15 * expected and abs(mean - expected) < 4 * error


def test_maximum_likelihood_reaches_the_bound_where_there_is_much_light(four):
    """Four shots, 1e6 photons each: started at the truth, over 60 draws of the noise."""
    photons = 1e6
    weights = information.fisher_weights(four.y, photons=photons)
    bound = np.mean(information.cramer_rao(four.gram(weights), four.free))
    scale = photons / (H * W)

    @jax.jit
    @jax.value_and_grad
    def unlikelihood(flat, counts):
        expected = scale * four.measure(flat.reshape(four.image.shape))
        return jnp.mean(expected - counts * jnp.log(expected))

    truth, errors = np.asarray(four.image).ravel(), []
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500}
    for seed in range(60):
        counts = np.random.default_rng(seed).poisson(scale * np.asarray(four.y)).astype(float)
        fit = minimize(
            lambda flat, n=counts: [np.asarray(v, float) for v in unlikelihood(flat, n)],
            *(truth, (), "L-BFGS-B", True),
            options=options,
        )
        off = fit.x - truth
        errors.append(np.mean((off - (four.free @ off) * four.free) ** 2))
    np.testing.assert_allclose(np.mean(errors), bound, rtol=0.2)


def test_the_prior_is_mean_and_covariance_of_the_images():
    images = oracles.smooth_images(RNG, 300, 4, 5, 1.0)
    prior = priors.fit_prior(images, share=0.9)
    flat = images.reshape(300, -1)
    covariance = np.cov(flat, rowvar=False)
    np.testing.assert_allclose(prior.mean, flat.mean(axis=0))
    expected = np.linalg.inv(covariance + 0.01 * np.eye(20))
    np.testing.assert_allclose(priors.precision(prior, floor=0.1), expected, rtol=1e-6, atol=1e-8)
    root = priors.covariance_root(prior, np.eye(20), floor=0.1)
    np.testing.assert_allclose(root @ root, covariance + 0.01 * np.eye(20), atol=1e-10)
    values = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    held = np.cumsum(values) / values.sum()
    assert held[prior.kept - 1] >= 0.9 > held[prior.kept - 2]


def test_fewer_images_than_pixels_give_the_same_covariance_and_distances():
    images = RNG.uniform(size=(6, 4, 5))
    prior = priors.fit_prior(images, share=0.8)
    assert len(prior.variances) == 5
    actual = (prior.components * prior.variances) @ prior.components.T
    np.testing.assert_allclose(actual, np.cov(images.reshape(6, -1), rowvar=False), atol=1e-10)
    queries = RNG.uniform(size=(3, 4, 5, 2))
    given = (prior.mean, prior.subspace, queries)
    for query, distance in zip(
        queries, priors.subspace_distance(*map(jnp.asarray, given)), strict=True
    ):
        off = query.reshape(-1, 2) - prior.mean[:, None]
        left = off - prior.subspace @ np.linalg.lstsq(prior.subspace, off, rcond=None)[0]
        np.testing.assert_allclose(distance, np.sqrt(np.mean(np.square(left))))
