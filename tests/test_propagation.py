"""Free space against plane waves, Gaussian beams, dense matrices and pixels of a finite size."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import free_space, tiny_config

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import changed
from jax_kdpr.lab.frames.measured import pixel_side
from jax_kdpr.optics.cdp import cdp_adjoint, cdp_forward, measure_intensity
from jax_kdpr.optics.propagation import (
    PropagationOptions,
    angular_spectrum,
    fresnel_chirp,
    sampling_warnings,
    sensor_pixel,
    shares_envelope,
    squares_note,
)
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.run import Run

pytestmark = pytest.mark.usefixtures("x64")
H, W = 6, 5
SIZE = 64  # of beams, pixels a side
GREEN, PITCH = 5e-7, 8e-6  # metres
LIMIT = PITCH**2 / GREEN  # of either kind, per pixel a side
LENGTHS = {"wavelength": GREEN, "pitch": PITCH}


def through(field, kind: str, *, oversample: int = 1, **lengths) -> np.ndarray:
    """The field at the sensor, without a mask."""
    space = free_space(field.shape, oversample=oversample, kind=kind, **lengths)
    masks = space.through(jnp.zeros((1, *field.shape)))
    spectra = cdp_forward(jnp.asarray(field), masks, oversample=oversample, path=space.transfer)
    return np.asarray(spectra[0])


def coordinates(shape: tuple[int, int], pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Metres from the centre pixel [h // 2, w // 2]."""
    y, x = ((np.arange(size) - size // 2) * pitch for size in shape)
    return y[:, None], x[None, :]


def gaussian(radius_squared, waist: float, distance: float) -> np.ndarray:
    """|u|^2 = (w0 / w)^2 e^{-2 r^2 / w^2} with w = w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / l."""
    width = waist * np.sqrt(1 + (distance / (np.pi * waist**2 / GREEN)) ** 2)
    return (waist / width) ** 2 * np.exp(-2 * radius_squared / width**2)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (-2, 1), (2, -2)])
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


@pytest.mark.parametrize("distance", [0.0, 9e-4])
def test_a_gaussian_beam_spreads_as_it_should(distance):
    pitch, waist = 2e-6, 1.2e-5
    y, x = coordinates((SIZE, SIZE), pitch)
    beam = np.exp(-(y**2 + x**2) / waist**2) + 0j
    lengths = {"wavelength": GREEN, "pitch": pitch, "distance": distance}
    found = np.abs(through(beam, "angular_spectrum", oversample=2, **lengths)) ** 2
    expected = gaussian(y**2 + x**2, waist, distance)
    # The padding is at the end, so the beam stays where it was; what is left is not paraxial.
    np.testing.assert_allclose(found[:SIZE, :SIZE], expected, atol=2e-3 * expected.max())
    assert found.sum() == pytest.approx(np.sum(np.abs(beam) ** 2), rel=1e-10)


@pytest.mark.parametrize("oversample", [1, 2])
def test_the_fresnel_transform_of_a_gaussian_beam(oversample):
    """Samples of the pitch lambda z / (M p), of (p / that)^2 times the orthonormal |DFT|^2."""
    waist, distance = 7e-5, 1.5 * SIZE * LIMIT
    lengths = LENGTHS | {"distance": distance}
    y, x = coordinates((SIZE, SIZE), PITCH)
    beam = np.exp(-(y**2 + x**2) / waist**2) + 0j
    pixel = sensor_pixel(SIZE, PropagationOptions(kind="fresnel", **lengths), oversample=oversample)
    assert pixel == pytest.approx(GREEN * distance / (oversample * SIZE * PITCH))
    found = np.abs(through(beam, "fresnel", oversample=oversample, **lengths)) ** 2
    found = np.fft.fftshift(found) * (PITCH / pixel) ** 2
    y, x = coordinates((oversample * SIZE, oversample * SIZE), pixel)
    np.testing.assert_allclose(found, gaussian(y**2 + x**2, waist, distance), atol=1e-5)


