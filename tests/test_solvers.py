"""Classical solvers: single steps against dense matrices, and what they are known to recover."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import free_space

from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.recovery import solvers
from jax_kdpr.recovery.data_consistency import error_reduction
from jax_kdpr.recovery.gradient_flows import smooth_total_variation
from jax_kdpr.recovery.projections import Settings, project_object
from jax_kdpr.recovery.solvers import SOLVERS, amplitude_misfit, random_start
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init

SHAPE = (6, 5)
LENGTHS = {"wavelength": 0.5e-6, "pitch": 8e-6, "distance": 2e-3}


def solve(y, masks, start, *, path=None, beta=0.9, tv=0.0, **options):
    optics = Optics(jnp.asarray(masks), path)
    return solvers.solve(y, optics, start, settings=Settings(beta, tv), **options)


def complex_noise(rng, *shape: int) -> jax.Array:
    return jnp.asarray(oracles.random_complex(rng, shape) / np.sqrt(2))


def objects(rng, kind: str, *shape: int) -> jax.Array:
    modulus, angle = rng.uniform(0.5, 1, shape), rng.uniform(0, 2 * np.pi, shape)
    if kind == "none":
        return complex_noise(rng, *shape)
    if kind == "phase":
        modulus = np.ones(shape)
    if kind == "amplitude":
        angle = np.zeros(shape)
    return jnp.asarray(modulus * np.exp(1j * angle))


def phases(rng, *shape: int) -> jax.Array:
    return jnp.asarray(rng.uniform(0, 2 * np.pi, shape))


def posed(kind: str, k: int, *, seed: int, oversample: int = 1, shape=SHAPE):
    """(y, masks, start, x): CDPs of a random object, and a random field of its norm."""
    rng = np.random.default_rng(seed)
    x, masks, start = objects(rng, kind, *shape), phases(rng, k, *shape), complex_noise(rng, *shape)
    start = 0.9 * start * jnp.linalg.norm(x) / jnp.linalg.norm(start)
    return measure_intensity(x, masks, oversample=oversample), masks, start, x


def errors(found: jax.Array, truth: jax.Array) -> np.ndarray:
    """Relative error of each field [b h w] after the global phase that fits best."""
    return np.array(
        [
            np.linalg.norm(z * np.exp(1j * np.angle(np.vdot(z, x))) - x) / np.linalg.norm(x)
            for z, x in zip(np.asarray(found), np.asarray(truth), strict=True)
        ]
    )


def recover(rng, kind: str, k: int, *, scenes: int, spectral=False, oversample=1, **options):
    """Relative errors and misfits on random scenes of 16 x 16 pixels, each with its own masks."""
    x, masks = objects(rng, kind, scenes, 16, 16), phases(rng, scenes, k, 16, 16)
    path = options.get("path")
    first = complex_noise(rng, scenes, 16, 16)
    delta = jnp.asarray(oracles.delta_kernel(3))

    @jax.jit
    @jax.vmap
    def run(x, masks, start):
        y = measure_intensity(x, masks, oversample=oversample, path=path)
        if spectral:
            start, _ = filtered_spectral_init(
                y, Optics(masks), delta, start, SpectralOptions(iterations=100)
            )
        return solve(y, masks, start, scene=kind, **options)

    found, misfit_ = run(x, masks, first)
    return errors(found, x), np.asarray(misfit_)


@pytest.mark.parametrize(("scene", "oversample"), [("phase", 1), ("none", 2)])
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_steps_equal_those_of_the_papers_with_dense_matrices(x64, solver, scene, oversample):
    y, masks, start, _ = posed(scene, 3, seed=1, oversample=oversample)
    options = {"scene": scene, "steps": 3, "beta": 0.8, "tv": 0.05}
    actual, _ = solve(y, masks, start, solver=solver, **options)
    matrix = oracles.cdp_matrix(np.asarray(masks), oversample)
    expected = oracles.solver_steps(solver, matrix, np.asarray(y), np.asarray(start), **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["raar", "taf"])
def test_steps_in_the_near_field_equal_dense_matrices(x64, solver):
    _, masks, start, x = posed("complex", 2, seed=2)
    path = free_space(SHAPE, oversample=2, kind="angular_spectrum", **LENGTHS).transfer
    y = measure_intensity(x, masks, oversample=2, path=path)
    options = {"scene": "complex", "steps": 2}
    actual, _ = solve(y, masks, start, solver=solver, path=path, **options)
    matrix = oracles.space_matrix("angular_spectrum", np.asarray(masks), 2, **LENGTHS)
    expected = oracles.solver_steps(solver, matrix, np.asarray(y), np.asarray(start), **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scene", ["phase", "amplitude", "complex"])
def test_error_reduction_is_that_of_the_systems(scene):
    y, masks, start, _ = posed(scene, 2, seed=3)
    actual, _ = solve(y, masks, start, solver="error_reduction", steps=5, scene=scene)
    expected = error_reduction(start, y, Optics(masks), steps=5, scene=SceneOptions(kind=scene))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_a_generic_object_is_recovered_exactly_from_many_shots(x64, solver):
    steps = {"wirtinger": 1500, "hio": 1500}.get(solver, 400)
    found, misfits = recover(
        np.random.default_rng(0), "none", 10, scenes=2, solver=solver, steps=steps, spectral=True
    )
    assert np.all(found < 1e-6), found
    assert np.all(misfits < 1e-6)


@pytest.mark.parametrize(
    ("solver", "k", "oversample", "space", "recovered"),
    [
        ("raar", 3, 1, "far", True),
        ("taf", 3, 1, "far", False),  # a gradient needs more than that
        ("raar", 2, 2, "far", True),  # zero padding is as good as more shots
        ("raar", 3, 2, "angular_spectrum", True),
    ],
)
def test_a_phase_object_needs_fewer_shots(x64, solver, k, oversample, space, recovered):
    """Noise to start from will do."""
    path = free_space((16, 16), oversample=oversample, kind=space, **LENGTHS).transfer
    options = {"oversample": oversample, "path": path, "solver": solver, "steps": 400}
    found, _ = recover(np.random.default_rng(k), "phase", k, scenes=3, **options)
    assert np.all(found < 1e-6) if recovered else np.all(found > 0.1)


def test_generic_objects_need_about_four_shots():
    """2 n real unknowns and k n numbers: below 2 there are many answers, above 4 there is one."""
    few, many = (
        recover(np.random.default_rng(k), "none", k, scenes=6, solver="raar", steps=300)[0]
        for k in (2, 6)
    )
    assert np.all(few > 1e-2) and np.sum(many < 1e-2) >= 5


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_the_true_object_stays(x64, solver):
    y, masks, _, x = posed("amplitude", 2, seed=4)
    actual, misfit_ = solve(y, masks, x, solver=solver, steps=10, scene="amplitude")
    np.testing.assert_allclose(actual, x, atol=1e-6)
    assert misfit_ < 1e-6


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_dark_frames_have_finite_values_and_gradients(solver):
    masks, noise = phases(np.random.default_rng(7), 1, *SHAPE), posed("none", 1, seed=7)[2]

    @jax.jit
    @jax.value_and_grad
    def loss(arrays):
        y, masks, start = arrays
        field, misfit_ = solve(y, masks, start, solver=solver, steps=20, scene="none", tv=0.1)
        return jnp.sum(field.real) + misfit_

    for dark in (0.0, -0.1):
        for start in (jnp.zeros_like(noise), noise):
            value, gradients = loss((jnp.full((1, *SHAPE), dark), masks, start))
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("solver", ["raar", "accelerated"])
def test_gradient_by_the_masks_equals_finite_differences(x64, solver):
    _, masks, start, x = posed("phase", 1, seed=8)
    direction = np.random.default_rng(8).normal(size=masks.shape)

    @jax.jit
    @jax.value_and_grad
    def loss(masks):
        y = measure_intensity(x, masks)
        field, _ = solve(y, masks, start, solver=solver, steps=3, scene="phase", tv=0.02)
        return jnp.sum((field * jnp.conj(x)).real)

    slope = jnp.sum(loss(masks)[1] * direction)
    numeric = oracles.central_difference(
        lambda masks: loss(masks)[0], np.asarray(masks), direction, 1e-5
    )
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)


def test_nothing_is_left_outside_the_support(x64):
    """An object in a quarter of the window: two shots do, which without the support do not."""
    rng = np.random.default_rng(9)
    support = jnp.zeros((16, 16), bool).at[4:12, 4:12].set(True)
    x = jnp.where(support, objects(rng, "none", 16, 16), 0.0)
    masks, start = phases(rng, 2, 16, 16), complex_noise(rng, 16, 16)
    y = measure_intensity(x, masks)
    options = {"solver": "raar", "steps": 400, "scene": "none"}
    found, _ = solve(y, masks, start, support=support, **options)
    assert np.all(np.asarray(found)[~np.asarray(support)] == 0)
    assert errors(found[None], x[None])[0] < 1e-6
    assert errors(solve(y, masks, start, **options)[0][None], x[None])[0] > 0.1


def test_hio_with_a_support_is_that_of_fienup(x64):
    """Inside, what the measured modulus gives; outside, the old field less beta times that."""
    rng = np.random.default_rng(17)
    support = rng.uniform(size=SHAPE) < 0.6
    masks, start, beta = phases(rng, 1, *SHAPE), complex_noise(rng, *SHAPE), 0.7
    y = measure_intensity(jnp.where(support, objects(rng, "none", *SHAPE), 0.0), masks)
    matrix, z = oracles.cdp_matrix(np.asarray(masks)), np.asarray(start).ravel()
    modulus, inside = np.sqrt(np.asarray(y).ravel()), support.ravel()

    def given_back(z):
        return matrix.conj().T @ oracles.fitted(matrix @ z, modulus)

    for _ in range(3):
        z = np.where(inside, given_back(z), z - beta * given_back(z))
    options = {"solver": "hio", "steps": 3, "scene": "none", "beta": beta}
    actual, _ = solve(y, masks, start, support=jnp.asarray(support), **options)
    expected = np.where(inside, given_back(z), 0)
    np.testing.assert_allclose(actual.ravel(), expected, rtol=1e-6, atol=1e-8)


def test_an_amplitude_keeps_its_global_phase_when_projected(x64):
    rng = np.random.default_rng(10)
    values, turn = rng.normal(size=SHAPE) + 0.5, np.exp(0.7j)
    actual = project_object(jnp.asarray(turn * values), scene="amplitude")
    np.testing.assert_allclose(actual, turn * np.maximum(values, 0), atol=1e-9)


def test_the_misfit_is_the_relative_misfit_of_the_amplitudes():
    y, masks, other, x = posed("none", 2, seed=11, oversample=2)
    b, a = (np.sqrt(oracles.intensity(np.asarray(z), np.asarray(masks), 2)) for z in (x, other))
    misfit = lambda field, y: amplitude_misfit(field, y, Optics(masks))  # noqa: E731
    expected = np.linalg.norm(a - b) / np.linalg.norm(b)
    np.testing.assert_allclose(misfit(other, y), expected, rtol=1e-5)
    np.testing.assert_allclose(misfit(x, y), 0.0, atol=1e-5)
    np.testing.assert_allclose(misfit(x, 0 * y), np.linalg.norm(b), rtol=1e-5)


def test_history_is_the_misfit_after_each_step(x64):
    y, masks, start, _ = posed("phase", 2, seed=12)
    options = {"solver": "raar", "scene": "phase"}
    field, history = solve(y, masks, start, steps=3, history=True, **options)
    each = [solve(y, masks, start, steps=n, **options) for n in range(1, 4)]
    np.testing.assert_allclose(history, [misfit_ for _, misfit_ in each], rtol=1e-9)
    np.testing.assert_allclose(field, each[-1][0], atol=1e-10)


def test_total_variation_reaches_the_minimum_of_its_objective(x64):
    """The gap between the objective and its dual closes, which only happens at the minimum."""
    rng = np.random.default_rng(13)
    field, weight = complex_noise(rng, *SHAPE), 0.3
    dual = jnp.zeros((2, *SHAPE), complex)
    smooth, dual = smooth_total_variation(field, dual, weight=weight, steps=3000)
    f, x = np.asarray(field).ravel(), np.asarray(smooth).ravel()
    primal = 0.5 * np.linalg.norm(x - f) ** 2 + weight * oracles.total_variation(x, SHAPE)
    lowered = f - weight * oracles.difference_matrix(*SHAPE).T @ np.asarray(dual).ravel()
    bound = 0.5 * np.linalg.norm(f) ** 2 - 0.5 * np.linalg.norm(lowered) ** 2
    assert 0 <= primal - bound + 1e-9 < 1e-3 * primal
    assert oracles.total_variation(x, SHAPE) < 0.8 * oracles.total_variation(f, SHAPE)


def test_the_prior_helps_where_there_is_noise():
    """A phase object of two flat parts, on both sides of the angle's cut, from noisy CDPs."""
    rng = np.random.default_rng(14)
    x = np.full((16, 16), np.exp(3.1j))
    x[4:12, 4:12] = np.exp(-2.5j)
    masks, x = phases(rng, 4, 16, 16), jnp.asarray(x)
    clean = measure_intensity(x, masks)
    y = jnp.maximum(clean + 0.3 * jnp.asarray(rng.normal(size=clean.shape)), 0.0)

    def error(tv):
        found, _ = solve(y, masks, x, solver="accelerated", steps=100, scene="phase", tv=tv)
        return errors(found[None], x[None])[0]

    assert error(0.1) < 0.7 * error(0.0)


