"""A mask at a distance from the object: against SciPy, dense matrices, and in every recovery."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import rejection
from scipy import fft

import jax_kdpr as kdpr
from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config
from jax_kdpr.core.options import changed
from jax_kdpr.evaluation.uniqueness.comparison import make_subject
from jax_kdpr.optics.beam import AberrationOptions, Beam, IlluminationOptions, read_beam
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import as_phasors, back_propagate, cdp_forward, propagate
from jax_kdpr.optics.device import DeviceOptions
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.optics.paths import before_mask
from jax_kdpr.optics.propagation import PropagationOptions, sampling_warnings
from jax_kdpr.optics.window import SensorOptions
from jax_kdpr.recovery.solvers import amplitude_misfit, require_projection, solve
from jax_kdpr.recovery.spectral import SpectralOptions, gaussian_kernel, spectral_estimates

N, WAVELENGTH, PITCH, GAP = 16, 532e-9, 8e-6, 0.8e-3
APART = PropagationOptions(wavelength=WAVELENGTH, pitch=PITCH, gap=GAP)
RNG = np.random.default_rng(0)
PHASES = RNG.uniform(0, 2 * np.pi, (2, N, N)).astype(np.float32)
PHASE = jnp.asarray(PHASES[:1])
FIELD = np.exp(1j * RNG.uniform(0, np.pi, (N, N))).astype(np.complex64)


def gaussian(waist: float) -> Beam:
    beam = read_beam(IlluminationOptions(kind="gaussian", waist=waist), AberrationOptions(), size=N)
    assert beam is not None
    return beam


def at_mask(field: np.ndarray, finer: int = 1) -> np.ndarray:
    """By SciPy, in double precision, in a window of eight times the object's."""
    wide = 8 * N * finer
    frequency = fft.fftfreq(wide, PITCH / finer)
    squared = WAVELENGTH**2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2)
    turns = np.exp(2j * np.pi * GAP / WAVELENGTH * (np.sqrt(1 - squared) - 1))
    return fft.ifft2(turns * fft.fft2(field, (wide, wide)))[: N * finer, : N * finer]


@pytest.mark.parametrize("kind", ["far", "fresnel", "angular_spectrum"])
def test_light_crosses_the_gap_before_the_mask(kind):
    lengths = changed(APART, kind=kind, distance=0.0 if kind == "far" else 4e-3)
    camera = Camera(N, propagation=lengths)
    optics = camera.optics(jnp.asarray(PHASES))
    together = Camera(N, propagation=changed(lengths, gap=0.0)).optics(jnp.asarray(PHASES))
    seen = cdp_forward(jnp.asarray(FIELD), optics.masks, path=optics.path)
    wide = jnp.asarray(at_mask(FIELD), jnp.complex64)
    expected = cdp_forward(wide, together.masks, path=together.path)
    size = np.linalg.norm(expected)
    # Twice the window, in place of eight times: what comes round its edges is small.
    assert np.linalg.norm(seen - expected) < 0.02 * size
    # And the gap does something: without it the pattern is another one.
    alone = cdp_forward(jnp.asarray(FIELD), together.masks, path=together.path)
    assert np.linalg.norm(np.abs(seen) - np.abs(alone)) > 0.3 * size


@pytest.mark.parametrize("step", [0.0, 0.5])
def test_its_adjoint_is_exact_with_a_beam_too(step):
    beam = gaussian(0.5)
    camera = Camera(N, propagation=APART, beam=beam, grid=SensorOptions(step=step))
    optics = camera.optics(jnp.asarray(PHASES))
    spectra = RNG.normal(size=(2, *camera.sensor)) + 1j * RNG.normal(size=(2, *camera.sensor))
    spectra = jnp.asarray(spectra, jnp.complex64)
    through = as_phasors(optics.masks)
    forward = propagate(jnp.asarray(FIELD), through, camera.sensor, optics.path)
    back = back_propagate(spectra, through, optics.path)
    np.testing.assert_allclose(
        jnp.vdot(spectra, forward), jnp.vdot(back, jnp.asarray(FIELD)), rtol=1e-4
    )
    even = Camera(N, propagation=APART, grid=camera.grid).optics(jnp.asarray(PHASES))
    bare = cdp_forward(beam.incident() * FIELD, even.masks, path=even.path)
    np.testing.assert_allclose(forward, bare, atol=1e-4)


def test_a_bench_without_errors_is_the_design():
    beam = gaussian(0.5)
    camera = Camera(N, propagation=APART, beam=beam)
    optics, images = camera.optics(jnp.asarray(PHASES)), jnp.asarray(RNG.random((2, N, N, 1)))
    design = camera.measure(optics, images, jax.random.key(0))
    bench = camera.measure(optics, images, jax.random.key(0), Perturbation())
    np.testing.assert_allclose(design, bench, atol=1e-3 * float(design.max()))
    assert not camera.knows_light