FINE = {"wavelength": GREEN, "pitch": 0.4 * GREEN, "distance": 1e-6}


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [
        ("fresnel", LENGTHS | {"distance": 6e-4}),
        ("angular_spectrum", LENGTHS | {"distance": 6e-4}),
        ("angular_spectrum", FINE),  # with waves that vanish
    ],
)
@pytest.mark.parametrize(("k", "oversample"), [(3, 1), (1, 2)])
def test_forward_and_adjoint_equal_the_dense_matrix(kind, lengths, k, oversample):
    rng = np.random.default_rng(1)
    phases, field = rng.uniform(0, 7, (k, H, W)), oracles.random_complex(rng, (H, W))
    spectra = oracles.random_complex(rng, (k, oversample * H, oversample * W))
    space = free_space((H, W), oversample=oversample, kind=kind, **lengths)
    masks = space.through(jnp.asarray(phases))
    ahead = cdp_forward(jnp.asarray(field), masks, oversample=oversample, path=space.transfer)
    back = cdp_adjoint(jnp.asarray(spectra), masks, path=space.transfer)
    matrix = oracles.space_matrix(kind, phases, oversample, **lengths)
    expected = matrix.conj().T @ spectra.ravel()
    assert oracles.relative_error(np.asarray(ahead).ravel(), matrix @ field.ravel()) < 1e-9
    assert oracles.relative_error(np.asarray(back).ravel(), expected) < 1e-9


def test_evanescent_waves_vanish_and_only_they():
    transfer = np.asarray(angular_spectrum((8, 6), PropagationOptions(**FINE)))
    # The grid's highest frequencies are 1.25 / wavelength.
    fy, fx = np.fft.fftfreq(8, FINE["pitch"])[:, None], np.fft.fftfreq(6, FINE["pitch"])[None, :]
    travels = fy**2 + fx**2 < GREEN**-2
    assert 0 < travels.sum() < travels.size
    np.testing.assert_allclose(np.abs(transfer), travels, atol=1e-12)


def test_fresnel_and_angular_spectrum_agree_where_both_are_valid():
    """At z = N p^2 / lambda both have the pitch as their pixel; an object without symmetry."""
    y, x = coordinates((SIZE, SIZE), PITCH)
    field = np.exp(-((y - 4e-5) ** 2 + (x + 2e-5) ** 2) / 5e-5**2) * np.exp(2e4j * x)
    field = field + 0.5 * np.exp(-((y + 5e-5) ** 2 + x**2) / 3e-5**2)
    lengths = LENGTHS | {"distance": SIZE * LIMIT}
    for kind in ("fresnel", "angular_spectrum"):
        pixel = sensor_pixel(SIZE, PropagationOptions(kind=kind, **lengths))
        assert pixel == pytest.approx(PITCH)
    one = np.fft.fftshift(np.abs(through(field, "fresnel", **lengths)))
    other = np.abs(through(field, "angular_spectrum", **lengths))
    assert oracles.relative_error(one, other) < 5e-3
    assert oracles.relative_error(other, np.abs(field)) > 0.1  # far enough for another pattern


STEEP = np.sqrt(1 - (GREEN / (2 * PITCH)) ** 2)


@pytest.mark.parametrize(
    ("kind", "distance", "options", "count"),
    [
        ("far", 0.0, {}, 0),
        ("fresnel", 8.001 * SIZE * LIMIT, {}, 0),
        ("fresnel", 7.999 * SIZE * LIMIT, {}, 1),
        ("fresnel", 0.999 * SIZE * LIMIT, {}, 1),
        ("fresnel", 1.0, {"pitch": 0.499 * GREEN}, 1),
        ("angular_spectrum", 0.999 * SIZE * LIMIT * STEEP, {}, 0),
        ("angular_spectrum", 1.001 * SIZE * LIMIT * STEEP, {}, 1),
        ("angular_spectrum", 1.999 * SIZE * LIMIT * STEEP, {"oversample": 2}, 0),
        ("angular_spectrum", 2.001 * SIZE * LIMIT * STEEP, {"oversample": 2}, 1),
        ("angular_spectrum", 1e-9, {"pitch": 0.501 * GREEN}, 0),
        ("angular_spectrum", 0.0, {"pitch": 0.499 * GREEN}, 1),
    ],
)
def test_warnings_come_exactly_beyond_the_limits(kind, distance, options, count):
    lengths = LENGTHS | {"pitch": options.get("pitch", PITCH), "distance": distance}
    found = sampling_warnings(
        SIZE, PropagationOptions(kind=kind, **lengths), oversample=options.get("oversample", 1)
    )
    assert len(found) == count


def test_the_limits_are_where_neighbours_turn_by_pi():
    def lengths(times):
        return PropagationOptions(**LENGTHS, distance=times * SIZE * LIMIT)

    chirp = np.asarray(fresnel_chirp((SIZE, 1), lengths(1.1)))[:, 0]
    transfer = np.fft.fftshift(np.asarray(angular_spectrum((SIZE, 1), lengths(0.9))))[:, 0]
    for values in (chirp, transfer):
        largest_step = np.max(np.abs(np.angle(values[1:] / values[:-1])))
        assert 0.85 * np.pi < largest_step < 0.95 * np.pi


