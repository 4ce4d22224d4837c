"""The CDP operator against dense matrices, and the symmetries of its intensities."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import oracles
import pytest

from jax_kdpr.optics.cdp import cdp_adjoint, cdp_forward, measure_intensity

pytestmark = pytest.mark.gpu

H, W = 6, 5


@pytest.fixture(params=["float32", "float64"])
def precision(request) -> float:
    """Relative tolerance; the test runs once in each precision."""
    if request.param == "float64":
        request.getfixturevalue("x64")
        return 1e-12
    return 1e-5


def draw(k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return oracles.random_complex(rng, (H, W)), rng.uniform(-1, 8, (k, H, W))


def intensity_of(field, phases, oversample: int = 1) -> np.ndarray:
    return np.asarray(
        measure_intensity(jnp.asarray(field), jnp.asarray(phases), oversample=oversample)
    )


def reversed_circular(x: np.ndarray) -> np.ndarray:
    """x(-r): index 0 stays in place."""
    return np.roll(x[..., ::-1, ::-1], (1, 1), axis=(-2, -1))


@pytest.mark.parametrize(("k", "oversample"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_forward_intensity_and_adjoint_equal_the_dense_matrix(k, oversample, precision):
    field, phases = draw(k)
    spectra = oracles.random_complex(np.random.default_rng(1), (k, oversample * H, oversample * W))
    ahead = cdp_forward(jnp.asarray(field), jnp.asarray(phases), oversample=oversample)
    back = cdp_adjoint(jnp.asarray(spectra), jnp.asarray(phases))
    y = intensity_of(field, phases, oversample)
    for ours, theirs in (
        (ahead, oracles.forward(field, phases, oversample)),
        (back, oracles.adjoint(spectra, phases, oversample)),
        (y, oracles.intensity(field, phases, oversample)),
    ):
        assert oracles.relative_error(ours, theirs) < precision
    assert y.min() >= 0


@pytest.mark.parametrize("u, v", [(0, 0), (0, 2), (5, 3)])
def test_a_wave_that_undoes_the_mask_is_one_bright_pixel(u, v):
    _, phases = draw(1)
    rows, columns = np.mgrid[:H, :W]
    wave = np.exp(2j * np.pi * (u * rows / H + v * columns / W))
    y = intensity_of(np.exp(1j * phases[0]) * wave, phases)
    expected = np.zeros((1, H, W))
    expected[0, u, v] = H * W
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_single_shot_ambiguities_are_exact_at_one_snapshot_and_gone_at_three(x64):
    angles, phases = draw(3)
    x, d, one = np.exp(1j * angles.real), np.exp(1j * phases[0]), phases[:1]
    others = [d * reversed_circular(d) * np.conj(reversed_circular(x))]  # the twin
    for shift in ((1, 0), (0, 2), (3, 4)):
        others.append(d * np.conj(np.roll(d, shift, (0, 1))) * np.roll(x, shift, (0, 1)))
    apart = oracles.relative_error
    for other in others:
        assert oracles.correlation(x, other) < 0.9  # not x itself in disguise
        assert apart(intensity_of(other, one), intensity_of(x, one)) < 1e-12
        assert apart(intensity_of(other, phases), intensity_of(x, phases)) > 0.1
        assert apart(intensity_of(other, one, 2), intensity_of(x, one, 2)) > 0.1
    # Zero padding leaves the twin about the centre of the object.
    twin = d * d[::-1, ::-1] * np.conj(x[::-1, ::-1])
    assert apart(intensity_of(twin, one, 2), intensity_of(x, one, 2)) < 1e-12


def test_intensity_has_a_finite_gradient_where_the_field_is_zero():
    phases = jnp.asarray(draw(3)[1])
    dark = jnp.zeros((H, W), phases.dtype) + 0j
    gradient = jax.grad(lambda p: jnp.sum(measure_intensity(dark, p)))(phases)
    np.testing.assert_array_equal(gradient, 0.0)


def test_shapes_that_do_not_belong_together_raise(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    field, phases = (jnp.asarray(array) for array in draw(3))
    for shapes in (((H, W, 1), (2, H, W)), ((3, H, W), (2, H, W)), ((H, W), (H, W))):
        with pytest.raises(ValueError, match=r"one field \[h w\] and masks \[k h w\]"):
            cdp_forward(*map(jnp.ones, shapes))
    with pytest.raises(ValueError, match=r"masks: expected .*\(6, 5\).* got \(6, 4\)"):
        cdp_forward(field, phases[:, :, :4])
    for oversample in (0, 3):
        with pytest.raises(ValueError, match=f"oversample: expected 1 or 2, got {oversample}"):
            cdp_forward(field, phases, oversample=oversample)
    with pytest.raises(ValueError, match="path: expected the sensor's size"):
        cdp_forward(field, phases, oversample=2, path=jnp.ones((H, W)) + 0j)
    for shape in ((3, H, W + 1), (3, 3 * H, 3 * W), (3, 2 * H, W), (2, H, W)):
        with pytest.raises(ValueError, match="sensor arrays: expected"):
            cdp_adjoint(jnp.zeros(shape) + 0j, phases)
