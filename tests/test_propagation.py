"""Free space against plane waves, Gaussian beams and dense matrices; recovery in the near field."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import free_space, tiny_config

from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.frames.loaded import pixel_side
from jax_kdpr.optics import propagation
from jax_kdpr.optics.cdp import Optics, cdp_adjoint, cdp_forward, measure_intensity
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.optics.propagation import (
    PropagationOptions,
    angular_spectrum,
    fresnel_chirp,
    sampling_warnings,
    sensor_pixel,
)
from jax_kdpr.recovery.data_consistency import error_reduction
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init, gaussian_kernel
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.run import Run, restore, run_keys
from jax_kdpr.training import loop

pytestmark = pytest.mark.usefixtures("x64")
H, W = 6, 5
GREEN = 5e-7  # metres
LENGTHS = {"wavelength": GREEN, "pitch": 8e-6}
NEAR = ("fresnel", "angular_spectrum")


def relative_error(actual, expected) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


def through(field, kind: str, *, oversample: int = 1, **lengths) -> np.ndarray:
    """The field at the sensor, without a mask."""
    space = free_space(field.shape, oversample=oversample, kind=kind, **lengths)
    masks = space.through(jnp.zeros((1, *field.shape)))
    spectra = cdp_forward(jnp.asarray(field), masks, oversample=oversample, transfer=space.transfer)
    return np.asarray(spectra[0])


def coordinates(shape: tuple[int, int], pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Metres from the centre pixel [h // 2, w // 2]."""
    y, x = ((np.arange(size) - size // 2) * pitch for size in shape)
    return y[:, None], x[None, :]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 0), (-2, 1), (2, -2)])
def test_a_plane_wave_on_the_grid_only_turns(row, column):
    """e^{j (k_z - k) z}, k_z = sqrt(k^2 - k_x^2 - k_y^2), here with steep angles."""
    pitch, distance = 9e-7, 3e-6
    y, x = np.arange(H)[:, None], np.arange(W)[None, :]
    wave = np.exp(2j * np.pi * (row * y / H + column * x / W))
    k = 2 * np.pi / GREEN
    ky, kx = 2 * np.pi * row / (H * pitch), 2 * np.pi * column / (W * pitch)
    turn = np.exp(1j * (np.sqrt(k**2 - ky**2 - kx**2) - k) * distance)
    found = through(wave, "angular_spectrum", wavelength=GREEN, pitch=pitch, distance=distance)
    np.testing.assert_allclose(found, turn * wave, atol=1e-10)


@pytest.mark.parametrize("distance", [0.0, 4e-4, 9e-4])
def test_a_gaussian_beam_spreads_as_it_should(distance):
    """|u|^2 = (w0 / w)^2 e^{-2 r^2 / w^2} with w = w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / l."""
    pitch, waist, size = 2e-6, 1.2e-5, 64
    y, x = coordinates((size, size), pitch)
    beam = np.exp(-(y**2 + x**2) / waist**2) + 0j
    width = waist * np.sqrt(1 + (distance / (np.pi * waist**2 / GREEN)) ** 2)
    lengths = {"wavelength": GREEN, "pitch": pitch, "distance": distance}
    found = np.abs(through(beam, "angular_spectrum", oversample=2, **lengths)) ** 2
    assert (
        sampling_warnings(
            size, PropagationOptions(kind="angular_spectrum", **lengths), oversample=2
        )
        == []
    )
    expected = (waist / width) ** 2 * np.exp(-2 * (y**2 + x**2) / width**2)
    # The padding is at the end, so the beam stays where it was; what is left is not paraxial.
    np.testing.assert_allclose(found[:size, :size], expected, atol=2e-3 * expected.max())
    assert found.sum() == pytest.approx(np.sum(np.abs(beam) ** 2), rel=1e-10)


def test_forth_and_back_is_where_it_was():
    field = oracles.random_complex(np.random.default_rng(0), (H, W))
    there = through(field, "angular_spectrum", distance=1e-3, **LENGTHS)
    assert relative_error(there, field) > 0.1
    np.testing.assert_allclose(np.sum(np.abs(there) ** 2), np.sum(np.abs(field) ** 2))
    back = through(there, "angular_spectrum", distance=-1e-3, **LENGTHS)
    np.testing.assert_allclose(back, field, atol=1e-12)