def test_square_pixels_share_an_envelope_far_away_alone():
    """Fresnel integrals over pixels of 32 x 32 points, against points under one sinc."""
    size, fine = 32, 32
    rng = np.random.default_rng(5)
    mask = np.exp(1j * rng.uniform(0, 2 * np.pi, (size, size)))
    centres = (np.arange(size) - size // 2) * PITCH
    parts = centres[:, None] + ((np.arange(fine) + 0.5) / fine - 0.5) * PITCH

    def misfit(times: float) -> float:
        distance = times * size * LIMIT
        pixel = sensor_pixel(size, PropagationOptions(kind="fresnel", distance=distance, **LENGTHS))
        u = (np.arange(size) - size // 2) * pixel
        away = np.pi / (GREEN * distance)
        squares = np.exp(1j * away * (u[:, None, None] - parts) ** 2).mean(axis=-1)
        envelope = np.sinc(PITCH * u / (GREEN * distance))
        model = np.fft.fftshift(np.abs(through(mask, "fresnel", distance=distance, **LENGTHS)))
        model = size * model * np.outer(envelope, envelope)
        return oracles.relative_error(model, np.abs(squares @ mask @ squares.T))

    near, twice, far = (misfit(times) for times in (1, 2, 8))
    assert near > 0.25 and 0.1 < twice < 0.2 and far < 0.05
    for times, shared in ((8.001, True), (7.999, False)):
        lengths = PropagationOptions(distance=times * size * LIMIT, **LENGTHS)
        assert shares_envelope(size, lengths) == shared


@pytest.mark.parametrize("times", [7.9, 8.1])
def test_frames_are_not_corrected_by_an_envelope_that_their_pixels_do_not_share(times):
    config = tiny_config(
        propagation__kind="fresnel",
        propagation__wavelength=GREEN,
        propagation__pitch=PITCH,
        propagation__distance=times * 16 * LIMIT,
        device__fill_factor=0.81,
    )
    phases = jnp.zeros((1, 16, 16))
    run = Run(Path("run"), config, build_system(config), ({"phases": phases}, {}))
    if times > 8:
        assert pixel_side(run) == pytest.approx(0.9)
    else:
        with pytest.raises(InputError, match=r"an envelope of its own.*--mask_pixels point"):
            pixel_side(run)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25])
def test_square_pixels_nearby_are_another_pattern(share):
    """A random mask whose pixels are 9 x 9 points, in four times its window, against points."""
    size, fine, pitch = 32, 9, 12e-6
    distance = share * size * pitch**2 / GREEN
    mask = np.exp(2j * np.pi * np.random.default_rng(0).uniform(size=(size, size)))

    def amplitudes(field, step, window):
        sine = GREEN * np.fft.fftfreq(window, step)
        cosine = np.sqrt(1 - sine[:, None] ** 2 - sine[None, :] ** 2)
        spectrum = np.fft.fft2(field, (window, window))
        return np.abs(np.fft.ifft2(spectrum * np.exp(2j * np.pi * distance / GREEN * cosine)))

    squares = np.kron(mask, np.ones((fine, fine)))
    true = amplitudes(squares, pitch / fine, 4 * size * fine)[fine // 2 :: fine, fine // 2 :: fine]
    lengths = {"wavelength": GREEN, "pitch": pitch, "distance": distance}
    space = free_space((size, size), oversample=2, kind="angular_spectrum", **lengths)
    phases = jnp.asarray(-np.angle(mask), jnp.float32)[None]
    ones = jnp.ones((size, size), jnp.complex64)
    light = measure_intensity(ones, phases, oversample=2, path=space.transfer)[0]
    model, true = np.sqrt(np.asarray(light))[:size, :size], true[:size, :size]
    unit = np.vdot(model, true) / np.vdot(model, model)
    off = np.linalg.norm(true - unit * model) / np.linalg.norm(true)
    print(share, off)  # docs/guides/beam.md has it
    assert 0.25 < off < 0.45
    space = PropagationOptions(kind="angular_spectrum", **lengths)
    assert "square pixels" in squares_note(size, space)
    assert not squares_note(size, changed(space, distance=0.01 * distance / share))
    assert not squares_note(size, changed(space, kind="fresnel"))
