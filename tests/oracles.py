"""What the package should compute, from the mathematics: NumPy, dense matrices, double precision.

Never imports jax_kdpr. Flattened vectors are in C order: snapshots, then rows, then columns.
"""

import numpy as np
from scipy.ndimage import gaussian_filter


def dft_matrix(size: int, padded: int | None = None) -> np.ndarray:
    """Orthonormal DFT [padded size] of a vector with zeros appended up to `padded` entries."""
    padded = padded or size
    angle = -2 * np.pi * np.outer(np.arange(padded), np.arange(size)) / padded
    return np.exp(1j * angle) / np.sqrt(padded)


def cdp_matrix(phases: np.ndarray, oversample: int = 1) -> np.ndarray:
    """All k snapshots F A_l as one matrix [k*sh*sw h*w]."""
    _, height, width = phases.shape
    fourier = np.kron(
        dft_matrix(height, oversample * height), dft_matrix(width, oversample * width)
    )
    return np.concatenate([fourier * np.exp(-1j * phase.ravel()) for phase in phases])


def forward(field: np.ndarray, phases: np.ndarray, oversample: int = 1) -> np.ndarray:
    k, height, width = phases.shape
    spectra = cdp_matrix(phases, oversample) @ field.ravel()
    return spectra.reshape(k, oversample * height, oversample * width)


def adjoint(spectra: np.ndarray, phases: np.ndarray, oversample: int = 1) -> np.ndarray:
    matrix = cdp_matrix(phases, oversample)
    return (matrix.conj().T @ spectra.ravel()).reshape(phases.shape[1:])


def intensity(field: np.ndarray, phases: np.ndarray, oversample: int = 1) -> np.ndarray:
    return np.abs(forward(field, phases, oversample)) ** 2


def filter_matrix(kernel: np.ndarray, height: int, width: int) -> np.ndarray:
    """Circular convolution with a kernel whose centre tap is the origin, as [h*w h*w]."""
    size = len(kernel)
    matrix = np.zeros((height, width, height, width))
    for row, col, i, j in np.ndindex(height, width, size, size):
        source = (row - (i - size // 2)) % height, (col - (j - size // 2)) % width
        matrix[row, col, *source] += kernel[i, j]
    return matrix.reshape(height * width, height * width)


def delta_kernel(size: int) -> np.ndarray:
    kernel = np.zeros((size, size))
    kernel[size // 2, size // 2] = 1.0
    return kernel


def weights(
    y: np.ndarray,
    kind: str,
    *,
    fraction: float = 1 / 6,
    threshold: float = 0.6,
    sampling: float | None = None,
) -> np.ndarray:
    """Diagonal weights w of Gamma for the CDPs [k sh sw] of one sample."""
    y = np.clip(np.asarray(y, np.float64), 0, None)
    ratio = y / y.mean()
    match kind:
        case "soft":
            return ratio / (1 + ratio)
        case "intensity":
            return ratio
        case "topk":
            kept = int(np.ceil(fraction * y.size))
            return (y >= np.sort(y, axis=None)[-kept]).astype(float)
        case "threshold":
            return (y >= (1 - threshold) * y.max()).astype(float)
        case "optimal":
            denominator = ratio + np.sqrt(len(y) if sampling is None else sampling) - 1
            with np.errstate(divide="ignore"):
                return np.maximum((ratio - 1) / denominator, -5) + 5
    raise ValueError(kind)


def gamma_matrix(weight: np.ndarray, phases: np.ndarray, oversample: int = 1) -> np.ndarray:
    """Gamma = (1/k) sum_l A_l^H F^H diag(w_l) F A_l, as [h*w h*w]."""
    matrix = cdp_matrix(phases, oversample)
    return matrix.conj().T @ (weight.reshape(-1, 1) * matrix) / len(phases)


def power_iteration(
    step: np.ndarray, start: np.ndarray, iterations: int
) -> tuple[np.ndarray, float]:
    """Unit vector after the power iterations, and sin of the angle that its last step turned it."""
    z = start.astype(np.complex128).ravel()
    z = z / np.linalg.norm(z)
    for _ in range(iterations):
        before, z = z, step @ z
        z = z / np.linalg.norm(z)
    return z, float(np.linalg.norm(z - np.vdot(before, z) * before))


def spectral_estimate(
    y: np.ndarray,
    phases: np.ndarray,
    kernel: np.ndarray,
    start: np.ndarray,
    *,
    iterations: int,
    kind: str,
    oversample: int = 1,
) -> tuple[np.ndarray, float]:
    """Algorithm 1: the estimate [h w] of norm sqrt(sum(y) / k), and its residual."""
    k, height, width = phases.shape
    weight = weights(y, kind, sampling=k * oversample**2)
    step = filter_matrix(kernel, height, width) @ gamma_matrix(weight, phases, oversample)
    z, residual = power_iteration(step, start, iterations)
    return np.sqrt(y.sum() / k) * z.reshape(height, width), residual


def task_loss(recovered: np.ndarray, images: np.ndarray) -> float:
    per_scene = [np.sum((a - b) ** 2) / a.size for a, b in zip(recovered, images, strict=True)]
    return float(np.mean(per_scene))


def cdp_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    per_scene = []
    for y_s, y_t in zip(student, teacher, strict=True):
        difference = sum(y_t) / len(y_t) - sum(y_s) / len(y_s)
        per_scene.append(np.sum(difference**2) / difference.size)
    return float(np.mean(per_scene))


def feature_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    return task_loss(student, teacher)


def distillation_loss(
    *, task: float, mask: float, cdp: float, feature: float, alpha: float, beta: float, rho: float
) -> float:
    return alpha * task + rho * mask + beta * cdp + (1 - alpha - beta) * feature


def psnr(recovered: np.ndarray, image: np.ndarray) -> float:
    """In dB, data range 1."""
    return float(10 * np.log10(1 / np.mean((recovered.astype(np.float64) - image) ** 2)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Modulus of the cosine between two complex vectors: 1 for a global phase and scale."""
    return float(abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))


def central_difference(f, x: np.ndarray, direction: np.ndarray, step: float = 1e-6) -> float:
    return float(f(x + step * direction) - f(x - step * direction)) / (2 * step)


def random_complex(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def smooth_images(
    rng: np.random.Generator, count: int, height: int, width: int, sigma: float
) -> np.ndarray:
    """Blurred noise stretched to [0, 1], as [count h w]."""
    noise = gaussian_filter(
        rng.normal(size=(count, height, width)), (0, sigma, sigma), mode=("nearest", "wrap", "wrap")
    )
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return (noise - low) / (high - low)


def triangle_matrix(old: int, new: int) -> np.ndarray:
    """Linear resizing of a row of pixels as a matrix, antialiased where it shrinks."""
    width = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    distance = np.abs(np.arange(old)[None] - centres[:, None]) / width
    weights = np.maximum(1.0 - distance, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(image: np.ndarray, new: int) -> np.ndarray:
    rows, columns = (triangle_matrix(old, new) for old in image.shape)
    return rows @ image @ columns.T
