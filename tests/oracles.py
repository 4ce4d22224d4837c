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


def space_matrix(
    kind: str,
    phases: np.ndarray,
    oversample: int = 1,
    *,
    wavelength: float,
    pitch: float,
    distance: float,
) -> np.ndarray:
    """All k snapshots through free space, as `cdp_matrix`; the axis is pixel [h // 2, w // 2]."""
    k, height, width = phases.shape
    far = cdp_matrix(phases, oversample)
    if kind == "far":
        return far
    if kind == "fresnel":
        y, x = ((np.arange(size) - size // 2) * pitch for size in (height, width))
        squared = y[:, None] ** 2 + x**2
        return far * np.exp(1j * np.pi * squared / (wavelength * distance)).ravel()
    sh, sw = oversample * height, oversample * width
    sine = wavelength * np.hypot(np.fft.fftfreq(sh, pitch)[:, None], np.fft.fftfreq(sw, pitch))
    along = np.sqrt(np.maximum(1 - sine**2, 0)) - 1
    transfer = np.exp(2j * np.pi * distance / wavelength * along) * (sine < 1)
    back = np.kron(dft_matrix(sh), dft_matrix(sw)).conj().T * transfer.ravel()
    return np.concatenate([back @ part for part in np.split(far, k)])


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
    raise ValueError(kind)


def gamma_matrix(weight: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Gamma = (1/k) sum_l A_l^H F^H diag(w_l) F A_l, as [h*w h*w], of the weights [k sh sw]."""
    return matrix.conj().T @ (weight.reshape(-1, 1) * matrix) / len(weight)


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
    matrix: np.ndarray,
    y: np.ndarray,
    kernel: np.ndarray,
    start: np.ndarray,
    *,
    iterations: int,
    kind: str,
) -> tuple[np.ndarray, float]:
    """Algorithm 1: the estimate [h w] of norm sqrt(sum(y) / k), and its residual."""
    step = filter_matrix(kernel, *start.shape) @ gamma_matrix(weights(y, kind), matrix)
    z, residual = power_iteration(step, start, iterations)
    return np.sqrt(y.sum() / len(y)) * z.reshape(start.shape), residual


def task_loss(recovered: np.ndarray, images: np.ndarray) -> float:
    per_scene = [np.sum((a - b) ** 2) / a.size for a, b in zip(recovered, images, strict=True)]
    return float(np.mean(per_scene))


def cdp_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    per_scene = []
    for y_s, y_t in zip(student, teacher, strict=True):
        difference = sum(y_t) / len(y_t) - sum(y_s) / len(y_s)
        per_scene.append(np.sum(difference**2) / difference.size)
    return float(np.mean(per_scene))


def psnr(recovered: np.ndarray, image: np.ndarray) -> float:
    """In dB, data range 1."""
    return float(10 * np.log10(1 / np.mean((recovered.astype(np.float64) - image) ** 2)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Modulus of the cosine between two complex vectors: 1 for a global phase and scale."""
    return float(abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))


def relative_error(actual, expected) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


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


def allowed_object(x: np.ndarray, scene: str, min_amplitude: float = 0.5) -> np.ndarray:
    """The nearest object to x of what is known of it."""
    match scene:
        case "none":
            return x
        case "phase":
            return x / np.abs(x)
        case "complex":
            return np.clip(np.abs(x), min_amplitude, 1) * x / np.abs(x)
    raise ValueError(scene)


def fitted(u: np.ndarray, modulus: np.ndarray) -> np.ndarray:
    return modulus * u / np.abs(u)


def solver_steps(
    solver: str,
    matrix: np.ndarray,
    y: np.ndarray,
    start: np.ndarray,
    *,
    scene: str,
    steps: int,
    beta: float = 0.9,
    tv: float = 0.0,
) -> np.ndarray:
    """The object [h w] after a few steps of a classical solver, as its paper has it."""
    modulus, inverse = np.sqrt(y.ravel()), np.linalg.pinv(matrix)
    m, n = matrix.shape
    # The flows' papers want measurement vectors of mean squared norm n.
    scale = m * n / np.linalg.norm(matrix) ** 2
    vectors = np.sqrt(scale) * matrix
    target, psi = scale * y.ravel(), np.sqrt(scale) * modulus

    def allow(x):
        return allowed_object(x, scene)

    def allowed_fields(u):
        return matrix @ allow(inverse @ u)

    x = ahead = start.ravel()
    u, momentum = matrix @ x, 1.0
    dual = np.zeros(2 * n, complex)
    for number in range(steps):
        az = vectors @ x
        on_data = fitted(u, modulus)
        match solver:
            case "error_reduction":
                x = allow(inverse @ fitted(matrix @ x, modulus))
            case "hio":
                u = u + beta * (allowed_fields((1 + 1 / beta) * on_data - u / beta) - on_data)
            case "raar":
                reflected = 2 * on_data - u
                twice = 2 * allowed_fields(reflected) - reflected
                u = beta / 2 * (twice + u) + (1 - beta) * on_data
            case "wirtinger":
                rate = min(1 - np.exp(-(number + 1) / 330), 0.2) / np.mean(target)
                x = allow(x - rate / m * vectors.conj().T @ ((np.abs(az) ** 2 - target) * az))
            case "taf":
                kept = np.abs(az) >= psi / 1.7
                x = allow(x - vectors.conj().T @ (kept * (az - fitted(az, psi))) / m)
            case "raf":
                weight = 1 / (1 + 5 * psi / np.abs(az))
                step = vectors.conj().T @ (np.minimum(6 * weight, m / n) * (az - fitted(az, psi)))
                x = allow(x - step / m)
            case "accelerated":
                u = matrix @ ahead
                after = ahead - inverse @ (u - fitted(u, modulus))
                if tv:
                    after, dual = total_variation_steps(after, dual, tv, 5, start.shape)
                after = allow(after)
                if np.vdot(after - x, ahead - after).real > 0:
                    momentum = 1.0
                longer = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
                ahead = after + (momentum - 1) / longer * (after - x)
                x, momentum = after, longer
            case _:
                raise ValueError(solver)
    if solver in ("hio", "raar"):
        x = allow(inverse @ fitted(u, modulus))
    return x.reshape(start.shape)


def difference_matrix(height: int, width: int) -> np.ndarray:
    """Differences to the next row, then to the next column, 0 at the edge: [2*h*w h*w]."""

    def one(size):
        matrix = np.eye(size, k=1) - np.eye(size)
        matrix[-1] = 0
        return matrix

    return np.concatenate(
        [np.kron(one(height), np.eye(width)), np.kron(np.eye(height), one(width))]
    )


def total_variation(x: np.ndarray, shape: tuple[int, int]) -> float:
    down, right = np.split(difference_matrix(*shape) @ x.ravel(), 2)
    return float(np.sum(np.sqrt(np.abs(down) ** 2 + np.abs(right) ** 2)))


def total_variation_steps(
    x: np.ndarray, dual: np.ndarray, weight: float, steps: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Projected gradient on the dual of 1/2 norm(z - x)^2 + weight TV(z)."""
    differences = difference_matrix(*shape)
    for _ in range(steps):
        dual = dual + differences @ (x - weight * differences.T @ dual) / (8 * weight)
        size = np.sqrt(np.sum(np.abs(dual.reshape(2, -1)) ** 2, axis=0))
        dual = dual / np.tile(np.maximum(size, 1), 2)
    return x - weight * differences.T @ dual, dual


def lowpass(images: np.ndarray, cycles: float) -> np.ndarray:
    """What is left of images [*n h w] below so many cycles of their side, each way."""
    kept = [np.abs(np.fft.fftfreq(size, 1 / size)) <= cycles for size in images.shape[-2:]]
    spectra = np.fft.fft2(images) * kept[0][:, None] * kept[1]
    return np.fft.ifft2(spectra).real
