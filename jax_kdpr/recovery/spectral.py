"""Filtered spectral initialisation: algorithm 1 of arXiv 2505.18352.

The leading eigenvector of Gamma(y) = (1/k) sum_l A_l^H F^H diag(w_l) F A_l estimates the scene,
because bright sensor pixels say which Fourier modes of A_l x are strong. With one snapshot F A is
unitary, so the eigenvectors of Gamma alone are single Fourier modes and carry nothing: it is the
low-pass filter G_psi between the iterations that makes the estimate.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex

from jax_kdpr.core.types import Field, Intensity, Kernel, Masks, Scalar, Transfer
from jax_kdpr.optics.cdp import (
    back_propagate,
    mask_power,
    mask_transmittance,
    propagate,
    sensor_oversample,
)
from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery.power_iteration import power_iteration, safe_sqrt


def gaussian_kernel(size: int = 5, sigma: float = 1.0) -> np.ndarray:
    """Returns a Gaussian low-pass kernel [size size] of unit sum; `sigma` in pixels, `size` odd."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of taps, got {size}")
    offsets = np.arange(size) - size // 2
    profile = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return (kernel / kernel.sum()).astype(np.float32)


def spectral_weights(
    intensity: Intensity,
    *,
    kind: str = "soft",
    fraction: float = 1 / 6,
    threshold: float = 0.6,
) -> Intensity:
    """Turns the intensities of one sample into the diagonal weights w of Gamma.

    With r = y / mean(y), the mean over all snapshots and pixels of this sample, negative noise
    pixels taken as 0, and m = y.size:

    * "soft": r / (1 + r), smooth, in [0, 1): gradients reach the masks through y as well.
    * "intensity": r.
    * "topk": 1 for the ceil(fraction * m) brightest pixels (ties included), else 0.
    * "threshold": 1 where y >= (1 - threshold) * max(y), else 0.

    Args:
        intensity: CDPs of one sample, any unit.
        kind: One of the names above.
        fraction: Share of pixels kept by "topk", in (0, 1].
        threshold: p of "threshold", in [0, 1].

    Raises:
        ValueError: If `kind` is none of these.
    """
    intensity = jnp.maximum(intensity, 0.0)
    mean = jnp.mean(intensity)
    ratio = intensity / jnp.where(mean > 0, mean, 1.0)  # a dark frame has finite gradients too
    match kind:
        case "soft":
            return ratio / (1.0 + ratio)
        case "intensity":
            return ratio
        case "topk":
            kept = max(1, math.ceil(fraction * intensity.size))
            faintest_kept = lax.top_k(lax.stop_gradient(intensity).ravel(), kept)[0][-1]
            return (intensity >= faintest_kept).astype(intensity.dtype)
        case "threshold":
            return (intensity >= (1.0 - threshold) * jnp.max(intensity)).astype(intensity.dtype)
    raise ValueError(f"weights: expected soft, intensity, topk or threshold, got {kind!r}")


def filter_response(kernel: Kernel, height: int, width: int) -> Complex[Array, "h w"]:
    """Returns the DFT of the kernel, its centre tap at [0, 0]: multiplying by it is G_psi.

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
    masks: Masks,
    kernel: Kernel,
    start: Field,
    *,
    transfer: Transfer | None = None,
    iterations: int = 25,
    weights: str = "soft",
    fraction: float = 1 / 6,
    threshold: float = 0.6,
    gauge: str = "start",
) -> tuple[Field, Scalar]:
    """Estimates the scene from its CDPs: algorithm 1, T power iterations of G_psi Gamma.

    Differentiable in `intensity`, `masks` and `kernel`; the loop has a static length, which
    reverse mode needs. The oversampling is read off the shapes.

    Args:
        intensity: CDPs y of one sample, any unit.
        masks: Phases in radians, or transmittances.
        kernel: Real filter taps, an odd number each way; its overall scale does not matter.
        start: z^(0), not zero. With gauge "start" it sets the estimate's global phase: keep it
            fixed.
        transfer: Of free space, for a sensor in the near field (`optics.cdp`).
        iterations: T, at least 1.
        weights: Kind of weights, with their `fraction` and `threshold`: see `spectral_weights`.
        gauge: What sets the global phase, which no measurement holds: see `fix_global_phase`.

    Returns:
        estimate: z scaled to the norm that the intensity implies, sqrt(sum(y) / k)
            for ideal masks.
        residual: How far z is from a fixed point, in [0, 1]: see `power_iteration`.

    Raises:
        ValueError: If shapes do not belong together, `iterations` is less than 1, or a name is
            unknown.
    """
    snapshots, height, width = masks.shape
    sensor_oversample(intensity.shape, masks.shape)
    transmittance = mask_transmittance(masks)
    weight = spectral_weights(
        intensity,
        kind=weights,
        fraction=fraction,
        threshold=threshold,
    )
    # The scale of Gamma cancels in the normalisation; 1 / k keeps the numbers near 1.
    response = filter_response(kernel, height, width) / snapshots

    def filtered_gamma(operator, z: Field) -> Field:
        weight, transmittance, response, transfer = operator
        spectra = weight * propagate(z, transmittance, intensity.shape[1:], transfer)
        back = back_propagate(spectra, transmittance, transfer)
        return jnp.fft.ifft2(response * jnp.fft.fft2(back))

    z, residual = power_iteration(
        filtered_gamma,
        (weight, transmittance, response, transfer),
        start,
        iterations=iterations,
    )
    energy = jnp.maximum(jnp.sum(intensity), 0.0)
    implied_norm = safe_sqrt(energy / jnp.mean(mask_power(transmittance)))
    return implied_norm * fix_global_phase(z, gauge=gauge), residual
