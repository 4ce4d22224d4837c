"""Errors of a bench: each against its closed form, and the design where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jax_kdpr.optics.beam import AberrationOptions, IlluminationOptions, read_beam
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import cdp_forward
from jax_kdpr.optics.misalignment import (
    FINE,
    SPREADS,
    JitterOptions,
    Perturbation,
    aberrated_field,
    displaced_masks,
    draw,
)
from jax_kdpr.optics.propagation import PropagationOptions
from jax_kdpr.optics.window import matrix_dft

SIZE = 12


LENGTHS = {"wavelength": 633e-9, "pitch": 8e-6, "distance": 1e-3}


def drawn_phases(k: int = 1) -> jnp.ndarray:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(0, 2 * np.pi, (k, SIZE, SIZE)), jnp.float32)


def images(count: int = 1) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(5).uniform(size=(count, SIZE, SIZE, 1)), jnp.float32)


def measure(phases, by=None, scenes=None, jitter=None, beam=None, **options) -> jnp.ndarray:
    """CDPs of a camera with these options of its propagation."""
    camera = Camera(
        size=SIZE,
        propagation=PropagationOptions(**options),
        beam=beam,
        jitter=jitter or JitterOptions(),
    )
    scenes = images() if scenes is None else scenes
    return camera.measure(camera.optics(phases), scenes, jax.random.key(0), by)


def moved(phases, **by) -> np.ndarray:
    return np.asarray(displaced_masks(phases, Perturbation(**by)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"kind": "angular_spectrum", **LENGTHS}])
def test_no_error_is_the_design(options):
    design = measure(drawn_phases(2), **options)
    bench = measure(drawn_phases(2), Perturbation(), **options)
    np.testing.assert_allclose(bench, design, atol=2e-5 * float(design.max()))


def test_a_shift_lets_light_pass_beside_the_mask_and_half_a_pixel_is_the_mean_of_two():
    phases = drawn_phases()
    phasor = np.exp(1j * np.asarray(phases))
    wanted = np.ones((1, SIZE, SIZE), complex)
    wanted[:, 2:, :-1] = phasor[:, :-2, 1:]
    np.testing.assert_allclose(moved(phases, shift_y=2.0, shift_x=-1.0), wanted, atol=1e-5)
    seen = moved(phases, shift_x=0.5)[:, :, 1:]
    np.testing.assert_allclose(seen, (phasor[:, :, 1:] + phasor[:, :, :-1]) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("by", "oversample"),
    [
        ({"shift_y": 0.1}, 1),
        ({"shift_y": 1.5, "shift_x": -1.2}, 2),
        ({"rotation": 5.0}, 2),
        ({"scale": 0.05}, 1),
    ],
    ids=str,
)
def test_a_displaced_mask_is_that_of_a_much_finer_drawing(by, oversample):
    """Squares of 24 samples a side without any interpolation, written with NumPy."""
    rng = np.random.default_rng(1)
    phases = rng.uniform(0, 2 * np.pi, (SIZE, SIZE))
    smooth = np.add.outer(np.sin(np.arange(SIZE) / 2), np.cos(np.arange(SIZE) / 3))
    field = np.exp(1j * smooth)
    fine, sensor, centre = 24, oversample * SIZE, (SIZE - 1) / 2
    places = (np.arange(SIZE * fine) + 0.5) / fine - 0.5
    bench = Perturbation(**by)
    y, x = np.meshgrid(
        places - centre - bench.shift_y, places - centre - bench.shift_x, indexing="ij"
    )
    turn = np.exp(-1j * np.deg2rad(bench.rotation)) / (1 + bench.scale)
    seen = (y + 1j * x) * turn
    rows = np.rint(seen.real + centre).astype(int)
    columns = np.rint(seen.imag + centre).astype(int)
    inside = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE)
    inner = np.exp(1j * phases)[rows.clip(0, SIZE - 1), columns.clip(0, SIZE - 1)]
    behind = np.kron(field, np.ones((fine, fine))) * np.conj(np.where(inside, inner, 1.0))
    frequency = np.fft.fftfreq(sensor)
    kernel = np.exp(-2j * np.pi * np.outer(frequency, places)) / np.sinc(frequency)[:, None]
    wanted = np.abs(kernel @ behind @ kernel.T / (fine**2 * sensor))

    masks = jnp.asarray(phases, jnp.float32)[None]
    object_ = jnp.asarray(field, jnp.complex64)

    def distance(spectra):
        return np.linalg.norm(np.abs(spectra[0]) - wanted) / np.linalg.norm(wanted)

    def drawn(samples):
        moved = displaced_masks(masks, bench, fine=samples)
        shape, step = (sensor, sensor), 1 / oversample
        dft = matrix_dft(SIZE, shape, step=step, fine=samples)
        return cdp_forward(object_, moved, path=dft)

    assert distance(drawn(9)) < 0.02
    assert distance(drawn(FINE)) < 0.1
    if by != {"shift_y": 0.1}:  # which changes the pattern by 0.03 only
        design = cdp_forward(object_, masks, oversample=oversample)
        assert distance(drawn(FINE)) < 0.3 * distance(design)


def test_a_mask_turns_counter_clockwise_about_its_centre():
    phases = drawn_phases()
    wanted = np.rot90(np.exp(1j * np.asarray(phases)), axes=(1, 2))
    np.testing.assert_allclose(moved(phases, rotation=90.0), wanted, atol=1e-4)


def test_defocus_is_the_stated_number_of_waves_at_half_the_side():
    seen = aberrated_field(jnp.ones((SIZE, SIZE), jnp.complex64), Perturbation(defocus=0.3))
    centred = np.arange(SIZE) - SIZE // 2
    waves = 0.3 * (centred[:, None] ** 2 + centred**2) / (SIZE // 2) ** 2
    np.testing.assert_allclose(seen, np.exp(2j * np.pi * waves), atol=1e-5)


@pytest.mark.parametrize("oversample", [1, 2])
def test_a_longer_wavelength_magnifies_the_pattern(oversample):
    field = jnp.asarray(oracles.random_complex(np.random.default_rng(1), (SIZE, SIZE)), "complex64")
    masks = drawn_phases(2)
    sensor = (oversample * SIZE, oversample * SIZE)
    longer = jnp.asarray(1.1)  # as a bench has it, whose wavelength is drawn
    dft = matrix_dft(SIZE, sensor, step=1 / oversample, magnification=longer)
    stretched = cdp_forward(field, masks, path=dft)
    frequency = np.fft.fftfreq(sensor[0]) / 1.1
    turns = np.outer(frequency, np.arange(SIZE))
    matrix = np.exp(-2j * np.pi * turns) / np.sqrt(1.1 * sensor[0])
    behind = np.exp(-1j * np.asarray(masks, float)) * np.asarray(field)
    np.testing.assert_allclose(stretched, matrix @ behind @ matrix.T, atol=1e-4)


def test_drawn_errors_have_the_stated_spread_and_are_independent():
    sizes = (0.5, 2.0, 0.01, 0.2, 0.003, 0.05, 0.03, 0.1, 0.4)
    spreads = dict(zip(SPREADS, sizes, strict=True))
    keys = jax.random.split(jax.random.key(0), 20000)
    drawn = np.stack(jax.vmap(lambda key: draw(key, JitterOptions(**spreads)))(keys))
    shared = spreads | {"wavefront": 0.4 / np.sqrt(7)}
    wanted = [shared[name] for name, fields in SPREADS.items() for _ in fields]
    np.testing.assert_allclose(drawn.std(axis=1), wanted, rtol=0.03)
    np.testing.assert_allclose(drawn.mean(axis=1) / wanted, 0.0, atol=0.04)
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.03


@pytest.mark.slow
def test_jitter_gives_every_scene_a_bench_of_its_own():
    twice, jitter = jnp.repeat(images(), 2, axis=0), JitterOptions(shift=0.3, rotation=1.0)
    one, other = measure(drawn_phases(), scenes=twice, jitter=jitter)
    assert float(jnp.linalg.norm(one - other) / jnp.linalg.norm(one)) > 0.05
    again = measure(drawn_phases(), scenes=twice, jitter=jitter)
    np.testing.assert_array_equal(again[0], one)


def test_the_wavelength_changes_what_the_device_shows():
    phases, near = drawn_phases(), {"kind": "angular_spectrum", **LENGTHS}
    seen = measure(phases, Perturbation(wavelength=0.02), **near)
    shown = -(jnp.mod(-phases, 2 * np.pi) / 1.02)  # the device adds p = -phi
    wanted = measure(shown, **near | {"wavelength": 633e-9 * 1.02})
    np.testing.assert_allclose(seen, wanted, atol=1e-3 * float(wanted.max()))


def test_a_wavelength_error_far_behind_a_fresnel_mask_is_that_of_the_far_field():
    by = Perturbation(wavelength=0.05)
    seen = measure(drawn_phases(), by, **LENGTHS | {"kind": "fresnel", "distance": 1e4})
    far, design = measure(drawn_phases(), by), measure(drawn_phases())
    np.testing.assert_allclose(seen, far, atol=1e-3 * float(far.max()))
    assert float(jnp.linalg.norm(seen - design) / jnp.linalg.norm(design)) > 0.1


def test_errors_have_gradients():
    by = Perturbation(0.2, -0.3, 1.0, 0.01, 0.1, 0.002, 0.02, 0.1, 0.2, 0.1, *[0.1] * 7)
    lit = read_beam(IlluminationOptions(kind="gaussian"), AberrationOptions(), size=SIZE)
    total = lambda by: jnp.sum(jnp.square(measure(drawn_phases(), by, beam=lit)))  # noqa: E731
    gradient = jax.jit(jax.grad(total))(jax.tree.map(jnp.float32, by))
    assert all(np.isfinite(value) and value != 0 for value in gradient)
