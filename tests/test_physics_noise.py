"""Sensor noise: its level in every snapshot, its statistics and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.optics.noise import NOISES, NoiseOptions, add_noise, dark_counts

pytestmark = pytest.mark.gpu

CAMERA = {"photons": 2e5, "read_noise": 3.0, "dark": 20.0, "full_well": 1e5, "bits": 16}


def uneven_snapshots(k: int, size: int) -> np.ndarray:
    """Exponential speckle whose mean grows by a factor of 10 from snapshot to snapshot."""
    speckle = np.random.default_rng(0).exponential(size=(k, size, size))
    return np.float32(speckle * 10.0 ** np.arange(-2, k - 2).reshape(-1, 1, 1))


def noisy(y, seed: int = 1, **options) -> jax.Array:
    return add_noise(jax.random.key(seed), jnp.asarray(y, jnp.float32), NoiseOptions(**options))


def exposures(y: np.ndarray, draws: int, **options) -> np.ndarray:
    """Many draws [draws k h w] of one CDP, in electrons or photons."""
    keys = jax.random.split(jax.random.key(5), draws)
    shoot = jax.jit(jax.vmap(lambda key: add_noise(key, jnp.asarray(y), NoiseOptions(**options))))
    return np.asarray(shoot(keys), np.float64) * per_unit(y, options["photons"])


def per_unit(y: np.ndarray, photons: float) -> np.ndarray:
    """Photons that one unit of intensity stands for, snapshot by snapshot."""
    return photons / np.asarray(y, np.float64).sum(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(("k", "snr_db"), [(1, 30.0), (8, 10.0)])
def test_gaussian_noise_has_the_stated_snr_in_every_snapshot(k, snr_db):
    y = uneven_snapshots(k, 256)
    noise = np.asarray(noisy(y, kind="gaussian", snr_db=snr_db), np.float64) - y
    signal = np.mean(np.asarray(y, np.float64) ** 2, axis=(1, 2))
    measured = 10 * np.log10(signal / np.mean(noise**2, axis=(1, 2)))
    np.testing.assert_allclose(measured, snr_db, atol=0.1)
    assert np.all(abs(noise.mean(axis=(1, 2))) < 5 * noise.std(axis=(1, 2)) / 256)


def test_gaussian_noise_is_not_clipped_and_independent_between_snapshots():
    noise = np.asarray(noisy(np.ones((2, 128, 128)), kind="gaussian", snr_db=0.0) - 1)
    assert (noise < -1).mean() == pytest.approx(0.159, abs=0.01)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.04


def test_poisson_noise_has_the_mean_and_variance_of_photon_counts():
    y = np.array([[[1.0, 2.0, 5.0], [0.0, 12.0, 20.0]], [[100.0, 10.0, 30.0], [20.0, 0.0, 240.0]]])
    photons, draws = 200.0, 4000
    counts = exposures(y, draws, kind="poisson", photons=photons)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    expected = y * per_unit(y, photons)  # of the counts: mean and variance alike
    assert np.all(abs(counts.mean(axis=0) - expected) <= 5 * np.sqrt(expected / draws))
    np.testing.assert_allclose(counts.var(axis=0), expected, rtol=0.15)
    dark = noisy(np.zeros((2, 4, 4)), kind="poisson")
    np.testing.assert_array_equal(dark, 0.0)


@pytest.mark.parametrize("kind", list(NOISES))
def test_noise_depends_on_the_key_alone_and_gradients_pass_straight_through(kind):
    y, options = uneven_snapshots(2, 4), {"kind": kind, "full_well": 1e7}
    np.testing.assert_array_equal(noisy(y, 0, **options), noisy(y, 0, **options))
    assert np.array_equal(noisy(y, 0, **options), noisy(y, 1, **options)) == (kind == "none")
    probe = jnp.asarray(np.random.default_rng(3).normal(size=y.shape))
    gradient = jax.grad(lambda y: jnp.vdot(probe, noisy(y, **options)))(jnp.asarray(y))
    np.testing.assert_allclose(gradient, probe, rtol=1e-6)


def test_camera_frame_is_unbiased_and_its_noise_adds_up():
    y, draws = uneven_snapshots(2, 6), 4000
    electrons = y * per_unit(y, CAMERA["photons"])
    seen = exposures(y, draws, kind="camera", **CAMERA)
    step = (CAMERA["full_well"] + 5 * CAMERA["read_noise"]) / (2**16 - 1)
    variance = electrons + CAMERA["dark"] + CAMERA["read_noise"] ** 2 + step**2 / 12
    assert np.all(abs(seen.mean(axis=0) - electrons) <= 5 * np.sqrt(variance / draws))
    np.testing.assert_allclose(seen.var(axis=0), variance, rtol=0.2)


@pytest.mark.parametrize("bits", [4, 12])
@pytest.mark.parametrize("dark", [0.0, 7.0, 400.0])
@pytest.mark.parametrize("read_noise", [0.5, 40.0])
def test_what_a_camera_subtracts_is_the_mean_of_its_dark_frames(bits, dark, read_noise):
    rng, full_well = np.random.default_rng(3), 1e4
    electrons = rng.poisson(dark, 100_000) + read_noise * rng.normal(size=100_000)
    top, black = 2**bits - 1, 5 * read_noise
    counts = np.clip(np.rint((electrons + black) / (full_well + black) * top), 0, top)
    error = 4 * counts.std() / np.sqrt(counts.size) + 1e-3  # the quantiles' own
    options = NoiseOptions(dark=dark, read_noise=read_noise, full_well=full_well, bits=bits)
    assert dark_counts(options) == pytest.approx(counts.mean(), abs=error)


def test_pixels_without_light_hold_none_after_the_correction_also_with_few_bits():
    y = np.zeros((1, 40, 40))
    y[0, 0, 0] = 1.0
    options = {"photons": 1e3, "read_noise": 2.0, "dark": 2.6, "full_well": 1e4, "bits": 8}
    seen = exposures(y, 50, kind="camera", **options)[:, 0].reshape(50, -1)[:, 1:]
    assert abs(seen.mean()) <= 5 * seen.std() / np.sqrt(seen.size) + 0.05  # electrons


def test_camera_counts_are_whole_and_a_full_well_stops_them_and_the_gradient():
    y, options = uneven_snapshots(1, 6), CAMERA | {"full_well": 8e3, "bits": 8}
    seen = exposures(y, 3, kind="camera", **options)
    step = (options["full_well"] + 5 * CAMERA["read_noise"]) / 255
    counts = seen / step + dark_counts(NoiseOptions(**options))
    np.testing.assert_allclose(counts, np.round(counts), atol=0.02)
    assert counts.max() == pytest.approx(255, abs=0.02)
    electrons = y * per_unit(y, CAMERA["photons"])
    saturated, within = electrons > 1.2 * 8e3, electrons < 0.8 * 8e3
    assert saturated.any() and within.any()
    np.testing.assert_allclose(counts[:, saturated], 255, atol=0.02)
    gradient = jax.grad(lambda y: jnp.sum(noisy(y, kind="camera", **options)))(jnp.asarray(y))
    assert np.all(np.asarray(gradient)[saturated] == 0)
    assert np.all(np.asarray(gradient)[within] == 1)