def test_wirtinger_flow_survives_a_bright_zero_order():
    rng = np.random.default_rng(15)
    masks, start = 0.1 * phases(rng, 1, 16, 16), complex_noise(rng, 16, 16)
    y = measure_intensity(jnp.exp(0.1j * phases(rng, 16, 16)), masks)
    assert jnp.max(y) > 100 * jnp.mean(y)
    options = {"solver": "wirtinger", "steps": 300, "scene": "none", "history": True}
    _, history = solve(y, masks, start, **options)
    assert np.all(np.diff(history) < 1e-3) and history[-1] < 0.5 * history[0]


def test_random_starts_have_the_norm_that_the_intensity_implies():
    y, masks, _, x = posed("none", 3, seed=16, oversample=2)
    one, other = (random_start(jax.random.key(seed), y, Optics(masks)) for seed in (0, 1))
    for start in (one, other):
        np.testing.assert_allclose(jnp.linalg.norm(start), jnp.linalg.norm(x), rtol=1e-5)
    assert abs(np.vdot(one, other)) < 0.8 * np.linalg.norm(x) ** 2


def test_less_than_one_step_raises():
    y, masks = jnp.ones((1, *SHAPE)), jnp.zeros((1, *SHAPE))
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        solve(y, masks, jnp.ones(SHAPE, complex), solver="raar", steps=0, scene="phase")
