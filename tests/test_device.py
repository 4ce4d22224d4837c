"""What a device makes of phases: levels on the circle, limited range, leaks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import as_phasors, measure_intensity
from jax_kdpr.optics.device import DeviceOptions, device_masks, nearest_level, written_phases
from jax_kdpr.optics.misalignment import FINE
from jax_kdpr.optics.window import matrix_dft

TURN = 2 * np.pi
SLM = (0.1, 0.9, 0.4, 2.0, 3.1, 2.6, 4.4)  # radians: neither monotone nor a whole turn


def drawn(shape=(2, 8, 6), seed=0) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).uniform(-7, 14, shape), jnp.float32)


def apart(one, other) -> np.ndarray:
    """Distance on the circle, radians."""
    return np.abs(np.angle(np.exp(1j * (np.asarray(one, float) - np.asarray(other, float)))))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_levels_are_distinct_steps_of_the_circle_and_the_nearest(bits):
    phases = drawn((1, 64, 64)).at[0, 0, 0].set(TURN - 1e-3)
    reached = np.asarray(written_phases(phases, DeviceOptions(levels=2**bits)), float)
    steps = reached / (TURN / 2**bits)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert len(np.unique(np.round(steps))) == 2**bits
    assert apart(reached, phases).max() <= np.pi / 2**bits + 1e-5
    assert reached[0, 0, 0] == 0.0  # just below a whole turn


@pytest.mark.parametrize("reach", [1.6 * np.pi, 0.9 * np.pi])
@pytest.mark.parametrize("levels", [0, 5])
def test_a_limited_range_takes_the_nearest_phase_that_it_has(reach, levels):
    phases = drawn((1, 40, 40))
    reached = np.asarray(written_phases(phases, DeviceOptions(levels=levels, phase_range=reach)))
    candidates = -np.linspace(0, reach, levels or 2001)  # the device adds p = -phi
    nearest = apart(np.asarray(phases)[..., None], candidates).min(-1)
    np.testing.assert_allclose(apart(reached, phases), nearest, atol=reach / 2000)
    assert np.mod(-reached.astype(float) + 1e-6, TURN).max() <= reach + 1e-5


def test_a_measured_table_takes_the_nearest_level_on_the_circle():
    phases = drawn((1, 30, 30))
    index = np.asarray(nearest_level(phases, np.array(SLM)))
    wanted = apart(np.asarray(phases)[..., None], np.array(SLM)).argmin(-1)
    np.testing.assert_array_equal(index, wanted)
    np.testing.assert_allclose(
        written_phases(phases, DeviceOptions(table=SLM)), np.array(SLM)[wanted] % TURN, rtol=1e-6
    )


@pytest.mark.parametrize("options", [{"levels": 4}, {"phase_range": 1.6 * np.pi}, {"table": SLM}])
def test_rounding_passes_the_gradient_straight_through(options):
    phases, probe = drawn(), drawn(seed=1)
    device = DeviceOptions(**options)
    gradient = jax.grad(lambda p: jnp.vdot(probe, written_phases(p, device)))(phases)
    np.testing.assert_allclose(gradient, probe, rtol=1e-6)


def test_superpixels_show_one_phase_and_gather_its_gradient():
    phases, probe = drawn((1, 6, 4)), drawn((1, 6, 4), seed=1)
    device = DeviceOptions(superpixel=2)
    shown = np.asarray(written_phases(phases, device))
    blocks = np.kron(np.asarray(phases)[:, ::2, ::2], np.ones((2, 2)))
    assert apart(shown, blocks).max() < 1e-5
    gradient = jax.grad(lambda p: jnp.vdot(probe, written_phases(p, device)))(phases)
    sums = np.asarray(probe).reshape(1, 3, 2, 2, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(gradient[:, ::2, ::2], sums, rtol=1e-5)
    assert np.count_nonzero(gradient) == sums.size
    with pytest.raises(ValueError, match=r"superpixel: .* 6 x 4 .* got 5"):
        written_phases(phases, DeviceOptions(superpixel=5))


@pytest.mark.parametrize("panel_pixels", [1, 2, 8])
@pytest.mark.parametrize("crosstalk", [0.05, 0.1, 0.3, 0.5, 2.0])
def test_crosstalk_is_that_of_a_finer_device(crosstalk, panel_pixels):
    """The drive drawn 16 times finer than the panel, blurred by SciPy; amplitudes in the window."""
    size, fine = 12, 16 * panel_pixels
    rng = np.random.default_rng(0)
    phases, field = rng.uniform(0, TURN, (size, size)), np.exp(2j * rng.uniform(size=(size, size)))
    device = DeviceOptions(crosstalk=crosstalk, panel_pixels=panel_pixels)
    camera = Camera(size=size, device=device)
    optics = camera.optics(jnp.asarray(phases, jnp.float32)[None])
    seen = np.sqrt(measure_intensity(jnp.asarray(field), optics.masks, path=optics.path))

    drawn_finely = np.kron(np.mod(-phases, TURN), np.ones((fine, fine)))
    added = gaussian_filter(drawn_finely, 16 * crosstalk, mode="nearest", truncate=6)
    behind = np.exp(1j * added) * np.kron(field, np.ones((fine, fine)))
    frequency = np.fft.fftfreq(size)
    places = (np.arange(fine * size) + 0.5) / fine
    kernel = np.exp(-2j * np.pi * np.outer(frequency, places)) / np.sinc(frequency)[:, None]
    wanted = np.abs(kernel @ behind @ kernel.T) / fine**2 / size
    assert np.linalg.norm(seen[0] - wanted) / np.linalg.norm(wanted) < 0.02
    if crosstalk >= 0.3 * panel_pixels:  # which no blur of the pixels' own phases is
        plain = np.abs(np.fft.fft2(np.exp(-1j * phases) * field, norm="ortho"))
        assert np.linalg.norm(plain - wanted) / np.linalg.norm(wanted) > 0.2


def test_gain_acts_on_what_the_device_adds():
    phases = drawn((2, 12, 9))
    added = np.mod(-np.asarray(phases, float), TURN)
    for seen in (
        device_masks(phases, DeviceOptions(), gain=jnp.float32(1.1)),
        device_masks(phases, DeviceOptions(gain=1.1)),
    ):
        np.testing.assert_allclose(seen, -1.1 * added, atol=1e-5)


def test_gaps_that_absorb_and_a_zero_order_with_a_phase():
    phases = drawn()
    absorbing = DeviceOptions(fill_factor=0.8, gaps="absorbing")
    phasor = np.exp(1j * np.asarray(phases, float))
    np.testing.assert_allclose(device_masks(phases, absorbing), 0.8 * phasor, atol=1e-5)
    reflecting = DeviceOptions(zero_order=0.09, zero_order_phase=1.2)
    light = np.conj(np.asarray(device_masks(phases, reflecting)))
    wanted = np.sqrt(0.91) * np.conj(phasor) + 0.3 * np.exp(1.2j)
    np.testing.assert_allclose(light, wanted, atol=1e-5)


def test_light_that_is_not_modulated_adds_as_a_field():
    phases = drawn()
    seen = np.asarray(device_masks(phases, DeviceOptions(fill_factor=0.9, zero_order=0.04)))
    phasor = np.exp(1j * np.asarray(phases, float))
    wanted = np.sqrt(0.96) * (0.9 * phasor + 0.1) + np.sqrt(0.04)
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_an_ideal_device_is_no_device():
    phases = drawn()
    assert device_masks(written_phases(phases, DeviceOptions()), DeviceOptions()) is phases


def test_camera_measures_through_the_device_and_recovery_knows_it():
    device = DeviceOptions(levels=4, superpixel=2, fill_factor=0.8, zero_order=0.02, crosstalk=0.3)
    camera = Camera(size=16, device=device)
    phases = drawn((1, 16, 16))
    images = jnp.asarray(np.random.default_rng(2).uniform(size=(2, 16, 16, 1)), jnp.float32)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient_and_cdps(phases):
        y = camera.measure(camera.optics(phases), images, jax.random.key(0))
        return jnp.sum(jnp.square(y)), y

    gradient, y = gradient_and_cdps(phases)
    assert np.all(np.isfinite(gradient))
    assert np.count_nonzero(gradient) == 64  # one of each super-pixel
    written = written_phases(phases, DeviceOptions(levels=4, superpixel=2))
    shows = DeviceOptions(fill_factor=0.8, zero_order=0.02, crosstalk=0.3)
    masks = device_masks(written, shows, fine=FINE)
    field = as_phasors(jnp.pi * images[0, ..., 0])
    dft = matrix_dft(16, (16, 16), step=1.0, fine=FINE)
    wanted = measure_intensity(field, masks, path=dft)
    np.testing.assert_allclose(y[0], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(camera.optics(phases).masks, masks)
    np.testing.assert_array_equal(camera.written(phases), written)
