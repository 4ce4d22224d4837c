"""The CDP operator against dense matrices, and the symmetries of its intensities."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import oracles
import pytest

from jax_kdpr.optics.cdp import (
    cdp_adjoint,
    cdp_forward,
    mask_transmittance,
    measure_intensity,
    sensor_oversample,
)

H, W = 6, 5


@pytest.fixture(params=["float32", "float64"])
def precision(request) -> float:
    """Relative tolerance; the test runs once in each precision."""
    if request.param == "float64":
        request.getfixturevalue("x64")
        return 1e-12
    return 1e-5


@pytest.fixture
def unchecked():
    """Run time without jaxtyping's checks, which would see a wrong shape before the code does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def draw(k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return oracles.random_complex(rng, (H, W)), rng.uniform(-1, 8, (k, H, W))


def relative_error(actual, expected) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


def intensity_of(field, phases, oversample: int = 1) -> np.ndarray:
    return np.asarray(
        measure_intensity(jnp.asarray(field), jnp.asarray(phases), oversample=oversample)
    )


def reversed_circular(x: np.ndarray) -> np.ndarray:
    """x(-r): index 0 stays in place."""
    return np.roll(x[..., ::-1, ::-1], (1, 1), axis=(-2, -1))


every_geometry = pytest.mark.parametrize(
    ("k", "oversample"), [(1, 1), (3, 1), (1, 2), (3, 2)], ids=lambda value: str(value)
)


@every_geometry
def test_forward_and_intensity_equal_the_dense_matrix(k, oversample, precision):
    field, phases = draw(k)
    x, phi = jnp.asarray(field), jnp.asarray(phases)
    spectra = cdp_forward(x, phi, oversample=oversample)
    y = measure_intensity(x, phi, oversample=oversample)
    assert relative_error(spectra, oracles.forward(field, phases, oversample)) < precision
    assert relative_error(y, oracles.intensity(field, phases, oversample)) < precision
    assert y.min() >= 0


@every_geometry
def test_adjoint_equals_the_dense_matrix(k, oversample, precision):
    _, phases = draw(k)
    spectra = oracles.random_complex(np.random.default_rng(1), (k, oversample * H, oversample * W))
    field = cdp_adjoint(jnp.asarray(spectra), jnp.asarray(phases))
    assert relative_error(field, oracles.adjoint(spectra, phases, oversample)) < precision


@every_geometry
def test_dot_products_agree_across_the_adjoint(k, oversample, precision):
    field, phases = draw(k)
    x, phi = jnp.asarray(field), jnp.asarray(phases)
    s = jnp.asarray(
        oracles.random_complex(np.random.default_rng(1), (k, oversample * H, oversample * W))
    )
    forward = cdp_forward(x, phi, oversample=oversample)
    left = jnp.vdot(forward, s)
    right = jnp.vdot(x, cdp_adjoint(s, phi))
    assert abs(left - right) < precision * jnp.linalg.norm(forward) * jnp.linalg.norm(s)


@every_geometry
def test_adjoint_of_forward_is_k_times_the_identity(k, oversample, precision):
    field, phases = draw(k)
    phi = jnp.asarray(phases)
    back = cdp_adjoint(cdp_forward(jnp.asarray(field), phi, oversample=oversample), phi)
    assert relative_error(back, k * field) < precision


@every_geometry
def test_every_snapshot_keeps_the_energy(k, oversample, precision):
    field, phases = draw(k)
    energies = intensity_of(field, phases, oversample).sum(axis=(1, 2))
    np.testing.assert_allclose(energies, np.linalg.norm(field) ** 2, rtol=precision)


@every_geometry
def test_intensity_is_blind_to_the_global_phase_and_to_whole_turns(k, oversample, precision):
    field, phases = draw(k)
    y = intensity_of(field, phases, oversample)
    assert relative_error(intensity_of(np.exp(0.7j) * field, phases, oversample), y) < precision
    turned = intensity_of(field, phases + 2 * np.pi, oversample)
    assert relative_error(turned, y) < 5 * precision  # float32 rounds phases + 2 pi
    assert relative_error(intensity_of(field, phases + 0.3, oversample), y) < precision


def test_mask_transmittance_has_modulus_one_and_the_phase_of_the_mask():
    _, phases = draw(3)
    transmittance = mask_transmittance(jnp.asarray(phases))
    np.testing.assert_allclose(transmittance, np.exp(1j * phases), atol=1e-6)


