"""Jacobian, Fisher information and bounds against explicit matrices and against real estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.optimize import minimize

from jax_kdpr.evaluation.uniqueness import information
from jax_kdpr.evaluation.uniqueness import prior as priors
from jax_kdpr.optics.cdp import measure_intensity
from jax_kdpr.optics.objects import scene_field

pytestmark = pytest.mark.usefixtures("x64")
H, W = 6, 5
RNG = np.random.default_rng(0)
SCENE = {"kind": "phase", "phase_range": 2.0, "min_amplitude": 0.5}


def make_measure(k: int, kind: str = "phase", oversample: int = 1, seed: int = 1):
    phases = jnp.asarray(np.random.default_rng(seed).uniform(0, 2 * np.pi, (k, H, W)))
    scene = {**SCENE, "kind": kind}

    def measure(image):
        return measure_intensity(scene_field(image, **scene), phases, oversample=oversample)

    return measure, np.asarray(phases)


def draw_image(kind: str = "phase") -> jax.Array:
    return jnp.asarray(RNG.uniform(0.2, 0.8, (H, W, 2 if kind == "complex" else 1)))


def oracle_jacobian(image: np.ndarray, phases: np.ndarray, kind: str, oversample: int):
    """Central differences of sqrt(y), from dense matrices."""
    matrix = oracles.cdp_matrix(phases, oversample)

    def root(flat):
        pixels = flat.reshape(image.shape)
        field = np.exp(2j * pixels[..., 0]) if kind != "amplitude" else pixels[..., 0] + 0j
        if kind == "complex":
            field = field * (0.5 + 0.5 * pixels[..., 1])
        return np.abs(matrix @ field.ravel())

    step = 1e-6
    columns = [
        (root(image.ravel() + step * e) - root(image.ravel() - step * e)) / (2 * step)
        for e in np.eye(image.size)
    ]
    return np.array(columns).T


def root_gram(measure, image):
    weights = np.asarray(information.root_weights(measure(image))).ravel()
    return information.gram_matrix(
        np.asarray(information.intensity_jacobian(measure, image)), weights
    )


@pytest.mark.parametrize("kind", ["phase", "amplitude", "complex"])
@pytest.mark.parametrize(("k", "oversample"), [(1, 1), (1, 2), (3, 1)])
def test_singular_values_equal_those_of_central_differences(kind, k, oversample):
    measure, phases = make_measure(k, kind, oversample)
    image = draw_image(kind)
    free = information.global_phase_direction(image.shape, kind)
    values = information.singular_values(root_gram(measure, image), free)
    dense = oracle_jacobian(np.asarray(image), phases, kind, oversample)
    expected = np.linalg.svd(dense, compute_uv=False)
    if min(dense.shape) < image.size:  # fewer equations than unknowns
        expected = np.append(expected, np.zeros(image.size - min(dense.shape)))
    if free is not None:
        np.testing.assert_allclose(dense @ free, 0, atol=1e-7)
        expected = expected[:-1]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_phase_scenes_reach_the_largest_possible_singular_value_only_by_design():
    """At most phase_range sqrt(k), reached by what changes moduli alone."""
    measure, _ = make_measure(3)
    image = draw_image()
    values = information.singular_values(
        root_gram(measure, image), information.global_phase_direction(image.shape, "phase")
    )
    assert 0.5 * 2 * np.sqrt(3) < values[0] <= 2 * np.sqrt(3) * (1 + 1e-12)


def test_a_shot_that_shows_nothing_of_a_direction_is_seen_as_singular():
    """One shot of a complex object: 30 equations, 60 unknowns."""
    measure, _ = make_measure(1, "complex")
    image = draw_image("complex")
    free = information.global_phase_direction(image.shape, "complex")
    gram = root_gram(measure, image)
    values = information.singular_values(gram, free)
    assert np.sum(values < 1e-6 * values[0]) == image.size - H * W - 1
    assert np.all(np.isinf(information.cramer_rao(gram, free)))


def test_products_equal_the_matrix_and_extremes_the_spectrum():
    measure, _ = make_measure(4)
    image = draw_image()
    free = information.global_phase_direction(image.shape, "phase")
    weights = information.root_weights(measure(image))
    gram = root_gram(measure, image)

    def product(vector):
        return np.asarray(information.gram_product(measure, image, weights, jnp.asarray(vector)))

    vector = RNG.normal(size=image.size)
    np.testing.assert_allclose(product(vector), gram @ vector, rtol=1e-9)
    values = information.singular_values(gram, free)
    largest, smallest = information.extreme_singular_values(product, image.size, free, rounds=30)
    np.testing.assert_allclose(largest, values[0], rtol=1e-4)
    np.testing.assert_allclose(smallest, values[-1], rtol=1e-3)


def test_few_rounds_leave_the_smallest_singular_value_too_large_never_too_small():
    values = np.geomspace(1e-6, 1, 40)
    _, smallest = information.extreme_singular_values(
        lambda v: values * v, 40, None, rounds=1, steps=3
    )
    assert smallest >= 1e-3


@pytest.mark.parametrize("read_noise", [0.0, 3.0])
def test_fisher_information_of_counts(read_noise):
    """sum_i (dn_i / dx)^2 / (n_i + sigma^2) with n_i the counts, each frame apart."""
    measure, _ = make_measure(2, "amplitude")
    image, photons = draw_image("amplitude"), 5e3
    y = np.asarray(measure(image))
    jacobian = np.asarray(information.intensity_jacobian(measure, image))
    weights = information.fisher_weights(jnp.asarray(y), photons=photons, read_noise=read_noise)
    actual = information.gram_matrix(jacobian, np.asarray(weights).ravel())
    scale = np.repeat(photons / y.sum(axis=(1, 2)), H * W)
    counts_jacobian = scale[:, None] * jacobian
    expected = sum(
        np.outer(row, row) / (n + read_noise**2)
        for row, n in zip(counts_jacobian, scale * y.ravel(), strict=True)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_bounds_of_independent_poisson_pixels_in_closed_form():
    """y = x directly: n = N x / sum(x), so the variance of each x is n (sum(x) / N)^2."""
    image, photons = draw_image(), 1e4
    y = image[..., 0][None]
    jacobian = np.asarray(information.intensity_jacobian(lambda x: x[..., 0][None], image))
    weights = information.fisher_weights(y, photons=photons)
    found = information.gram_matrix(jacobian, np.asarray(weights).ravel())
    total, x = float(y.sum()), np.asarray(y).ravel()
    np.testing.assert_allclose(information.cramer_rao(found, None), x * total / photons, rtol=1e-9)
    prior = 0.1**2
    expected = 1 / (photons / (x * total) + 1 / prior)
    bound = information.bayesian_bound(found, np.eye(len(x)) / prior, None)
    np.testing.assert_allclose(bound, expected, rtol=1e-9)


def test_the_bound_without_the_global_phase_is_the_pseudo_inverse():
    measure, _ = make_measure(4)
    image = draw_image()
    gram = root_gram(measure, image)
    free = information.global_phase_direction(image.shape, "phase")
    expected = np.diag(np.linalg.pinv(gram, rcond=1e-10, hermitian=True))
    np.testing.assert_allclose(information.cramer_rao(gram, free), expected, rtol=1e-6)


def test_no_photons_leave_the_prior_and_many_the_cramer_rao_bound():
    measure, _ = make_measure(4, "amplitude")
    image = draw_image("amplitude")
    gram = root_gram(measure, image)
    precision = np.diag(RNG.uniform(1, 3, image.size))
    little = information.bayesian_bound(1e-12 * gram, precision, None)
    np.testing.assert_allclose(little, 1 / np.diag(precision), rtol=1e-6)
    much = information.bayesian_bound(1e8 * gram, precision, None)
    np.testing.assert_allclose(much, information.cramer_rao(1e8 * gram, None), rtol=1e-4)


def test_a_prior_only_helps_and_does_not_count_the_global_phase():
    """diag(Q (F + P)^-1 Q), which is below the Cramer-Rao bound in every pixel."""
    measure, _ = make_measure(4)
    image = draw_image()
    gram = root_gram(measure, image)
    free = information.global_phase_direction(image.shape, "phase")
    precision = np.diag(RNG.uniform(1, 3, image.size))
    q = np.eye(image.size) - np.outer(free, free)
    bound = information.bayesian_bound(gram, precision, free)
    expected = np.diag(q @ np.linalg.inv(gram + precision) @ q)
    np.testing.assert_allclose(bound, expected, rtol=1e-9)
    assert np.all(bound < information.cramer_rao(gram, free))


def test_probed_traces_equal_the_matrices_bounds_within_their_error():
    measure, _ = make_measure(4)
    image, unknowns = draw_image(), H * W
    free = information.global_phase_direction(image.shape, "phase")
    weights = information.fisher_weights(measure(image), photons=1e4)
    jacobian = np.asarray(information.intensity_jacobian(measure, image))
    matrix = information.gram_matrix(jacobian, np.asarray(weights).ravel())
    mean, error = information.probed_cramer_rao(lambda v: matrix @ v, unknowns, free, probes=400)
    expected = np.mean(information.cramer_rao(matrix, free))
    assert 0 < error < 0.1 * expected and abs(mean - expected) < 4 * error
    prior = priors.fit_prior(oracles.smooth_images(RNG, 200, H, W, 1.0))
    mean, error = information.probed_bayesian_bound(
        lambda v: matrix @ v,
        lambda v: priors.covariance_root(prior, v[:, None])[:, 0],
        unknowns,
        free,
        probes=400,
    )
    expected = np.mean(information.bayesian_bound(matrix, priors.precision(prior), free))
    assert 0 < error < 0.1 * expected and abs(mean - expected) < 4 * error


def test_maximum_likelihood_reaches_the_bound_where_there_is_much_light():
    """Four shots, 1e6 photons each: started at the truth, over 60 draws of the noise."""
    measure, _ = make_measure(4)
    image, photons = draw_image(), 1e6
    y = measure(image)
    free = information.global_phase_direction(image.shape, "phase")
    jacobian = np.asarray(information.intensity_jacobian(measure, image))
    weights = np.asarray(information.fisher_weights(y, photons=photons)).ravel()
    bound = np.mean(information.cramer_rao(information.gram_matrix(jacobian, weights), free))
    scale = photons / (H * W)

    @jax.jit
    @jax.value_and_grad
    def unlikelihood(flat, counts):
        expected = scale * measure(flat.reshape(image.shape))
        return jnp.mean(expected - counts * jnp.log(expected))

    truth, errors = np.asarray(image).ravel(), []
    for seed in range(60):
        counts = np.random.default_rng(seed).poisson(scale * np.asarray(y)).astype(float)
        fit = minimize(
            lambda flat, n=counts: [np.asarray(v, float) for v in unlikelihood(flat, n)],
            truth,
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
        )
        off = fit.x - truth
        errors.append(np.mean((off - (free @ off) * free) ** 2))
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


def test_fewer_images_than_pixels_give_the_same_covariance():
    images = RNG.uniform(size=(6, 4, 5))
    prior = priors.fit_prior(images)
    assert len(prior.variances) == 5
    actual = (prior.components * prior.variances) @ prior.components.T
    np.testing.assert_allclose(actual, np.cov(images.reshape(6, -1), rowvar=False), atol=1e-10)


def test_the_distance_to_the_subspace_is_what_least_squares_leaves():
    images = RNG.uniform(size=(6, 4, 5))
    prior = priors.fit_prior(images, share=0.8)
    queries = RNG.uniform(size=(3, 4, 5, 2))
    actual = priors.subspace_distance(
        jnp.asarray(prior.mean), jnp.asarray(prior.subspace), jnp.asarray(queries)
    )
    for query, distance in zip(queries, actual, strict=True):
        left = []
        for channel in (0, 1):
            off = query[..., channel].ravel() - prior.mean
            fitted = prior.subspace @ np.linalg.lstsq(prior.subspace, off, rcond=None)[0]
            left.append(off - fitted)
        np.testing.assert_allclose(distance, np.sqrt(np.mean(np.square(left))))