def test_the_gradient_of_the_estimate_is_that_of_differences():
    beam = gaussian(0.7)
    camera = Camera(N, propagation=APART, beam=beam)
    image, start = RNG.random((1, N, N, 1)), RNG.normal(size=(N, N)) + 0j
    towards = jnp.asarray(RNG.normal(size=PHASES.shape))

    with jax.enable_x64(True):

        def loss(phases):
            optics = camera.optics(phases)
            y = camera.measure(optics, jnp.asarray(image), jax.random.key(0))
            found, _ = spectral_estimates(
                y,
                optics,
                jnp.asarray(gaussian_kernel(), jnp.float64),
                jnp.asarray(start),
                SpectralOptions(iterations=4),
            )
            return jnp.sum(jnp.square(jnp.abs(found[0] - jnp.asarray(FIELD))))

        phases = jnp.asarray(PHASES, jnp.float64)
        along = jnp.asarray(towards, jnp.float64)
        gradient = jnp.vdot(jax.grad(loss)(phases), along)
        step = 1e-5
        difference = (loss(phases + step * along) - loss(phases - step * along)) / (2 * step)
    np.testing.assert_allclose(gradient, difference, rtol=1e-5)


def test_objects_are_recovered_and_not_as_if_there_were_no_gap():
    config = Config(propagation=APART)
    config.data.source, config.data.size = "scenes", N
    bench = kdpr.bench(PHASES, config, solver=kdpr.Refinement(200, "accelerated"), starts=4)
    images = np.asarray(bench.scenes(3))
    frames = bench.measure(images)
    found = bench.reconstruct(frames, gain=1.0)
    scores = bench.camera.score(jnp.asarray(found.image), jnp.asarray(images))
    assert found.misfit.max() < 0.05 and float(jnp.min(scores.psnr)) > 30
    none = dataclasses.replace(config, propagation=PropagationOptions())
    blind = kdpr.bench(PHASES, none, solver=kdpr.Refinement(200, "accelerated"), starts=4)
    assert blind.reconstruct(frames, gain=1.0).misfit.min() > 3 * found.misfit.max()


def test_what_a_gap_wants_or_does_not_allow_is_said():
    assert "propagation.pitch" in rejection(
        checks.validate, Config(propagation=changed(APART, pitch=0.0))
    )
    assert "propagation.gap" in rejection(
        checks.validate, Config(propagation=changed(APART, gap=0.0))
    )
    optics = Camera(N, propagation=APART).optics(jnp.asarray(PHASES))
    assert "propagation.gap" in rejection(require_projection, "raar", optics)
    (far,) = sampling_warnings(N, changed(APART, gap=1.0))
    assert far.endswith("take a shorter gap or a larger pitch")
    assert far.startswith("gap: distance 1 m is above")


@pytest.mark.parametrize("solver", ["error_reduction", "wirtinger", "taf", "raf", "accelerated"])
def test_solvers_stay_finite_where_masks_let_through_unevenly(solver):
    device = DeviceOptions(zero_order=0.2)
    camera = Camera(N, oversample=2, propagation=APART, device=device)
    optics = camera.optics(jnp.asarray(PHASES[:1]))
    y = camera.measure(optics, jnp.asarray(RNG.random((1, N, N, 1))), jax.random.key(0))[0]
    off = FIELD * np.exp(0.1j * RNG.normal(size=(N, N)))
    start = jnp.asarray(off, jnp.complex64)
    found, misfit = solve(y, optics, start, solver=solver, steps=200, scene="none")
    assert np.all(np.isfinite(found)) and misfit < amplitude_misfit(start, y, optics)


def test_smooth_objects_are_near_to_what_squares_of_a_finer_simulation_give():
    smooth = np.exp(2j * np.exp(-(((np.indices((N, N)) - N / 2) / 4) ** 2).sum(0)))
    finer = 8
    squares = at_mask(np.kron(smooth, np.ones((finer, finer))), finer=finer)
    means = squares.reshape(N, finer, N, finer).mean((1, 3))
    ours = before_mask(
        jnp.asarray(smooth, jnp.complex64), Camera(N, propagation=APART).optics(PHASE).path
    )
    assert np.linalg.norm(ours - means) < 0.1 * np.linalg.norm(means)


def test_false_objects_are_not_compared_behind_a_gap():
    config = Config(propagation=APART)
    config.data.size = N
    said = rejection(make_subject, config, {}, {"mine": PHASE}, random=False, scenes=1)
    assert "propagation.gap" in said
