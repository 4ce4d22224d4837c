"""A camera window: against FFTs, dense matrices and a finer object; and what is recovered by it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import rejection, tiny_config, untrained_run

from jax_kdpr.config import checks
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics, cdp_adjoint, cdp_forward, measure_intensity
from jax_kdpr.optics.misalignment import FINE, MountOptions, Perturbation
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.optics.window import SensorOptions, matrix_dft
from jax_kdpr.recovery.data_consistency import error_reduction
from jax_kdpr.recovery.solvers import SOLVERS, amplitude_misfit, solve
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init, gaussian_kernel

pytestmark = pytest.mark.gpu

SIZE = 12
RNG = np.random.default_rng(0)
PHASES = RNG.uniform(0, 2 * np.pi, (2, SIZE, SIZE))
OBJECT = np.exp(1j * RNG.uniform(0, 2, (SIZE, SIZE)))


def dense(sensor: tuple[int, int], step: float) -> np.ndarray:
    """Each sample of the window as a sum over the object's pixels [sh sw h w]."""
    u, v = (np.arange(n) - n // 2 for n in sensor)
    places = np.arange(SIZE) / SIZE
    turns = step * (
        u[:, None, None, None] * places[:, None] + v[:, None, None] * places[None, None, None]
    )
    return np.fft.ifftshift(np.exp(-2j * np.pi * turns) * step / SIZE, axes=(0, 1))


@pytest.mark.parametrize("oversample", [1, 2])
@pytest.mark.parametrize("size", [12, 96])
def test_on_the_grid_of_an_fft_it_is_that_fft(size, oversample):
    phases = jnp.asarray(RNG.uniform(0, 6, (1, size, size)), jnp.float32)
    field = jnp.asarray(oracles.random_complex(RNG, (size, size)), jnp.complex64)
    dft = matrix_dft(size, (oversample * size,) * 2, step=1 / oversample)
    plain = cdp_forward(field, phases, oversample=oversample)
    spectra = cdp_forward(field, phases, path=dft)
    error = np.linalg.norm(spectra - plain) / np.linalg.norm(plain)
    assert error < 1e-5 / 5
    back = cdp_adjoint(spectra, phases, path=dft) - cdp_adjoint(plain, phases)
    assert np.linalg.norm(back) / np.linalg.norm(field) < 1e-5 / 5


@pytest.mark.parametrize(("sensor", "step"), [((9, 7), 1.0), ((20, 15), 0.37), ((5, 6), 0.9)])
def test_any_pitch_and_any_window(sensor, step):
    dft = matrix_dft(SIZE, sensor, step=step)
    spectra = cdp_forward(jnp.asarray(OBJECT), jnp.asarray(PHASES), path=dft)
    wanted = np.einsum("uvhw,khw->kuv", dense(sensor, step), np.exp(-1j * PHASES) * OBJECT)
    np.testing.assert_allclose(np.abs(spectra), np.abs(wanted), atol=2e-5)


def test_a_pattern_is_magnified_by_a_longer_wavelength():
    known, traced = (
        matrix_dft(SIZE, (9, 9), step=0.5, magnification=longer)
        for longer in (1.25, jnp.asarray(1.25))
    )
    other = matrix_dft(SIZE, (9, 9), step=0.4)  # the same frequencies
    for dft in (known, traced):
        np.testing.assert_allclose(dft.rows, other.rows, atol=1e-5)


def test_the_adjoint_is_exact(x64):
    for fine in (1, 3):
        dft = jax.tree.map(
            lambda one: one.astype(jnp.complex128), matrix_dft(SIZE, (9, 7), step=0.37, fine=fine)
        )
        masks = jnp.asarray(RNG.uniform(0, 6, (2, fine * SIZE, fine * SIZE)))
        x, s = (jnp.asarray(oracles.random_complex(RNG, n)) for n in ((SIZE, SIZE), (2, 9, 7)))
        one = jnp.vdot(cdp_forward(x, masks, path=dft), s)
        other = jnp.vdot(x, cdp_adjoint(s, masks, path=dft))
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_known_place_of_the_mask_is_that_of_a_finer_simulation():
    """Half a pixel aside, turned by two degrees: squares drawn 24 times finer, in NumPy."""
    place = MountOptions(shift_y=0.5, shift_x=-0.3, rotation=2.0, scale=0.02)
    camera = Camera(size=SIZE, mount=place)
    optics = camera.optics(jnp.asarray(PHASES, jnp.float32))
    seen = np.sqrt(measure_intensity(jnp.asarray(OBJECT), optics.masks, path=optics.path))

    fine = 24
    centre = (fine * SIZE - 1) / 2
    y = (np.arange(fine * SIZE) - centre)[:, None] / fine - place.shift_y
    x = (np.arange(fine * SIZE) - centre)[None, :] / fine - place.shift_x
    angle, grown = np.deg2rad(place.rotation), 1 + place.scale
    rows = (np.cos(angle) * y + np.sin(angle) * x) / grown + (SIZE - 1) / 2
    columns = (np.cos(angle) * x - np.sin(angle) * y) / grown + (SIZE - 1) / 2
    near = np.rint(rows).astype(int), np.rint(columns).astype(int)
    inside = np.all([(n >= 0) & (n < SIZE) for n in near], axis=0)
    masks = np.exp(1j * PHASES)[:, *(n.clip(0, SIZE - 1) for n in near)]
    behind = np.conj(np.where(inside, masks, 1.0)) * np.kron(OBJECT, np.ones((fine, fine)))
    frequency = np.fft.fftfreq(SIZE)
    places = (np.arange(fine * SIZE) - centre) / fine
    kernel = np.exp(-2j * np.pi * np.outer(frequency, places)) / np.sinc(frequency)[:, None]
    wanted = np.abs(kernel @ behind @ kernel.T) / fine**2 / SIZE
    assert np.linalg.norm(seen - wanted) / np.linalg.norm(wanted) < 0.1
    design = np.sqrt(measure_intensity(jnp.asarray(OBJECT), jnp.asarray(PHASES)))
    assert np.linalg.norm(design - wanted) / np.linalg.norm(wanted) > 0.4


@pytest.mark.parametrize(
    "camera",
    [
        Camera(size=SIZE, grid=SensorOptions(step=0.5, rows=20, columns=19)),
        Camera(size=SIZE, mount=MountOptions(shift_y=0.4, rotation=1.0)),
    ],
)
def test_error_reduction_comes_nearer_to_what_the_window_saw(camera):
    optics = camera.optics(jnp.asarray(PHASES, jnp.float32))
    field = jnp.asarray(OBJECT, jnp.complex64)
    y = measure_intensity(field, optics.masks, path=optics.path)
    start = jnp.asarray(field * np.exp(0.3j * RNG.normal(size=field.shape)), jnp.complex64)
    misfits = [
        float(
            amplitude_misfit(
                error_reduction(start, y, optics, steps=steps, scene=SceneOptions()), y, optics
            )
        )
        for steps in (0, 1, 5, 50, 500)
    ]
    assert misfits == sorted(misfits, reverse=True) and misfits[-1] < 0.05 * misfits[0]


def test_a_window_starts_the_recovery_as_the_whole_pattern_does():
    """With the whole, finely sampled pattern the estimate is that of zero padding."""
    camera = Camera(size=SIZE, grid=SensorOptions(step=0.5))
    padded = Camera(size=SIZE, oversample=2)
    phases, field = jnp.asarray(PHASES, jnp.float32), jnp.asarray(OBJECT, jnp.complex64)
    start = jnp.asarray(oracles.random_complex(RNG, (SIZE, SIZE)), jnp.complex64)
    found = []
    for one in (camera, padded):
        assert one.sensor == (2 * SIZE, 2 * SIZE)
        optics = one.optics(phases)
        y = measure_intensity(field, phases, oversample=one.oversample, path=optics.path)
        kernel = jnp.asarray(gaussian_kernel())
        found.append(filtered_spectral_init(y, optics, kernel, start, SpectralOptions())[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in ("hio", "raar")])
def test_solvers_recover_from_a_window(solver):
    phases = jnp.asarray(RNG.uniform(0, 6, (4, SIZE, SIZE)), jnp.float32)
    optics = Camera(size=SIZE, grid=SensorOptions(step=0.5, rows=21, columns=22)).optics(phases)
    y = measure_intensity(jnp.asarray(OBJECT), optics.masks, path=optics.path)
    start = jnp.asarray(OBJECT * np.exp(0.5j * RNG.normal(size=OBJECT.shape)), jnp.complex64)
    how = {"solver": solver, "steps": 300, "scene": "phase"}
    assert solve(y, optics, start, **how)[1] < 0.02


@pytest.mark.parametrize("solver", ["hio", "raar"])
def test_solvers_that_must_project_exactly_refuse_a_window(solver):
    optics = Camera(size=SIZE, grid=SensorOptions(rows=8)).optics(jnp.asarray(PHASES))
    y = measure_intensity(jnp.asarray(OBJECT), optics.masks, path=optics.path)
    said = rejection(solve, y, optics, jnp.asarray(OBJECT), solver=solver, steps=2, scene="phase")
    assert said.startswith(f"{solver}:") and "error_reduction" in said


def test_a_system_is_trained_through_a_window():
    config = tiny_config(sensor__step=0.45, sensor__rows=25, sensor__columns=21)
    run = untrained_run(config, Path())
    images = jnp.asarray(RNG.uniform(0, 1, (2, 16, 16, 1)), jnp.float32)

    def loss(phases):
        params = {**run.variables[0], "phases": phases}
        output, _ = run.system.apply(params, run.variables[1], images, jax.random.key(0))
        return jnp.mean(jnp.square(output.image - images)), output

    (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(run.phases)
    assert output.intensity.shape == (2, 1, 25, 21)
    assert np.all(np.isfinite(gradient)) and float(jnp.abs(gradient).max()) > 0


def test_errors_of_a_bench_are_seen_through_the_window():
    """No error changes nothing, a larger one more."""
    camera = Camera(size=SIZE, grid=SensorOptions(step=0.5, rows=18, columns=20))
    jittered = dataclasses.replace(camera, jitter=dataclasses.replace(camera.jitter, shift=0.1))
    optics = camera.optics(jnp.asarray(PHASES, jnp.float32))
    images = jnp.asarray(RNG.uniform(0, 1, (3, SIZE, SIZE, 1)), jnp.float32)
    still, moved = (one.measure(optics, images, jax.random.key(0)) for one in (camera, jittered))
    none = camera.measure(optics, images, jax.random.key(0), by=Perturbation())
    np.testing.assert_allclose(none, still, rtol=1e-3, atol=1e-4)
    assert moved.shape == still.shape and np.abs(moved - still).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sensor__rows": 99}, ("sensor.rows", "16")),
        ({"sensor__step": 0.5, "masks__oversample": 2}, ("masks.oversample", "sensor.step")),
        ({"sensor__step": -1.0}, ("sensor.step", "cycles")),
        (
            {
                "sensor__step": 0.5,
                "propagation__kind": "angular_spectrum",
                "propagation__wavelength": 5e-7,
                "propagation__pitch": 8e-6,
                "propagation__distance": 1e-3,
            },
            ("sensor.step", "angular_spectrum"),
        ),
    ],
)
def test_windows_that_there_cannot_be_are_refused(changes, said):
    refused = rejection(checks.validate, tiny_config(**changes))
    assert refused.startswith(said[0]) and said[1] in refused


def test_fine_masks_are_those_of_the_design_where_nothing_has_moved():
    camera = Camera(size=SIZE)
    dft = matrix_dft(SIZE, camera.sensor, step=1.0, fine=FINE)
    masks = jnp.repeat(jnp.repeat(jnp.asarray(PHASES), FINE, 1), FINE, 2)
    plain = cdp_forward(jnp.asarray(OBJECT), jnp.asarray(PHASES))
    np.testing.assert_allclose(
        np.abs(cdp_forward(jnp.asarray(OBJECT), masks, path=dft)), np.abs(plain), atol=1e-4
    )
    optics = Optics(masks, dft)
    assert amplitude_misfit(jnp.asarray(OBJECT), jnp.abs(plain) ** 2, optics) < 1e-4