def test_evanescent_waves_vanish_and_only_they():
    pitch = 0.4 * GREEN  # the grid's highest frequencies are 1.25 / wavelength
    transfer = np.asarray(
        angular_spectrum((8, 6), PropagationOptions(wavelength=GREEN, pitch=pitch, distance=1e-6))
    )
    fy, fx = np.fft.fftfreq(8, pitch)[:, None], np.fft.fftfreq(6, pitch)[None, :]
    travels = fy**2 + fx**2 < GREEN**-2
    assert 0 < travels.sum() < travels.size
    np.testing.assert_allclose(np.abs(transfer), travels, atol=1e-12)


def dense(kind: str, phases: np.ndarray, oversample: int, distance: float) -> np.ndarray:
    """Masks and free space as one matrix [k*sh*sw h*w], from the equations."""
    k, h, w = phases.shape
    wavelength, pitch = LENGTHS["wavelength"], LENGTHS["pitch"]
    matrix = oracles.cdp_matrix(phases, oversample)
    if kind == "far":
        return matrix
    if kind == "fresnel":
        y, x = coordinates((h, w), pitch)
        chirp = np.exp(1j * np.pi * (y**2 + x**2) / (wavelength * distance))
        return matrix * chirp.ravel()[None, :]
    sh, sw = oversample * h, oversample * w
    sine = wavelength * np.hypot(np.fft.fftfreq(sh, pitch)[:, None], np.fft.fftfreq(sw, pitch))
    transfer = np.exp(2j * np.pi * distance / wavelength * (np.sqrt(1 - sine**2) - 1))
    back = np.kron(oracles.dft_matrix(sh), oracles.dft_matrix(sw)).conj().T
    frame = back * transfer.ravel()[None, :]
    return np.concatenate([frame @ part for part in np.split(matrix, k)])


