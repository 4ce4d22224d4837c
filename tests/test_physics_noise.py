"""Sensor noise: its level in every snapshot, its statistics and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_kdpr.optics.noise import (
    NOISES,
    NoiseOptions,
    add_noise,
    camera_frame,
    dark_counts,
    gaussian_noise,
    poisson_noise,
)


def uneven_snapshots(k: int, size: int) -> jax.Array:
    """Exponential speckle whose mean grows by a factor of 10 from snapshot to snapshot."""
    speckle = np.random.default_rng(0).exponential(size=(k, size, size))
    return jnp.asarray(speckle * 10.0 ** np.arange(-2, k - 2).reshape(-1, 1, 1), jnp.float32)


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_gaussian_noise_has_the_stated_snr_in_every_snapshot(k, snr_db):
    y = uneven_snapshots(k, 256)
    noise = (
        np.asarray(gaussian_noise(jax.random.key(1), y, NoiseOptions(snr_db=snr_db)), np.float64)
        - y
    )
    signal = np.mean(np.asarray(y, np.float64) ** 2, axis=(1, 2))
    measured = 10 * np.log10(signal / np.mean(noise**2, axis=(1, 2)))
    np.testing.assert_allclose(measured, snr_db, atol=0.1)
    assert np.all(abs(noise.mean(axis=(1, 2))) < 5 * noise.std(axis=(1, 2)) / 256)


def test_gaussian_noise_is_not_clipped_and_independent_between_snapshots():
    y = jnp.ones((2, 128, 128))
    noise = np.asarray(gaussian_noise(jax.random.key(1), y, NoiseOptions(snr_db=0.0)) - y)
    assert (noise < -1).mean() == pytest.approx(0.159, abs=0.01)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.04


def test_poisson_noise_has_the_mean_and_variance_of_photon_counts():
    y = np.array([[[1.0, 2.0, 5.0], [0.0, 12.0, 20.0]], [[100.0, 10.0, 30.0], [20.0, 0.0, 240.0]]])
    photons, draws = 200.0, 4000
    counts_per_unit = photons / y.sum(axis=(1, 2), keepdims=True)
    keys = jax.random.split(jax.random.key(2), draws)
    noisy = jax.jit(
        jax.vmap(lambda key: poisson_noise(key, jnp.asarray(y), NoiseOptions(photons=photons)))
    )(keys)

    counts = np.asarray(noisy, np.float64) * counts_per_unit
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    expected = y * counts_per_unit  # of the counts: mean and variance alike
    assert np.all(abs(counts.mean(axis=0) - expected) <= 5 * np.sqrt(expected / draws))
    np.testing.assert_allclose(counts.var(axis=0), expected, rtol=0.15)
    np.testing.assert_allclose(counts.sum(axis=(2, 3)).mean(axis=0), photons, rtol=5e-3)


def test_dark_frame_stays_dark_under_poisson_noise():
    noisy = poisson_noise(jax.random.key(0), jnp.zeros((2, 4, 4)), NoiseOptions(photons=1e3))
    np.testing.assert_array_equal(noisy, 0.0)


@pytest.mark.parametrize("kind", list(NOISES))
def test_gradient_passes_straight_through_to_the_noiseless_intensity(kind):
    y = uneven_snapshots(2, 4)
    probe = jnp.asarray(np.random.default_rng(3).normal(size=y.shape))
    options = {"full_well": 1e7} if kind == "camera" else {}  # saturated pixels have none
    gradient = jax.grad(
        lambda y: jnp.vdot(
            probe, add_noise(jax.random.key(0), y, NoiseOptions(kind=kind, **options))
        )
    )(y)
    np.testing.assert_allclose(gradient, probe, rtol=1e-6)


@pytest.mark.parametrize("kind", list(NOISES))
def test_noise_depends_on_the_key_alone(kind):
    y = uneven_snapshots(2, 4)
    draw = lambda seed: np.asarray(add_noise(jax.random.key(seed), y, NoiseOptions(kind=kind)))  # noqa: E731
    np.testing.assert_array_equal(draw(0), draw(0))
    if kind == "none":
        np.testing.assert_array_equal(draw(0), y)
    else:
        assert not np.array_equal(draw(0), draw(1))


CAMERA = {"photons": 2e5, "read_noise": 3.0, "dark": 20.0, "full_well": 1e5, "bits": 16}


def frames(y: np.ndarray, draws: int, **options) -> np.ndarray:
    """Many exposures [draws k h w] of one CDP, in electrons."""
    settings = CAMERA | options
    keys = jax.random.split(jax.random.key(5), draws)
    shoot = jax.jit(
        jax.vmap(lambda key: camera_frame(key, jnp.asarray(y), NoiseOptions(**settings)))
    )
    per_unit = settings["photons"] / y.sum(axis=(1, 2), keepdims=True)
    return np.asarray(shoot(keys), np.float64) * per_unit


def test_camera_frame_is_unbiased_and_its_noise_adds_up():
    y, draws = np.asarray(uneven_snapshots(2, 6), np.float64), 4000
    electrons = y * (CAMERA["photons"] / y.sum(axis=(1, 2), keepdims=True))
    seen = frames(y, draws)
    step = (CAMERA["full_well"] + 5 * CAMERA["read_noise"]) / (2**16 - 1)
    variance = electrons + CAMERA["dark"] + CAMERA["read_noise"] ** 2 + step**2 / 12
    assert np.all(abs(seen.mean(axis=0) - electrons) <= 5 * np.sqrt(variance / draws))
    np.testing.assert_allclose(seen.var(axis=0), variance, rtol=0.2)


def counted(electrons: np.ndarray, *, read_noise: float, full_well: float, bits: int):
    """Counts of a converter, and electrons a count."""
    top, black = 2**bits - 1, 5 * read_noise
    step = (full_well + black) / top
    return np.clip(np.rint((electrons + black) / step), 0, top), step


@pytest.mark.parametrize("bits", [4, 8, 12])
@pytest.mark.parametrize("dark", [0.0, 7.0, 400.0])
@pytest.mark.parametrize("read_noise", [0.5, 3.0, 40.0])
def test_what_a_camera_subtracts_is_the_mean_of_its_dark_frames(bits, dark, read_noise):
    rng = np.random.default_rng(3)
    options = {"read_noise": read_noise, "full_well": 1e4, "bits": bits}
    pixels = rng.poisson(dark, 100_000) + read_noise * rng.normal(size=100_000)
    counts, _ = counted(pixels, **options)
    error = 4 * counts.std() / np.sqrt(counts.size) + 1e-3  # the quantiles' own
    assert dark_counts(NoiseOptions(dark=dark, **options)) == pytest.approx(
        counts.mean(), abs=error
    )


def test_pixels_without_light_hold_none_after_the_correction_also_with_few_bits():
    options = {"read_noise": 2.0, "dark": 2.6, "full_well": 1e4, "bits": 8}
    y = np.zeros((1, 40, 40))
    y[0, 0, 0] = 1.0
    seen = frames(y, 50, photons=1e3, **options)[:, 0].reshape(50, -1)[:, 1:]
    assert abs(seen.mean()) <= 5 * seen.std() / np.sqrt(seen.size) + 0.05  # electrons


def test_camera_counts_are_whole_and_stop_at_the_full_well():
    y, options = np.asarray(uneven_snapshots(1, 6), np.float64), {"full_well": 8e3, "bits": 8}
    seen = frames(y, 3, **options)
    black = 5 * CAMERA["read_noise"]
    step = (options["full_well"] + black) / 255
    counts = seen / step + dark_counts(
        NoiseOptions(read_noise=CAMERA["read_noise"], dark=CAMERA["dark"], **options)
    )
    np.testing.assert_allclose(counts, np.round(counts), atol=0.02)
    assert counts.max() == pytest.approx(255, abs=0.02)
    electrons = y * (CAMERA["photons"] / y.sum())
    saturated = electrons > 1.2 * options["full_well"]
    assert saturated.any()
    np.testing.assert_allclose(counts[:, saturated], 255, atol=0.02)


def test_camera_gives_no_gradient_where_it_is_saturated():
    y = uneven_snapshots(1, 6)
    options = CAMERA | {"full_well": 8e3}
    seen, gradient = jax.value_and_grad(
        lambda y: jnp.sum(camera_frame(jax.random.key(0), y, NoiseOptions(**options)))
    )(y)
    electrons = np.asarray(y) * (CAMERA["photons"] / float(y.sum()))
    assert np.all(np.asarray(gradient)[electrons > 1.2 * 8e3] == 0)
    assert np.all(np.asarray(gradient)[electrons < 0.8 * 8e3] == 1)
    assert np.isfinite(seen)


def test_add_noise_passes_its_options_on():
    y, key = uneven_snapshots(2, 4), jax.random.key(4)
    np.testing.assert_array_equal(
        add_noise(key, y, NoiseOptions(kind="gaussian", snr_db=7.0)),
        gaussian_noise(key, y, NoiseOptions(snr_db=7.0)),
    )
    np.testing.assert_array_equal(
        add_noise(key, y, NoiseOptions(kind="poisson", photons=50.0)),
        poisson_noise(key, y, NoiseOptions(photons=50.0)),
    )
    np.testing.assert_array_equal(
        add_noise(key, y, NoiseOptions(kind="camera", **CAMERA)),
        camera_frame(key, y, NoiseOptions(**CAMERA)),
    )


def test_unknown_noise_raises():
    with pytest.raises(ValueError, match=r"noise: expected one of none, .* got 'salt'"):
        add_noise(jax.random.key(0), jnp.ones((1, 2, 2)), NoiseOptions(kind="salt"))
