"""Error reduction against the projections written out with dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import ndimage

from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.recovery.data_consistency import error_reduction, object_constraint
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.refinement import Refinement, make_refine, make_solve
from jax_kdpr.recovery.spectral import SpectralOptions
from jax_kdpr.recovery.system import System, network_input

RNG = np.random.default_rng(0)
SHAPE = (6, 5)


def scene(kind: str) -> jax.Array:
    modulus, angle = RNG.uniform(0.5, 1, SHAPE), RNG.uniform(0, np.pi, SHAPE)
    if kind == "phase":
        modulus = np.ones(SHAPE)
    if kind == "amplitude":
        angle = np.zeros(SHAPE)
    return jnp.asarray(modulus * np.exp(1j * angle))


def phases(k: int) -> jax.Array:
    return jnp.asarray(RNG.uniform(0, 2 * np.pi, (k, *SHAPE)))


def noise_field() -> jax.Array:
    return jnp.asarray(RNG.normal(size=SHAPE) + 1j * RNG.normal(size=SHAPE))


def oracle_step(z: np.ndarray, y: np.ndarray, masks: np.ndarray, oversample: int) -> np.ndarray:
    """Nearest field to the measured moduli in the least-squares sense, then modulus 1."""
    matrix = oracles.cdp_matrix(masks, oversample)
    spectra = matrix @ z.ravel()
    spectra = np.sqrt(y.ravel()) * spectra / np.abs(spectra)
    back = np.linalg.lstsq(matrix, spectra, rcond=None)[0].reshape(z.shape)
    return back / np.abs(back)


@pytest.mark.parametrize("oversample", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_steps_equal_the_projections_of_dense_matrices(k, oversample):
    x, masks, z = scene("phase"), phases(k), noise_field()
    y = measure_intensity(x, masks, oversample=oversample)
    expected = np.asarray(z)
    for _ in range(3):
        expected = oracle_step(expected, np.asarray(y), np.asarray(masks), oversample)
    actual = error_reduction(z, y, Optics(masks), steps=3, scene=SceneOptions(kind="phase"))
    np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_no_steps_change_nothing():
    z, y = noise_field(), jnp.ones((1, *SHAPE))
    actual = error_reduction(z, y, Optics(phases(1)), steps=0, scene=SceneOptions(kind="phase"))
    np.testing.assert_array_equal(actual, z)


@pytest.mark.parametrize("kind", ["phase", "amplitude", "complex"])
def test_the_true_object_stays(kind):
    x, masks = scene(kind), phases(2)
    y = measure_intensity(x, masks)
    actual = error_reduction(x, y, Optics(masks), steps=5, scene=SceneOptions(kind=kind))
    np.testing.assert_allclose(actual, x, atol=1e-4)


@pytest.mark.parametrize("kind", ["phase", "complex"])
def test_the_distance_to_the_data_never_grows(kind):
    masks, z = phases(1), noise_field()
    y = measure_intensity(scene(kind), masks)
    z = object_constraint(z, scene=kind)
    distances = []
    for _ in range(20):
        modulus = jnp.sqrt(measure_intensity(z, masks))
        distances.append(float(jnp.linalg.norm(modulus - jnp.sqrt(y))))
        z = error_reduction(z, y, Optics(masks), steps=1, scene=SceneOptions(kind=kind))
    assert np.all(np.diff(distances) < 1e-5)
    assert distances[-1] < 0.7 * distances[0]


def test_a_global_phase_of_the_start_is_kept():
    x, masks, z = scene("phase"), phases(2), noise_field()
    y = measure_intensity(x, masks)

    def refined(start):
        return np.asarray(
            error_reduction(start, y, Optics(masks), steps=4, scene=SceneOptions(kind="phase"))
        )

    np.testing.assert_allclose(refined(1j * z), 1j * refined(z), atol=1e-5)


def test_an_amplitude_is_what_is_nearest_of_the_real_and_not_negative():
    field = jnp.asarray(np.array([[2.0 + 1j, -0.5 + 1j], [1.0 - 2j, 0.5]], np.complex64) * 1j)
    mean = np.mean(np.asarray(field))
    turned = np.asarray(field) * np.conj(mean) / np.abs(mean)
    expected = np.maximum(turned.real, 0)
    np.testing.assert_allclose(object_constraint(field, scene="amplitude"), expected, atol=1e-6)


def test_a_complex_object_keeps_its_amplitude_within_bounds():
    field = jnp.asarray(np.array([[0.1j, -0.7, 3.0]], np.complex64))
    actual = object_constraint(field, scene="complex", min_amplitude=0.5)
    np.testing.assert_allclose(actual, [[0.5j, -0.7, 1.0]], atol=1e-6)


def test_unknown_scene_raises():
    with pytest.raises(ValueError, match="scene: expected phase, amplitude or complex"):
        object_constraint(jnp.ones((2, 2), complex), scene="grey")


def test_gradient_by_the_masks_equals_finite_differences(x64):
    x, z, masks = scene("phase"), noise_field(), phases(1)
    direction = RNG.normal(size=(1, *SHAPE))

    def loss(masks):
        y = measure_intensity(x, masks)
        end = error_reduction(z, y, Optics(masks), steps=3, scene=SceneOptions(kind="phase"))
        return jnp.sum(jnp.square((end - x).real)) + jnp.sum(end.imag * x.real)

    slope = jnp.sum(jax.grad(loss)(masks) * direction)
    step = 1e-5
    numeric = (loss(masks + step * direction) - loss(masks - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)


@pytest.mark.parametrize("dark", [0.0, -0.1])
def test_dark_and_negative_pixels_have_finite_gradients(dark):
    y = jnp.full((1, *SHAPE), dark)

    def loss(y, masks):
        end = error_reduction(
            jnp.zeros(SHAPE, complex), y, Optics(masks), steps=2, scene=SceneOptions(kind="phase")
        )
        return jnp.sum(end.real)

    for gradient in jax.grad(loss, argnums=(0, 1))(y, phases(1)):
        assert np.all(np.isfinite(gradient))


def test_a_system_takes_its_steps_between_estimate_and_network():
    """From one shot through a random mask, ten steps bring the estimate closer to the data."""
    images = jnp.asarray(RNG.uniform(size=(4, 16, 16, 1)), jnp.float32)
    distances = []
    for steps in (0, 10):
        system = System(
            Camera(size=16),
            spectral=SpectralOptions(iterations=5, consistency_steps=steps),
            net=NetOptions(widths=(8, 16)),
        )
        params, state = system.init(jax.random.key(0))
        output, _ = jax.jit(system.apply)(params, state, images, jax.random.key(1))
        again = jax.vmap(lambda z, p=params: measure_intensity(z, p["phases"]))(output.estimate)
        distances.append(float(jnp.mean(jnp.abs(jnp.sqrt(again) - jnp.sqrt(output.intensity)))))
        if steps:
            np.testing.assert_allclose(jnp.abs(output.estimate), 1.0, atol=1e-5)
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("kind", ["phase", "complex"])
def test_a_gate_goes_from_the_networks_image_to_what_the_solver_makes_of_it(kind):
    camera = Camera(size=16, scene=SceneOptions(kind=kind))
    system = System(
        camera,
        spectral=SpectralOptions(iterations=5),
        net=NetOptions(widths=(8, 16), refine_steps=7),
    )
    params, state = system.init(jax.random.key(0))
    images = jnp.asarray(RNG.uniform(size=(4, 16, 16, camera.channels)), jnp.float32)
    intensity = system.measure(params, images, jax.random.key(1))

    @jax.jit
    def recover(gate_bias):
        bias = params["net"]["head"]["bias"].at[-1].set(gate_bias)
        net = {**params["net"], "head": {**params["net"]["head"], "bias": bias}}
        return system.recover({**params, "net": net}, state, intensity)[0]

    shut, half, open_ = (recover(bias) for bias in (-100.0, 0.0, 100.0))
    inputs = network_input(shut.estimate)
    (network, _, gate), _ = system.run_net(params, state, inputs)
    np.testing.assert_allclose(shut.image, network, atol=1e-6)
    fields = camera.encode(network)
    solved = make_solve(camera, solver="error_reduction", steps=7)
    answer = solved(camera.optics(params["phases"]), fields, intensity, network).image
    np.testing.assert_allclose(open_.image, answer, atol=1e-4)
    assert np.max(np.abs(answer - network)) > 0.05
    np.testing.assert_allclose(half.image, network + gate * (answer - network), atol=1e-4)


@pytest.mark.parametrize("kind", ["phase", "amplitude"])
def test_a_gated_system_has_finite_gradients_and_learns_its_gate(kind):
    camera = Camera(size=16, scene=SceneOptions(kind=kind))
    system = System(
        camera,
        spectral=SpectralOptions(iterations=2),
        net=NetOptions(widths=(8, 16), refine_steps=2),
    )
    params, state = system.init(jax.random.key(0))
    images = jnp.zeros((4, 16, 16, camera.channels))  # an amplitude scene of nothing at all

    @jax.jit
    @jax.grad
    def gradient(params):
        output, _ = system.apply(params, state, images, jax.random.key(1), train=True)
        return jnp.mean(jnp.square(output.image - images))

    found = gradient(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert np.abs(found["net"]["head"]["bias"][-1]) > 1e-7


@pytest.mark.parametrize("turns", [0.5, 1.0, 1.5])
def test_refining_gains_as_much_at_ranges_of_a_turn_and_more(turns):
    """Dark background at 0.02, phases up to 3 pi: read on a branch of its own it lost 25 dB."""
    options = {"kind": "phase", "phase_range": 2 * np.pi * turns}
    camera = Camera(size=32, scene=SceneOptions(**options))
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(4, 32, 32)), (0, 3, 3))
    images = jnp.asarray(0.02 + np.clip(4 * smooth, 0, 0.96), jnp.float32)[..., None]
    error = 0.3 / options["phase_range"] * jax.random.normal(jax.random.key(0), images.shape)
    start = jnp.clip(images + error, 0.0, 1.0)
    optics = camera.optics(init_phases(jax.random.key(1), snapshots=1, height=32, width=32))
    y = camera.measure(optics, images, jax.random.key(2))
    refined = make_refine(camera, Refinement(30))(optics, start, y)
    before, after = (float(jnp.mean(jnp.square(each - images))) for each in (start, refined))
    assert after < before / 3