def test_object_equal_to_the_mask_gives_one_spike_at_zero_frequency():
    _, phases = draw(1)
    y = intensity_of(np.exp(1j * phases[0]), phases)
    expected = np.zeros((1, H, W))
    expected[0, 0, 0] = H * W
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("u, v", [(1, 0), (0, 2), (5, 3)])
def test_linear_phase_moves_the_spike_by_whole_pixels(u, v):
    _, phases = draw(1)
    rows, columns = np.mgrid[:H, :W]
    wave = np.exp(2j * np.pi * (u * rows / H + v * columns / W))
    y = intensity_of(np.exp(1j * phases[0]) * wave, phases)
    expected = np.zeros((1, H, W))
    expected[0, u, v] = H * W
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_point_object_gives_a_uniform_intensity():
    _, phases = draw(3)
    point = np.zeros((H, W), complex)
    point[2, 3] = 2.0
    np.testing.assert_allclose(intensity_of(point, phases), 4.0 / (H * W), rtol=1e-5)


def ambiguous_fields(phase: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    """Other unit-modulus objects of the same single-shot CDP through the mask e^{j phase}."""
    d = np.exp(1j * phase)
    shifted = {
        f"shift {s}": d * np.conj(np.roll(d, s, (0, 1))) * np.roll(x, s, (0, 1))
        for s in [(1, 0), (0, 2), (3, 4)]
    }
    return {"twin": d * reversed_circular(d) * np.conj(reversed_circular(x)), **shifted}


@pytest.mark.parametrize("name", ["twin", "shift (1, 0)", "shift (0, 2)", "shift (3, 4)"])
def test_single_shot_ambiguities_are_exact_at_one_snapshot_and_gone_at_three(name, x64):
    angles, phases = draw(3)
    x = np.exp(1j * angles.real)
    other = ambiguous_fields(phases[0], x)[name]
    assert oracles.correlation(x, other) < 0.9  # not x itself in disguise

    one = phases[:1]
    assert relative_error(intensity_of(other, one), intensity_of(x, one)) < 1e-12
    assert relative_error(intensity_of(other, phases), intensity_of(x, phases)) > 0.1
    assert relative_error(intensity_of(other, one, 2), intensity_of(x, one, 2)) > 0.1


def test_zero_padding_leaves_the_twin_about_the_centre_of_the_object(x64):
    angles, phases = draw(1)
    x, d = np.exp(1j * angles.real), np.exp(1j * phases[0])
    twin = d * d[::-1, ::-1] * np.conj(x[::-1, ::-1])
    assert relative_error(intensity_of(twin, phases, 2), intensity_of(x, phases, 2)) < 1e-12


def test_batch_equals_the_loop_over_its_members_in_any_order():
    rng = np.random.default_rng(2)
    fields = jnp.asarray(oracles.random_complex(rng, (4, H, W)))
    phases = jnp.asarray(draw(3)[1])
    batched = jax.vmap(measure_intensity, in_axes=(0, None))
    loop = [measure_intensity(field, phases) for field in fields]
    np.testing.assert_allclose(batched(fields, phases), np.stack(loop), rtol=1e-5, atol=1e-6)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(batched(fields[order], phases), batched(fields, phases)[order])


def test_intensity_has_a_finite_gradient_where_the_field_is_zero():
    phases = jnp.asarray(draw(3)[1])
    dark = jnp.zeros((H, W), phases.dtype) + 0j
    gradient = jax.grad(lambda p: jnp.sum(measure_intensity(dark, p)))(phases)
    np.testing.assert_array_equal(gradient, 0.0)


def test_masks_of_another_size_raise(unchecked):
    field, phases = draw(3)
    with pytest.raises(ValueError, match=r"masks: expected .*\(6, 5\).* got \(6, 4\)"):
        cdp_forward(jnp.asarray(field), jnp.asarray(phases[:, :, :4]))


@pytest.mark.parametrize("oversample", [0, 3])
def test_other_oversampling_raises(oversample):
    field, phases = draw(1)
    with pytest.raises(ValueError, match=f"oversample: expected 1 or 2, got {oversample}"):
        cdp_forward(jnp.asarray(field), jnp.asarray(phases), oversample=oversample)


@pytest.mark.parametrize("shape", [(3, H, W + 1), (3, 3 * H, 3 * W), (3, 2 * H, W), (2, H, W)])
def test_sensor_arrays_of_another_shape_raise(shape, unchecked):
    phases = jnp.asarray(draw(3)[1])
    with pytest.raises(ValueError, match="sensor arrays: expected"):
        cdp_adjoint(jnp.zeros(shape) + 0j, phases)


def test_oversampling_is_read_off_the_shapes():
    assert sensor_oversample((3, 6, 5), (3, 6, 5)) == 1
    assert sensor_oversample((3, 12, 10), (3, 6, 5)) == 2
