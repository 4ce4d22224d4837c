"""How much a measurement tells about an object: Jacobian, Fisher information, Cramer-Rao bounds.

The unknowns are the pixels of the image that encodes the object (`optics.objects`), [h w c]. For a
phase scene they are the phase in units of `phase_range`. All results are local to one object: they
bound the error of a small departure from it. They say nothing about the false objects of
`uniqueness.ambiguity`, which are far away.

The Jacobian to look at is that of sqrt(y), because shot noise is the same everywhere in sqrt(y).
With N photons a frame, the Fisher information of Poisson counts is 4 N / sum(y_l) times the Gram
matrix of this Jacobian. For phase scenes and ideal masks its singular values are at most
sqrt(k) `phase_range`.

Use double precision (`jax.enable_x64`): single precision hides directions that are nearly singular.
Dense matrices are NumPy arrays. The functions that take a `product` need no matrix, and serve more
than `DENSE` unknowns.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy.sparse.linalg import LinearOperator, cg, eigsh

from jax_kdpr.core.types import Image, Intensity

DENSE = 2048  # the most unknowns for which dense matrices are made
COLUMNS = 64  # columns of a Jacobian that are computed at a time
FLOOR = 1e-12  # least intensity of a dark pixel, in units of the mean intensity
SINGULAR = 1e-13  # an eigenvalue counts as 0 up to this, in units of the largest

Measure = Callable[[Image], Intensity]
Product = Callable[[np.ndarray], np.ndarray]
Vector = Float[np.ndarray, "n"]
Matrix = Float[np.ndarray, "n n"]


@partial(jax.jit, static_argnums=0)
def intensity_jacobian(measure: Measure, image: Image) -> Float[Array, "m n"]:
    """Returns dy/dimage as a dense matrix: sensor pixels of all shots by unknowns, in C order.

    `measure` maps an image to its noiseless CDPs. The program is compiled once for each `measure`.
    """

    def column(number):
        direction = jax.nn.one_hot(number, image.size, dtype=image.dtype).reshape(image.shape)
        return jax.jvp(measure, (image,), (direction,))[1].ravel()

    return lax.map(column, jnp.arange(image.size), batch_size=COLUMNS).T


@partial(jax.jit, static_argnums=0)
def gram_product(
    measure: Measure, image: Image, weights: Intensity, vector: Float[Array, "n"]
) -> Float[Array, "n"]:
    """Returns J^T diag(weights) J vector without the matrix J = dy/dimage."""
    _, change = jax.jvp(measure, (image,), (vector.reshape(image.shape),))
    _, back = jax.vjp(measure, image)
    return back(weights * change)[0].ravel()


def root_weights(intensity: Intensity) -> Intensity:
    """Returns w = 1 / (4 y), for which J^T diag(w) J is the Gram matrix of sqrt(y)'s Jacobian."""
    return 1.0 / (4.0 * jnp.maximum(intensity, FLOOR * jnp.mean(intensity)))


def fisher_weights(intensity: Intensity, *, photons: float, read_noise: float = 0.0) -> Intensity:
    """Returns the weights w for which J^T diag(w) J is the Fisher information about the image.

    A pixel's count has mean n = photons y / sum(y_l) and variance n + read_noise^2, as in
    `noise.camera_frame` without clipping and rounding. The exposure counts as known. The result is
    exact for Poisson counts. With read noise it is the part that the mean carries. The variance,
    which depends on n too, holds a little more where a pixel has only a few counts, so that the
    bound on errors then comes out slightly too high.

    `photons` is the expected number in one shot; `read_noise` is a standard deviation in electrons.
    """
    counts_per_unit = photons / jnp.sum(intensity, axis=(1, 2), keepdims=True)
    counts = counts_per_unit * jnp.maximum(intensity, FLOOR * jnp.mean(intensity))
    return counts_per_unit**2 / (counts + read_noise**2)


def gram_matrix(jacobian: Float[np.ndarray, "m n"], weights: Float[np.ndarray, "m"]) -> Matrix:
    """Returns J^T diag(weights) J."""
    scaled = np.sqrt(weights)[:, None] * jacobian
    return scaled.T @ scaled


def global_phase_direction(shape: tuple[int, ...], kind: str) -> Vector | None:
    """Returns the unit image along which no intensity changes, flattened; None for amplitudes."""
    if kind == "amplitude":
        return None
    direction = np.zeros(shape)
    direction[..., 0] = 1.0
    return direction.ravel() / np.linalg.norm(direction)


def singular_values(gram: Matrix, free: Vector | None) -> Float[np.ndarray, "values"]:
    """Returns the singular values of J from its Gram matrix, largest first, without that of `free`.

    Values below about 1e-8 of the largest are rounding errors.
    """
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))
    return values if free is None else values[:-1]  # exactly 0 along `free`


