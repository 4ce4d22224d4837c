"""False objects that one shot can hardly, or not at all, tell from the true one.

Let d = e^{j phi} be the mask's phasor. The sensor sees the Fourier transform of
g = conj(d) x. Four changes of g leave the modulus of its DFT as it is, and each gives another
object:

* a global phase;
* the twin, g(-r) conjugated: x'(r) = d(r) d(-r) conj(x(-r)), with indices modulo the size;
* the mirror, which is the twin about the middle of the window, r -> N - 1 - r. Zero padding breaks
  the twin but not the mirror, because the mirror carries nothing around the edge;
* every circular shift of g: x'(r) = d(r) conj(d(r - s)) x(r - s).

These are exact for one mask in the far field (the mirror at any padding, the others without it)
and for the Fresnel transform, whose chirp is part of the mask. More masks, padding or the transfer
function of free space break them: `misfit` says by how much. If the masks are not pure phases, the
formulas remain exact, but the false object is not a pure phase either: `constraint_distance`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jax_kdpr.core.types import Field, Masks, Scalar
from jax_kdpr.optics.cdp import Optics, as_phasors, intensity, measure_intensity
from jax_kdpr.optics.paths import LightPath
from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery.data_consistency import object_constraint
from jax_kdpr.recovery.solvers import amplitude_misfit

Pixels = int | Int[Array, ""]
DARK = 1e-6  # least squared modulus of a phasor in a division


def twin(field: Field, masks: Masks) -> Field:
    """Returns the twin of an object, for the first mask: d(r) d(-r) conj(x(-r)) for pure phases."""
    behind = _behind(field, masks)
    turned = jnp.roll(behind[::-1, ::-1], (1, 1), axis=(0, 1))
    return _before(jnp.conj(turned), masks)


def mirror(field: Field, masks: Masks) -> Field:
    """Returns the mirror, the twin about the window's middle: d(r) d(N-1-r) conj(x(N-1-r))."""
    return _before(jnp.conj(_behind(field, masks)[::-1, ::-1]), masks)


def shifted(field: Field, masks: Masks, shift: tuple[Pixels, Pixels]) -> Field:
    """Returns the object whose field behind the first mask is circularly shifted.

    It is x'(r) = d(r) conj(d(r - s)) x(r - s), with s in pixels along (height, width).
    """
    return _before(jnp.roll(_behind(field, masks), jnp.asarray(shift), axis=(0, 1)), masks)


def circular_shifts(height: int, width: int, *, most: int) -> tuple[tuple[int, int], ...]:
    """Returns the circular shifts of a window except (0, 0): all, or `most`, always the same.

    The eight shifts by one pixel are always included.
    """
    steps = [(y, x) for y in range(height) for x in range(width) if y or x]
    if len(steps) <= most:
        return tuple(steps)
    near = {(y % height, x % width) for y in (-1, 0, 1) for x in (-1, 0, 1)} - {(0, 0)}
    others = [step for step in steps if step not in near]
    chosen = np.random.default_rng(0).choice(len(others), most - len(near), replace=False)
    return tuple(sorted(near) + [others[i] for i in sorted(chosen)])


def misfit(
    field: Field,
    other: Field,
    masks: Masks,
    *,
    oversample: int = 1,
    path: LightPath | None = None,
) -> Scalar:
    """Returns norm(|A x'| - |A x|) / norm(|A x|), which is 0 if noiseless shots are the same.

    x is the object, x' the `other`, and A the operator (`optics.cdp`) of all shots.
    """
    y = measure_intensity(field, masks, oversample=oversample, path=path)
    return amplitude_misfit(other, y, Optics(masks, path))


def constraint_distance(field: Field, *, scene: str, min_amplitude: float = 0.5) -> Scalar:
    """Returns norm(x - P x) / norm(x), where P x is the nearest field that a `scene` allows.

    It is 0 for every field of modulus 1 if the scene is "phase". The global phase is free
    (`data_consistency.object_constraint`).
    """
    if scene == "amplitude":  # its constraint also sets the global phase
        field = fix_global_phase(field, gauge="mean")
    allowed = object_constraint(field, scene=scene, min_amplitude=min_amplitude)
    return _norm(field - allowed) / _norm(field)


def _behind(field: Field, masks: Masks) -> Field:
    return jnp.conj(as_phasors(masks)[0]) * field


def _before(behind: Field, masks: Masks) -> Field:
    """Returns the field that the first mask turns into `behind`."""
    phasors = as_phasors(masks)[0]
    return phasors * behind / jnp.maximum(intensity(phasors), DARK)


def _norm(field: Field) -> Scalar:
    return jnp.sqrt(jnp.sum(intensity(field)))
