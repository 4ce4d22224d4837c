"""`kdpr.solve`: objects from frames and masks by a classical solver, without a run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_COUNT, Range, require, require_whole, shown
from jax_kdpr.core.registry import is_foreign
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import CONSTRAINTS, DEFAULTS, SOLVERS, reads, solver_names
from jax_kdpr.recovery.solvers import solve as solve_one
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init, gaussian_kernel

START = SpectralOptions(iterations=100)  # estimate that a solver starts from
GAINS = Range(1e-30, 1e30)  # counts; beyond, 32-bit floats do not hold a CDP


def solve(
    frames: ArrayLike,
    phases: ArrayLike,
    *,
    solver: str = "raar",
    steps: int = 200,
    scene: str = "phase",
    gain: float = 1.0,
    centred: bool = False,
    beta: float = DEFAULTS.beta,
    tv: float = 0.0,
) -> tuple[Complex[np.ndarray, "n h w"], Float[np.ndarray, "n"]]:
    """Recovers objects by a classical solver, from the spectral estimate; no network.

    Args:
        frames: CDPs in the far field, [sh sw], [n sh sw] or [n L sh sw], in counts of any unit.
        phases: Phases [L h w], or [h w], in radians, of ideal masks in an even beam; mask l
            multiplies the field by e^{-j phase}. Or complex masks, by whose conjugate the field is
            multiplied: e^{j phase} if ideal. For a run that sees the whole pattern, without
            crosstalk, they are `run.optics.masks`.
        solver: One of `recovery.solvers.SOLVERS`, or your own (docs/extend/own_code.md).
        steps: Number of steps of the solver.
        scene: What is known of the object: "phase", "amplitude", "complex" (modulus 0.5 to 1)
            or "none".
        gain: Counts of a sample whose CDP is 1. It is not read for "phase" objects: their light is
            known, and each frame is scaled to it.
        centred: Whether the zero frequency of the frames lies in the middle, not at [0, 0].
        beta: Relaxation of "hio" and "raar".
        tv: Weight of the total-variation prior of "accelerated".

    Returns:
        The fields, with an arbitrary global phase, and their relative misfits. With one shot a
        small misfit says little: a solver fits almost any frame.

    Raises:
        InputError: If frames or phases are not valid or do not fit each other, there is no solver
            of that name, or it does not read a number that is given.
    """
    solver_names("solver", [solver])
    if scene not in CONSTRAINTS:
        raise InputError(f"scene: expected one of {', '.join(CONSTRAINTS)}, got {shown(scene)}")
    require_whole("steps", steps, Range(1, MOST_COUNT))
    for name, value, within in (("beta", beta, Range(0, 1, "(]")), ("tv", tv, Range(0, 1e6))):
        require(name, value, within)
        if not (reads(solver, name) or value == getattr(DEFAULTS, name)):
            raise InputError(f"{name}: {solver} does not read it; leave it out")
    given = np.asarray(phases)
    masks = given[None] if given.ndim == 2 else given
    if masks.ndim != 3 or masks.dtype.kind not in "fc" or not np.all(np.isfinite(masks)):
        raise InputError(
            "phases: expected finite radians [L h w], floats, or complex masks, got "
            f"{given.dtype} {list(given.shape)}"
        )
    light = shots_of(frames, len(masks))
    height, width = masks.shape[1:]
    if light.shape[2:] not in ((height, width), (2 * height, 2 * width)):
        raise InputError(
            f"frames: expected {height} x {width} pixels, as the masks have, or twice as many each "
            f"way, got {light.shape[2]} x {light.shape[3]}; resample them"
        )
    if centred:
        light = np.fft.ifftshift(light, axes=(2, 3))
    sums = light.sum(axis=(2, 3), keepdims=True)
    if not np.all(sums > 0):
        raise InputError("frames: one of them holds no light")
    require("gain", gain, GAINS)
    power = np.sum(np.abs(masks) ** 2, axis=(1, 2)) if masks.dtype.kind == "c" else masks[0].size
    known = np.broadcast_to(power, len(masks))[:, None, None]  # light of a phase object
    light = light * known / sums if scene == "phase" else light / gain
    fields, misfits = _solve(
        jnp.asarray(light, jnp.float32),
        jnp.asarray(masks, jnp.complex64 if masks.dtype.kind == "c" else jnp.float32),
        # What the name stands for now: your own code may have changed since the last call.
        solver=SOLVERS[solver] if is_foreign(solver) else solver,
        steps=steps,
        scene=scene,
        settings=Settings(beta=beta, tv=tv),
    )
    return np.asarray(fields), np.asarray(misfits)


@partial(jax.jit, static_argnames=("solver", "steps", "scene", "settings"))
def _solve(light, masks, **options):
    start = jax.random.normal(jax.random.key(0), masks.shape[1:], jnp.complex64)
    kernel, optics = jnp.asarray(gaussian_kernel()), Optics(masks)

    def one(y):
        first, _ = filtered_spectral_init(y, optics, kernel, start, START)
        return solve_one(y, optics, first, **options)

    return jax.vmap(one)(light)


def shots_of(frames: ArrayLike, snapshots: int) -> Float[np.ndarray, "n L y x"]:
    """Returns frames as floats, with the L frames of each object together.

    Args:
        frames: Frames of any number type, [y x], [n y x] or [n L y x].
        snapshots: L.

    Raises:
        InputError: If these are not frames, are not finite, or are not L of each object.
    """
    given = np.asarray(frames)
    if given.dtype.kind not in "uif" or given.ndim not in (2, 3, 4) or not given.size:
        raise InputError(
            f"frames: expected counts [y x], [n y x] or [n L y x], got {given.dtype} "
            f"{list(given.shape)}"
        )
    if not np.all(np.isfinite(given)):
        raise InputError("frames: expected finite counts, some are not")
    flat = given.reshape(-1, *given.shape[-2:]).astype(np.float64)
    if len(flat) % snapshots or (given.ndim == 4 and given.shape[1] != snapshots):
        raise InputError(
            f"frames: expected {snapshots} of each object, one through each mask, got "
            f"{shown(list(given.shape[:-2]))}"
        )
    return flat.reshape(-1, snapshots, *given.shape[-2:])
