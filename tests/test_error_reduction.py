"""Error reduction: what it allows of an object, and its place between estimate and network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics, measure_intensity
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.recovery.batched_solvers import make_solve
from jax_kdpr.recovery.data_consistency import error_reduction, object_constraint
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.refinement import Refinement, make_refine
from jax_kdpr.recovery.spectral import SpectralOptions
from jax_kdpr.recovery.system import System, network_input

RNG = np.random.default_rng(0)


def system_of(kind: str = "phase", *, consistency_steps: int = 0, refine_steps: int = 0):
    """A small system with its start, and four scenes of it."""
    system = System(
        Camera(size=16, scene=SceneOptions(kind=kind)),
        spectral=SpectralOptions(iterations=5, consistency_steps=consistency_steps),
        net=NetOptions(widths=(8, 16), refine_steps=refine_steps),
    )
    images = jnp.asarray(RNG.uniform(size=(4, 16, 16, system.camera.channels)), jnp.float32)
    return system, *jax.jit(system.init)(jax.random.key(0)), images


def test_the_allowed_object_is_the_nearest():
    field = jnp.asarray(np.array([[2.0 + 1j, -0.5 + 1j], [1.0 - 2j, 0.5]], np.complex64) * 1j)
    mean = np.mean(np.asarray(field))
    turned = np.asarray(field) * np.conj(mean) / np.abs(mean)  # its mean is real and positive
    expected = np.maximum(turned.real, 0)
    np.testing.assert_allclose(object_constraint(field, scene="amplitude"), expected, atol=1e-6)
    np.testing.assert_allclose(
        object_constraint(field, scene="phase"), field / np.abs(field), atol=1e-6
    )
    field = jnp.asarray(np.array([[0.1j, -0.7, 3.0]], np.complex64))
    actual = object_constraint(field, scene="complex", min_amplitude=0.5)
    np.testing.assert_allclose(actual, [[0.5j, -0.7, 1.0]], atol=1e-6)
    with pytest.raises(ValueError, match="scene: expected phase, amplitude or complex"):
        object_constraint(field, scene="grey")


def test_dark_and_negative_pixels_have_finite_gradients():
    @jax.grad
    def gradient(arrays):
        y, masks, field = arrays
        optics, scene = Optics(masks), SceneOptions(kind="phase")
        return jnp.sum(error_reduction(field + 0j, y, optics, steps=2, scene=scene).real)

    masks, dark = init_phases(jax.random.key(0), snapshots=1, height=6, width=5), jnp.zeros((6, 5))
    for level in (0.0, -0.1):
        found = gradient((jnp.full(masks.shape, level), masks, dark))
        assert all(np.all(np.isfinite(leaf)) for leaf in found)


def test_a_system_takes_its_steps_between_estimate_and_network():
    """From one shot through a random mask, ten steps bring the estimate closer to the data."""
    distances = []
    for steps in (0, 10):
        system, params, state, images = system_of(consistency_steps=steps)
        output, _ = jax.jit(system.apply)(params, state, images, jax.random.key(1))
        again = jax.vmap(lambda z, p=params: measure_intensity(z, p["phases"]))(output.estimate)
        distances.append(float(jnp.mean(jnp.abs(jnp.sqrt(again) - jnp.sqrt(output.intensity)))))
    np.testing.assert_allclose(jnp.abs(output.estimate), 1.0, atol=1e-5)
    assert distances[1] < 0.5 * distances[0]


def test_a_gate_goes_from_the_networks_image_to_what_the_solver_makes_of_it():
    system, params, state, images = system_of("complex", refine_steps=7)
    camera = system.camera
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


def test_a_gated_system_has_finite_gradients_and_learns_its_gate():
    system, params, state, images = system_of("amplitude", refine_steps=2)
    images = jnp.zeros_like(images)  # nothing at all, of which there is no phase

    @jax.jit
    @jax.grad
    def gradient(params):
        output, _ = system.apply(params, state, images, jax.random.key(1), train=True)
        return jnp.mean(jnp.square(output.image - images))

    found = gradient(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert np.abs(found["net"]["head"]["bias"][-1]) > 1e-7


@pytest.mark.parametrize("turns", [0.5, 1.5])
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