def extreme_singular_values(
    product: Product, unknowns: int, free: Vector | None, *, rounds: int = 20, steps: int = 500
) -> tuple[float, float]:
    """Returns the largest and the smallest singular value of J from products with its Gram matrix.

    The Lanczos method gives the largest. Inverse iteration gives the smallest: `rounds` times it
    solves by conjugate gradients, in at most `steps` steps. Its result is never below the true
    smallest value, and is above it if `rounds` or `steps` are too few.
    """

    def along(vector: np.ndarray) -> np.ndarray:
        return _without(product(_without(vector, free)), free)

    operator = _operator(along, unknowns)
    start = np.random.default_rng(0).normal(size=unknowns)
    # At its default, machine precision, eigsh never ends if the largest values are close together.
    find: Any = eigsh  # its stub takes tolerances for integers
    top = find(operator, k=1, which="LA", v0=start, tol=1e-4, return_eigenvectors=False)
    vector = _unit(_without(start, free))
    for _ in range(rounds):
        solution, _ = cg(operator, vector, rtol=1e-6, maxiter=steps)
        vector = _unit(_without(solution, free))
    return float(np.sqrt(top[0])), float(np.sqrt(max(vector @ along(vector), 0.0)))


def cramer_rao(information: Matrix, free: Vector | None) -> Vector:
    """Returns the least variance of each unknown that an unbiased estimate can have.

    It is the diagonal of the inverse on the complement of `free` (the pseudo-inverse). For phases
    this is the error that is left once the global phase is taken from the truth. All variances are
    infinite if the information is singular in another direction too.
    """
    mean = np.trace(information) / len(information)
    # The direction of `free` gets an eigenvalue, whose inverse is subtracted again below.
    full = information if free is None else information + mean * np.outer(free, free)
    values, vectors = np.linalg.eigh(full)
    if values[0] <= SINGULAR * values[-1]:
        return np.full(len(values), np.inf)
    variances = np.square(vectors) @ (1.0 / values)
    if free is not None:
        variances = variances - np.square(free) / mean
    return variances


def bayesian_bound(information: Matrix, precision: Matrix, free: Vector | None) -> Vector:
    """Returns the least mean squared error of each unknown, given a prior: the van Trees bound.

    It is the diagonal of (information + precision)^-1 (van Trees, 1968, part I, 2.4.3), without the
    part along `free`: as in `cramer_rao`, the global phase is taken from the truth.

    `information` is the mean over objects; `precision` is the inverse covariance of a Gaussian
    prior.
    """
    inverse = np.linalg.inv(information + precision)
    errors = np.diag(inverse).copy()
    if free is not None:
        along = inverse @ free
        errors += np.square(free) * (free @ along) - 2 * free * along
    return errors


def probed_cramer_rao(
    product: Product, unknowns: int, free: Vector | None, *, probes: int, steps: int = 2000
) -> tuple[float, float]:
    """Returns the mean of `cramer_rao`'s variances, and its standard error, without a matrix.

    If the conjugate gradients stop after `steps` steps, the mean is too low, never too high. Where
    the information is nearly singular, it is thus a lower bound on the Cramer-Rao bound.
    """

    def along(vector: np.ndarray) -> np.ndarray:
        return _without(product(_without(vector, free)), free)

    operator = _operator(along, unknowns)

    def solve(vector: np.ndarray) -> np.ndarray:
        return cg(operator, _without(vector, free), rtol=1e-6, maxiter=steps)[0]

    return _per_unknown(solve, unknowns, probes)


def probed_bayesian_bound(
    product: Product,
    prior_root: Product,
    unknowns: int,
    free: Vector | None,
    *,
    probes: int,
    steps: int = 2000,
) -> tuple[float, float]:
    """Returns the mean of `bayesian_bound`'s errors, and its standard error, without a matrix.

    F is the mean Fisher information and S the square root of the prior's covariance; both are given
    as products with a vector. The errors add up to the trace of S (S F S + 1)^-1 S, in which the
    matrix to invert is well conditioned.
    """

    def along(vector: np.ndarray) -> np.ndarray:
        return prior_root(product(prior_root(vector))) + vector

    operator = _operator(along, unknowns)

    def solve(vector: np.ndarray) -> np.ndarray:
        inner = prior_root(_without(vector, free))
        return _without(prior_root(cg(operator, inner, rtol=1e-6, maxiter=steps)[0]), free)

    return _per_unknown(solve, unknowns, probes)


def _per_unknown(solve: Product, unknowns: int, probes: int) -> tuple[float, float]:
    """Estimates trace / n of a symmetric matrix, and its error, with random signs.

    The method is that of Hutchinson (1990).
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (probes, unknowns))
    means = np.array([sign @ solve(sign) for sign in signs]) / unknowns
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(probes))


def _operator(product: Product, unknowns: int) -> Any:
    kind: Any = LinearOperator  # its stub does not know the keywords
    return kind((unknowns, unknowns), matvec=product, dtype=np.float64)


def _without(vector: np.ndarray, direction: Vector | None) -> np.ndarray:
    return vector if direction is None else vector - (direction @ vector) * direction


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