@pytest.mark.parametrize("kind", ["far", *NEAR])
@pytest.mark.parametrize(("k", "oversample"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_forward_and_adjoint_equal_the_dense_matrix(kind, k, oversample):
    rng = np.random.default_rng(1)
    phases, field = rng.uniform(0, 7, (k, H, W)), oracles.random_complex(rng, (H, W))
    spectra = oracles.random_complex(rng, (k, oversample * H, oversample * W))
    lengths = {} if kind == "far" else {**LENGTHS, "distance": 6e-4}
    space = free_space((H, W), oversample=oversample, kind=kind, **lengths)
    masks = space.through(jnp.asarray(phases))
    ahead = cdp_forward(jnp.asarray(field), masks, oversample=oversample, transfer=space.transfer)
    back = cdp_adjoint(jnp.asarray(spectra), masks, transfer=space.transfer)
    matrix = dense(kind, phases, oversample, 6e-4)
    assert relative_error(np.asarray(ahead).ravel(), matrix @ field.ravel()) < 1e-9
    assert relative_error(np.asarray(back).ravel(), matrix.conj().T @ spectra.ravel()) < 1e-9
    products = np.vdot(spectra, ahead), np.vdot(back, field)  # <s, A x> = <A^H s, x>
    np.testing.assert_allclose(*products, rtol=1e-12)


def test_the_adjoint_is_exact_with_evanescent_waves_too():
    rng = np.random.default_rng(2)
    lengths = {"wavelength": GREEN, "pitch": 0.4 * GREEN, "distance": 1e-6}
    transfer = angular_spectrum((H, W), PropagationOptions(**lengths))
    masks = jnp.asarray(rng.uniform(0, 7, (2, H, W)))
    field = jnp.asarray(oracles.random_complex(rng, (H, W)))
    spectra = jnp.asarray(oracles.random_complex(rng, (2, H, W)))
    ahead = cdp_forward(field, masks, transfer=transfer)
    back = cdp_adjoint(spectra, masks, transfer=transfer)
    np.testing.assert_allclose(np.vdot(spectra, ahead), np.vdot(back, field), rtol=1e-12)


@pytest.mark.parametrize("oversample", [1, 2])
def test_the_fresnel_transform_of_a_gaussian_beam(oversample):
    """Samples of the pitch lambda z / (M p), of (p / that)^2 times the orthonormal |DFT|^2."""
    size, pitch, waist = 64, 8e-6, 7e-5
    distance = 1.5 * size * pitch**2 / GREEN
    lengths = {"wavelength": GREEN, "pitch": pitch, "distance": distance}
    y, x = coordinates((size, size), pitch)
    beam = np.exp(-(y**2 + x**2) / waist**2) + 0j
    pixel = sensor_pixel(size, PropagationOptions(kind="fresnel", **lengths), oversample=oversample)
    assert pixel == pytest.approx(GREEN * distance / (oversample * size * pitch))
    found = np.abs(through(beam, "fresnel", oversample=oversample, **lengths)) ** 2
    found = np.fft.fftshift(found) * (pitch / pixel) ** 2
    y, x = coordinates((oversample * size, oversample * size), pixel)
    width = waist * np.sqrt(1 + (distance / (np.pi * waist**2 / GREEN)) ** 2)
    expected = (waist / width) ** 2 * np.exp(-2 * (y**2 + x**2) / width**2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (7, 6)])
def test_a_lens_focuses_on_the_central_pixel(shape):
    """A lens of focal length z on the object plane takes the chirp away: a flat field's DFT."""
    y, x = coordinates(shape, 8e-6)
    lens = np.exp(-1j * np.pi * (y**2 + x**2) / (GREEN * 1e-3))
    found = np.abs(through(lens, "fresnel", distance=1e-3, **LENGTHS)) ** 2
    np.testing.assert_allclose(found[0, 0], np.prod(shape))
    np.testing.assert_allclose(found.sum(), found[0, 0])


def test_fresnel_and_angular_spectrum_agree_where_both_are_valid():
    """At z = N p^2 / lambda both have the pitch as their pixel; an object without symmetry."""
    size = 64
    pitch, limit = 8e-6, size * 8e-6**2 / GREEN
    y, x = coordinates((size, size), pitch)
    field = np.exp(-((y - 4e-5) ** 2 + (x + 2e-5) ** 2) / 5e-5**2) * np.exp(2e4j * x)
    field = field + 0.5 * np.exp(-((y + 5e-5) ** 2 + x**2) / 3e-5**2)
    lengths = {"wavelength": GREEN, "pitch": pitch, "distance": limit}
    assert sensor_pixel(size, PropagationOptions(kind="fresnel", **lengths)) == pytest.approx(pitch)
    assert sensor_pixel(size, PropagationOptions(kind="angular_spectrum", **lengths)) == pitch
    one = np.fft.fftshift(np.abs(through(field, "fresnel", **lengths)))
    other = np.abs(through(field, "angular_spectrum", **lengths))
    assert relative_error(one, other) < 5e-3
    assert relative_error(other, np.abs(field)) > 0.1  # far enough to be another pattern


def count_warnings(kind: str, *, pixels=64, oversample=1, pitch=8e-6, distance=0.0) -> int:
    return len(
        sampling_warnings(
            pixels,
            PropagationOptions(kind=kind, wavelength=GREEN, pitch=pitch, distance=distance),
            oversample=oversample,
        )
    )


def test_warnings_come_exactly_beyond_the_limits():
    limit = 64 * 8e-6**2 / GREEN
    assert count_warnings("far") == 0
    assert count_warnings("fresnel", distance=8.001 * limit) == 0
    assert count_warnings("fresnel", distance=7.999 * limit) == 1
    assert count_warnings("fresnel", distance=0.999 * limit) == 1
    cosine = np.sqrt(1 - (GREEN / 16e-6) ** 2)
    for oversample in (1, 2):
        farthest = oversample * limit * cosine
        near = {"oversample": oversample}
        assert count_warnings("angular_spectrum", distance=0.999 * farthest, **near) == 0
        assert count_warnings("angular_spectrum", distance=1.001 * farthest, **near) == 1
    fine = 0.499 * GREEN
    assert count_warnings("angular_spectrum", pitch=1.002 * 0.5 * GREEN, distance=1e-9) == 0
    assert count_warnings("angular_spectrum", pitch=fine, distance=0.0) == 1
    assert count_warnings("fresnel", pitch=fine, distance=1.0) == 1


def test_the_limits_are_where_neighbours_turn_by_pi():
    size = 64
    limit = size * 8e-6**2 / GREEN

    def largest_step(values) -> float:
        return float(np.max(np.abs(np.angle(values[1:] / values[:-1]))))

    def chirp(distance):
        return np.asarray(
            fresnel_chirp((size, 1), PropagationOptions(**LENGTHS, distance=distance))
        )[:, 0]

    def transfer(distance):
        spectrum = angular_spectrum((size, 1), PropagationOptions(**LENGTHS, distance=distance))
        return np.fft.fftshift(np.asarray(spectrum))[:, 0]

    for values in (chirp(1.1 * limit), transfer(0.9 * limit)):
        assert 0.85 * np.pi < largest_step(values) < 0.95 * np.pi
    # A tenth beyond the limit the steps at the edge pass pi and come back as smaller ones.
    expected = np.pi * (size - 1) * 8e-6**2 / (GREEN * 0.9 * limit)
    edge = chirp(0.9 * limit)
    assert expected > np.pi
    np.testing.assert_allclose(abs(np.angle(edge[1] / edge[0])), 2 * np.pi - expected)


def test_square_pixels_share_an_envelope_far_away_alone():
    """Fresnel integrals over pixels of 32 x 32 points, against points under one sinc."""
    size, fine, pitch = 32, 32, 8e-6
    rng = np.random.default_rng(5)
    mask = np.exp(1j * rng.uniform(0, 2 * np.pi, (size, size)))
    centres = (np.arange(size) - size // 2) * pitch
    parts = centres[:, None] + ((np.arange(fine) + 0.5) / fine - 0.5) * pitch

    def misfit(distance: float) -> float:
        pixel = sensor_pixel(size, PropagationOptions(kind="fresnel", distance=distance, **LENGTHS))
        u = (np.arange(size) - size // 2) * pixel
        away = np.pi / (GREEN * distance)
        squares = np.exp(1j * away * (u[:, None, None] - parts) ** 2).mean(axis=-1)
        seen = np.abs(squares @ mask @ squares.T)
        envelope = np.sinc(pitch * u / (GREEN * distance))
        model = np.fft.fftshift(np.abs(through(mask, "fresnel", distance=distance, **LENGTHS)))
        model = size * model * np.outer(envelope, envelope)
        return float(np.linalg.norm(seen - model) / np.linalg.norm(seen))

    limit = size * pitch**2 / GREEN
    near, twice, far = (misfit(times * limit) for times in (1, 2, 8))
    assert near > 0.25 and 0.1 < twice < 0.2 and far < 0.05
    lengths = {"pitch": pitch, "wavelength": GREEN}
    assert propagation.shares_envelope(size, PropagationOptions(distance=8.001 * limit, **lengths))
    assert not propagation.shares_envelope(
        size, PropagationOptions(distance=7.999 * limit, **lengths)
    )


def test_unknown_kind_raises():
    with pytest.raises(ValueError, match=r"propagation: expected one of far, .* got 'near'"):
        free_space((4, 4), kind="near")


@pytest.mark.parametrize("kind", NEAR)
@pytest.mark.parametrize("oversample", [1, 2])
def test_spectral_estimate_and_error_reduction_equal_dense_matrices(kind, oversample):
    rng = np.random.default_rng(3)
    phases = rng.uniform(0, 2 * np.pi, (2, H, W))
    truth = np.exp(1j * rng.uniform(0, np.pi, (H, W)))
    start = oracles.random_complex(rng, (H, W))
    matrix = dense(kind, phases, oversample, 6e-4)
    space = free_space((H, W), oversample=oversample, kind=kind, distance=6e-4, **LENGTHS)
    masks = space.through(jnp.asarray(phases))
    y = measure_intensity(jnp.asarray(truth), masks, oversample=oversample, transfer=space.transfer)
    kernel = gaussian_kernel(5, 1.0)
    estimate, _ = filtered_spectral_init(
        y,
        Optics(masks, space.transfer),
        jnp.asarray(kernel),
        jnp.asarray(start),
        SpectralOptions(iterations=6),
    )
    weight = oracles.weights(np.abs(matrix @ truth.ravel()) ** 2, "soft")
    gamma = matrix.conj().T @ (weight[:, None] * matrix) / 2
    z, _ = oracles.power_iteration(oracles.filter_matrix(kernel, H, W) @ gamma, start, 6)
    expected = np.sqrt(H * W) * z.reshape(H, W)
    assert relative_error(estimate, expected) < 1e-6

    refined = error_reduction(
        estimate, y, Optics(masks, space.transfer), steps=3, scene=SceneOptions(kind="phase")
    )
    modulus = np.sqrt(np.asarray(y)).ravel()
    for _ in range(3):
        spectra = matrix @ expected.ravel()
        spectra = modulus * spectra / np.abs(spectra)
        back = np.linalg.lstsq(matrix, spectra, rcond=None)[0].reshape(H, W)
        expected = back / np.abs(back)
    assert relative_error(refined, expected) < 1e-4


@pytest.mark.parametrize("kind", NEAR)
def test_four_shots_in_the_near_field_give_the_object(kind):
    """Spectral estimate, then 200 steps of error reduction."""
    size = 16
    rng = np.random.default_rng(4)
    image = oracles.smooth_images(rng, 1, size, size, 2.0)[0]
    truth = jnp.asarray(np.exp(1j * np.pi * image))
    space = free_space((size, size), kind=kind, distance=2e-3, **LENGTHS)
    masks = space.through(jnp.asarray(rng.uniform(0, 2 * np.pi, (4, size, size))))
    y = measure_intensity(truth, masks, transfer=space.transfer)
    start = jnp.asarray(oracles.random_complex(rng, (size, size)))
    estimate, _ = filtered_spectral_init(
        y,
        Optics(masks, space.transfer),
        jnp.asarray(gaussian_kernel(5, 1.0)),
        start,
        SpectralOptions(),
    )
    refined = error_reduction(
        estimate, y, Optics(masks, space.transfer), steps=200, scene=SceneOptions(kind="phase")
    )
    constant = oracles.correlation(np.ones((size, size)), np.asarray(truth))
    first = oracles.correlation(np.asarray(estimate), np.asarray(truth))
    assert first > constant + 0.05
    assert oracles.correlation(np.asarray(refined), np.asarray(truth)) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("kind", NEAR)
def test_a_system_trains_one_step_in_the_near_field(kind, tmp_path):
    with jax.enable_x64(False):
        config = tiny_config(
            data__train_images=16,
            data__validation_images=16,
            data__test_images=16,
            train__epochs=1,
            propagation__kind=kind,
            propagation__wavelength=GREEN,
            propagation__pitch=8e-6,
            propagation__distance=3e-3 if kind == "fresnel" else 1e-3,
        )
        loop.train(config, tmp_path / "run")
        trained = restore(tmp_path / "run", config)
        start, _ = trained.system.init(run_keys(config.seed).init)
    assert trained.step == 1
    moved = np.abs(np.asarray(trained.variables[0]["phases"] - start["phases"]))
    # Adam's first step is the learning rate for every pixel that has a gradient at all.
    assert np.mean(moved > 0.5 * config.optim.mask_lr) > 0.9
    assert np.all(np.isfinite(moved))


def test_a_defocus_is_one_at_half_the_longer_side():
    found = np.asarray(propagation.quadratic_phase((8, 4)))
    y, x = np.arange(8)[:, None] - 4, np.arange(4)[None, :] - 2
    np.testing.assert_allclose(found, (y**2 + x**2) / 16)


@pytest.mark.parametrize("times", [7.9, 8.1])
def test_frames_are_not_corrected_by_an_envelope_that_their_pixels_do_not_share(times):
    distance = times * 16 * 8e-6**2 / GREEN
    config = tiny_config(
        propagation__kind="fresnel",
        propagation__wavelength=GREEN,
        propagation__pitch=8e-6,
        propagation__distance=distance,
        device__fill_factor=0.81,
    )
    phases = jnp.zeros((1, 16, 16))
    run = Run(Path("run"), config, build_system(config), ({"phases": phases}, {}))
    if times > 8:
        assert pixel_side(run) == pytest.approx(0.9)
    else:
        with pytest.raises(InputError, match=r"an envelope of its own.*--mask_pixels point"):
            pixel_side(run)
