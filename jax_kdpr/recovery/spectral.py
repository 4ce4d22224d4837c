"""Filtered spectral initialisation: algorithm 1 of arXiv 2505.18352.

The leading eigenvector of Gamma(y) = (1/k) sum_l A_l^H F^H diag(w_l) F A_l estimates the scene,
because bright sensor pixels say which Fourier modes of A_l x are strong. With one snapshot F A is
unitary, so the eigenvectors of Gamma alone are single Fourier modes and say nothing of the scene.
Only the low-pass filter G_psi between the iterations makes the estimate.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex

from jax_kdpr.core.limits import SHARE, Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import (
    Field,
    Fields,
    Intensities,
    Intensity,
    Kernel,
    Residuals,
    Scalar,
)
from jax_kdpr.optics.cdp import Optics, as_phasors, check_sensor, mask_power
from jax_kdpr.optics.paths import Apart, pixels_within, spread_pixels
from jax_kdpr.optics.phase import GAUGES, fix_global_phase
from jax_kdpr.recovery.power_iteration import Operator, power_iteration, safe_sqrt

DIM = 0.05  # least amplitude of a beam, over its rms, that an estimate is divided by


def gaussian_kernel(size: int = 5, sigma: float = 1.0) -> np.ndarray:
    """Returns a Gaussian low-pass kernel [size size] of unit sum; `sigma` in pixels, `size` odd."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of taps, got {size}")
    offsets = np.arange(size) - size // 2
    profile = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return (kernel / kernel.sum()).astype(np.float32)


def soft_weights(intensity: Intensity, options: "SpectralOptions") -> Intensity:
    """Returns r / (1 + r) with r = y / mean(y), smooth and in [0, 1).

    Gradients reach the masks through y.
    """
    ratio = relative_weights(intensity, options)
    return ratio / (1.0 + ratio)


def relative_weights(intensity: Intensity, options: "SpectralOptions") -> Intensity:
    """Returns r = y / mean(y), with the mean over all snapshots and pixels of this sample."""
    mean = jnp.mean(intensity)
    return intensity / jnp.where(mean > 0, mean, 1.0)  # finite gradients for a dark frame too


def brightest(intensity: Intensity, options: "SpectralOptions") -> Intensity:
    """Returns 1 for the ceil(fraction * m) brightest of m pixels (ties included), else 0."""
    kept = max(1, math.ceil(options.fraction * intensity.size))
    faintest_kept = lax.top_k(lax.stop_gradient(intensity).ravel(), kept)[0][-1]
    return (intensity >= faintest_kept).astype(intensity.dtype)


def above_threshold(intensity: Intensity, options: "SpectralOptions") -> Intensity:
    """Returns 1 where y >= (1 - threshold) * max(y), else 0."""
    least = (1.0 - options.threshold) * jnp.max(intensity)
    return (intensity >= least).astype(intensity.dtype)


WEIGHTS: Registry[Callable[[Intensity, "SpectralOptions"], Intensity]] = Registry(
    "weights",
    {
        "soft": soft_weights,
        "intensity": relative_weights,
        "topk": brightest,
        "threshold": above_threshold,
    },
)


@section
class SpectralOptions:
    """Filtered spectral initialisation (algorithm 1)."""

    iterations: int = option(25, "T, power iterations", within=Range(1, 10_000))
    weights: str = option("soft", "how Gamma weighs the measured pixels", choices=WEIGHTS)
    fraction: float = option(
        1 / 6,
        "share of the sensor pixels that are taken",
        within=Range(0, 1, "(]"),
        when=("spectral.weights", ("topk",)),
    )
    threshold: float = option(
        0.6,
        "p: pixels of at least (1 - p) max(y) are taken",
        within=SHARE,
        when=("spectral.weights", ("threshold",)),
    )
    filter_size: int = option(5, "taps each way of the low-pass filter", within=Range(1, 8192))
    filter_sigma: float = option(
        1.0, "sigma of the initial Gaussian", unit="pixels", within=Range(0, 1000, "(]")
    )
    gauge: str = option(
        "start",
        "what sets the estimate's global phase: the start vector, or a real and positive mean",
        choices=GAUGES,
    )
    consistency_steps: int = option(
        0, "error-reduction steps between estimate and network", within=Range(0, 10_000)
    )


