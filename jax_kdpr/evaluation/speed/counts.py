"""Arithmetic and memory traffic of the system, counted from its shapes; and the device's limits.

Only useful work counts, so that a time can be compared with what the device could do:

* An FFT of n points is 5 n log2 n real operations, a complex product 6, and a real times a complex
  number 2. A convolution is 2 operations for each tap, input feature and output feature.
* Traffic is the least possible with one kernel for each operation: every FFT and every convolution
  reads its input and writes its output once. Norms, activations and weights do not count.
* A gradient is twice its forward pass. What is computed again to save memory does not count.
"""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

KERNEL_TAPS = 9  # of a 3 x 3 convolution's kernel
COMPLEX_BYTES, FLOAT_BYTES = 8, 4


class Work(NamedTuple):
    """Floating-point operations, and bytes moved."""

    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, factor: int) -> "Work":
        """Returns the work done `factor` times."""
        return Work(self.flops * factor, self.bytes * factor)


class Limits(NamedTuple):
    """Rates that the device was measured to reach."""

    flops: float  # a second, in a matrix product at JAX's default precision: TF32 on NVIDIA GPUs
    bytes: float  # a second, read and written

    def seconds(self, work: Work) -> float:
        """Returns the shortest time for some work, limited by arithmetic or by memory."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


def fft_work(points: int) -> Work:
    """Returns the work of one complex FFT of `points` points in all."""
    return Work(5.0 * points * math.log2(points), 2.0 * COMPLEX_BYTES * points)


def measure_work(*, size: int, snapshots: int, oversample: int) -> Work:
    """Returns the work of the CDPs of one scene."""
    sensor = (oversample * size) ** 2
    elementwise = Work(6.0 * size * size + 3.0 * sensor, 0.0)
    return (fft_work(sensor) + elementwise).times(snapshots)


def spectral_work(*, size: int, snapshots: int, oversample: int, iterations: int) -> Work:
    """Returns the work of the power iteration of one sample."""
    pixels, sensor = size * size, (oversample * size) ** 2
    masked = fft_work(sensor).times(2) + Work(6.0 * 2 * pixels + 2.0 * sensor + 2.0 * pixels, 0.0)
    filtered = fft_work(pixels).times(2) + Work(6.0 * pixels + 6.0 * pixels, 0.0)
    return (masked.times(snapshots) + filtered).times(iterations)


def unet_work(*, size: int, widths: tuple[int, ...], channels: int) -> Work:
    """Returns the work of the U-Net on one image."""
    total = Work(2.0 * size * size * widths[0] * channels, 0.0)
    for side, inputs, outputs in unet_layers(size=size, widths=widths):
        total += convolution_work(side=side, inputs=inputs, outputs=outputs)
    return total


def unet_layers(*, size: int, widths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Lists (pixels each way, input features, output features) of the 3 x 3 convolutions."""
    layers = []
    before = 2
    for level, width in enumerate(widths):
        layers += [(size >> level, before, width), (size >> level, width, width)]
        before = width
    for level in range(len(widths) - 2, -1, -1):
        joined, width = widths[level + 1] + widths[level], widths[level]
        layers += [(size >> level, joined, width), (size >> level, width, width)]
    return layers


def convolution_work(*, side: int, inputs: int, outputs: int) -> Work:
    """Returns the work of one 3 x 3 convolution of one image."""
    pixels = side * side
    flops = 2.0 * KERNEL_TAPS * pixels * inputs * outputs
    return Work(flops, FLOAT_BYTES * pixels * (inputs + outputs))


def measure_limits(*, seconds: float = 1.0) -> Limits:
    """Measures the default device: a matrix product and an addition, the best in `seconds` each."""
    small = jax.default_backend() == "cpu"
    side, count = (2048, 2**25) if small else (8192, 2**28)
    matrix, vector = jnp.full((side, side), 1.0 / side), jnp.zeros(count)
    product = jax.jit(lambda a: a @ a, donate_argnums=0)
    add = jax.jit(lambda a: a + 1.0, donate_argnums=0)
    return Limits(
        flops=2.0 * side**3 / _best(product, matrix, seconds),
        bytes=2.0 * FLOAT_BYTES * count / _best(add, vector, seconds),
    )


def _best(fn, value, seconds: float) -> float:
    """Returns the least time of value = fn(value), which donates it and so needs no new memory."""
    value = jax.block_until_ready(fn(value))
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        value = jax.block_until_ready(fn(value))
        best = min(best, time.perf_counter() - started)
    return best