def spectral_weights(intensity: Intensity, options: SpectralOptions) -> Intensity:
    """Turns the intensities of one sample into the diagonal weights w of Gamma.

    Args:
        intensity: CDPs of one sample, any unit; negative noise pixels count as 0.
        options: Which of `WEIGHTS`, with its numbers.
    """
    return WEIGHTS[options.weights](jnp.maximum(intensity, 0.0), options)


def filter_response(kernel: Kernel, height: int, width: int) -> Complex[Array, "h w"]:
    """Returns the DFT of the kernel, its centre tap at [0, 0]; G_psi multiplies by it.

    A product in the Fourier domain is a circular convolution in the object plane.

    Raises:
        ValueError: If the kernel is larger than the image.
    """
    size = kernel.shape[0]
    if size > min(height, width):
        raise ValueError(f"kernel: expected at most {min(height, width)} taps, got {size}")
    padded = jnp.zeros((height, width), kernel.dtype).at[:size, :size].set(kernel)
    return jnp.fft.fft2(jnp.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))


def filtered_spectral_init(
    intensity: Intensity,
    optics: Optics,
    kernel: Kernel,
    start: Field,
    options: SpectralOptions,
) -> tuple[Field, Scalar]:
    """Computes `spectral_estimates` of one scene: (estimate [h w], residual) of CDPs [k sh sw]."""
    estimates, residuals = spectral_estimates(intensity[None], optics, kernel, start, options)
    return estimates[0], residuals[0]


def spectral_estimates(
    intensity: Intensities,
    optics: Optics,
    kernel: Kernel,
    start: Field,
    options: SpectralOptions,
) -> tuple[Fields, Residuals]:
    """Estimates scenes from their CDPs: algorithm 1, T power iterations of G_psi Gamma.

    Differentiable in `intensity`, masks and `kernel`, in reverse mode only; `optics.path` and
    `start` are constants, without a gradient. The oversampling is read off the shapes.

    Args:
        intensity: CDPs y of a batch, any unit.
        optics: Optics of the measurement.
        kernel: Real filter taps, an odd number each way; its overall scale does not matter.
        start: z^(0), not zero. With gauge "start" it sets the estimates' global phase: keep it
            fixed.
        options: T, the weights, and the gauge. No measurement holds the global phase; the gauge
            says what sets it (`fix_global_phase`).

    Returns:
        The estimates z, each scaled to the norm that its intensity implies (sqrt(sum(y) / k) for
        ideal masks), and how far each is from a fixed point, in [0, 1] (`power_iteration`).

    Raises:
        ValueError: If shapes do not belong together, `iterations` is less than 1, or a name is
            unknown.
    """
    snapshots = len(optics.masks)
    check_sensor(intensity.shape[1:], optics.masks.shape, optics.path)
    phasors = as_phasors(optics.masks)
    # With an uneven beam in the operator, the leading eigenvector would be the object weighted by
    # the beam twice. Without its amplitude, the eigenvector is the object as it is lit.
    lit = None if optics.amplitude is None else jnp.maximum(optics.amplitude, DIM)
    fine, path, even = pixels_within(optics.path), optics.path, phasors
    if lit is not None and isinstance(path, Apart):
        path = dataclasses.replace(path, incident=path.incident / lit)
    elif lit is not None:
        even = phasors / spread_pixels(lit, fine)[None]
    operator = Operator(
        weight=jax.vmap(partial(spectral_weights, options=options))(intensity),
        phasors=even,
        # The scale of Gamma cancels in the normalisation; 1 / k keeps the numbers near 1.
        response=filter_response(kernel, *start.shape) / snapshots,
        path=path,
    )
    z, residual = power_iteration(operator, start, iterations=options.iterations)
    if lit is not None:
        z = z / lit[None]
        z = z / jnp.linalg.norm(z, axis=(1, 2), keepdims=True)
    energy = jnp.maximum(jnp.sum(intensity, axis=(1, 2, 3)), 0.0)
    implied_norm = safe_sqrt(energy / jnp.mean(mask_power(phasors, optics.path)))
    settled = jax.vmap(partial(fix_global_phase, gauge=options.gauge))(z)
    return implied_norm[:, None, None] * settled, residual
