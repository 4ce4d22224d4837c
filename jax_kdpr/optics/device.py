"""What a real device makes of the phases that are written to it: levels, limited range, crosstalk.

    phases -> super-pixels -> reachable levels           `written_phases`: what the file holds
           -> crosstalk blur -> fill factor, zero order  `device_masks`: what the light sees

A mask pixel is a square of `panel_pixels` x `panel_pixels` of the device's own. Within the window
of the model, the far field also shows what happens at the edges of mask pixels. With crosstalk each
of them is drawn with `fine` samples a side, chosen so that their first `fine` moments are those of
the blurred profile.

A device that adds the phase p multiplies the light by e^{j p}; the operator multiplies it by
e^{-j phi} (`optics.cdp`). So p = -phi: its range, crosstalk and gain act on p in [0, 2 pi).

The same two functions act in training, evaluation and export. Rounding has no gradient of its own:
the gradient passes straight through to the phases (Bengio et al., arXiv 1308.3432), which stay
continuous parameters.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Int
from scipy import special

from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.types import Masks, Phases, Scalar
from jax_kdpr.optics.cdp import as_phasors
from jax_kdpr.optics.masks import wrap_phases

TURN = 2 * math.pi
POINTS = 5  # of Gauss-Legendre, in each of a pixel's three intervals


@section
class DeviceOptions:
    """What the device makes of the phases: `optics.device`, in training and export alike."""

    levels: int = option(0, "equal phase steps; 0: any phase", within=Range(2, 65536, also=0))
    phase_range: float = option(
        TURN, "largest phase that it can add", unit="radians", within=Range(0, TURN, "(]")
    )
    table: tuple[float, ...] = option(
        (),
        "phi of each gray level, replaces both: `lookup_table.device_table`",
        unit="radians",
        within=Range(-2 * TURN, 2 * TURN),
        length=Range(2, 65536, also=0),
    )
    superpixel: int = option(
        1,
        "mask pixels each way that show one phase: the smallest feature",
        unit="mask pixels",
        within=Range(1, 8192),
    )
    panel_pixels: int = option(
        1, "panel pixels a mask pixel, each way: export_mask --magnify", within=Range(1, 4096)
    )
    crosstalk: float = option(
        0.0, "sigma of the blur between neighbours", unit="panel pixels", within=Range(0, 100)
    )
    fill_factor: float = option(
        1.0, "share of a panel pixel's area that is modulated", within=Range(0, 1, "(]")
    )
    gaps: str = option(
        "clear",
        "unmodulated area: passes light with phase 0 (clear) or absorbs it",
        choices=("clear", "absorbing"),
    )
    zero_order: float = option(
        0.0, "share of the power that is not modulated", within=Range(0, 1, "[)")
    )
    zero_order_phase: float = option(
        0.0, "phase of the zero order", unit="radians", within=Range(-TURN, TURN)
    )
    gain: float = option(
        1.0, "factor on all phases, from a wrong look-up table", within=Range(0.1, 10)
    )


def written_phases(phases: Phases, device: DeviceOptions) -> Phases:
    """Returns the phases that the device is told to show, each the nearest that it can reach.

    Nearest is meant on the circle: 2 pi - 0.01 is near level 0. The gradient is that of `phases`.

    Args:
        phases: Any real phases, radians.
        device: Its `levels` are equal steps of 2 pi / levels over the circle. Where `phase_range`
            is less than 2 pi, they are equal steps of p from 0 to `phase_range`, both included.
            `table` holds phi, while what is measured of a device is p: `lookup_table.device_table`
            converts it. A super-pixel has the phase of its first pixel.

    Returns:
        Phases in [0, 2 pi); for an ideal device `phases` themselves.

    Raises:
        ValueError: If `superpixel` does not divide the size of the masks.
    """
    phases = _blocks(phases, device.superpixel)
    if device.table:
        reached = _nearest(phases, np.asarray(device.table))
    elif device.levels or device.phase_range < TURN:
        reached = _equal_steps(phases, device.levels, device.phase_range)
    elif device.superpixel > 1:
        reached = wrap_phases(phases)
    else:
        return phases
    return _straight_through(phases, reached)


def device_masks(
    phases: Phases, device: DeviceOptions, *, gain: float | Scalar = 1.0, fine: int = 1
) -> Masks:
    """Returns the masks that light sees of written phases; an ideal device returns `phases`.

    Args:
        phases: From `written_phases`.
        device: Its `crosstalk` is the standard deviation of the Gaussian by which the drive of a
            panel pixel leaks to its neighbours. It blurs p in [0, 2 pi), not its phasor: between 0
            and 2 pi there is a ramp through all phases. `zero_order` comes, for instance, from the
            reflection of a surface.
        gain: Factor on top of `device.gain`: an error that is not known.
        fine: Samples of each pixel, each way, where there is crosstalk; 1 for its mean alone.

    Returns:
        Masks of the phases' size; with crosstalk they have `fine` samples a pixel, each way.
    """
    shown, gain = phases, gain * device.gain
    if device.crosstalk or not (isinstance(gain, float) and gain == 1.0):
        drive = gain * _straight_through(-phases, wrap_phases(-phases))
        shown = -drive
        if device.crosstalk:
            shown = _blurred(drive, device.crosstalk / device.panel_pixels, fine)
    fill, unmodulated = device.fill_factor, device.zero_order
    if isinstance(unmodulated, float) and fill == 1.0 and unmodulated == 0.0:
        return shown
    pixel = fill * as_phasors(shown)
    if device.gaps == "clear":
        pixel = pixel + (1.0 - fill)
    # The conjugate of the masks multiplies the light.
    beside = jnp.sqrt(unmodulated) * jnp.exp(-1j * device.zero_order_phase)
    return jnp.sqrt(1.0 - unmodulated) * pixel + beside


def nearest_level(phases: Phases, table: np.ndarray) -> Int[Array, "k h w"]:
    """Returns the index of the table's phase that is nearest on the circle, for each pixel.

    Among equal phases the first is taken. The table need not be monotone.
    """
    wrapped, first = np.unique(np.mod(np.asarray(table, float), TURN), return_index=True)
    # The circle as a line: the end phases are repeated one turn further on either side.
    line = np.concatenate([wrapped[-1:] - TURN, wrapped, wrapped[:1] + TURN])
    index = np.concatenate([first[-1:], first, first[:1]])
    place = jnp.searchsorted(jnp.asarray((line[1:] + line[:-1]) / 2), wrap_phases(phases))
    return jnp.asarray(index)[place]


def _nearest(phases: Phases, table: np.ndarray) -> Phases:
    return jnp.asarray(np.mod(table, TURN), phases.dtype)[nearest_level(phases, table)]


def _equal_steps(phases: Phases, levels: int, phase_range: float) -> Phases:
    if phase_range >= TURN:
        return wrap_phases(jnp.round(wrap_phases(phases) * (levels / TURN)) * (TURN / levels))
    added = wrap_phases(-phases)
    # A phase above the range goes to the nearer end of the gap: the range, or 0 one turn on.
    nearer_end = jnp.where(added - phase_range <= TURN - added, phase_range, 0.0)
    reached = jnp.where(added > phase_range, nearer_end, added)
    if levels:
        step = phase_range / (levels - 1)
        reached = jnp.round(reached / step) * step
    return wrap_phases(-reached)


def _blocks(phases: Phases, side: int) -> Phases:
    if side == 1:
        return phases
    _, height, width = phases.shape
    if height % side or width % side:
        raise ValueError(
            f"superpixel: expected a divisor of the mask's {height} x {width} pixels, got {side}"
        )
    first = phases[:, ::side, ::side]
    return jnp.repeat(jnp.repeat(first, side, axis=1), side, axis=2)


def _straight_through(phases: Phases, reached: Phases) -> Phases:
    """Returns exactly the value of `reached`, with the gradient of `phases`."""
    return lax.stop_gradient(reached) + (phases - lax.stop_gradient(phases))


def _blurred(drive: Phases, sigma: float, fine: int) -> Complex[Array, "k fmh fmw"]:
    """Returns what light sees of a drive whose squares are blurred by `sigma` of their side.

    The edges of a blurred square are error functions, so the drive is known at any point. It is
    computed at Gauss-Legendre points, which lie close together at the edges of the pixels. Edge
    pixels continue outwards.
    """
    points, weights = _gauss_points(sigma)
    rows, columns = (_spread_matrix(n, points, sigma) for n in drive.shape[1:])
    highest = lax.Precision.HIGHEST
    profile = jnp.einsum("ph,khw,qw->kpq", rows, drive, columns, precision=highest)
    light = as_phasors(-profile)
    condense = jnp.asarray(_condensing(points, weights, fine), light.real.dtype)
    k, height, width = drive.shape
    light = light.reshape(k, height, len(points), width, len(points))
    few = jnp.einsum("khpwq,ap,bq->khawb", light, condense, condense, precision=highest)
    return few.reshape(k, fine * height, fine * width)


def _gauss_points(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns points in a pixel, from -1/2 to 1/2, and their weights of sum 1."""
    edge = min(4.0 * sigma, 0.25)
    known, weight = np.polynomial.legendre.leggauss(POINTS)
    ends = np.array([-0.5, edge - 0.5, 0.5 - edge, 0.5])
    middles, halves = (ends[1:] + ends[:-1]) / 2, np.diff(ends) / 2
    points = (middles[:, None] + halves[:, None] * known).ravel()
    return points, (halves[:, None] * weight).ravel()


def _spread_matrix(pixels: int, points: np.ndarray, sigma: float) -> Float[Array, "p n"]:
    """Returns the share of each pixel's drive at each point of all pixels."""
    places = (np.arange(pixels)[:, None] + points).ravel()[:, None]
    lower = np.arange(pixels) - 0.5
    lower[0] = -np.inf
    upper = np.append(lower[1:], np.inf)
    shares = special.ndtr((places - lower) / sigma) - special.ndtr((places - upper) / sigma)
    return jnp.asarray(shares, jnp.float32)


def _condensing(points: np.ndarray, weights: np.ndarray, fine: int) -> np.ndarray:
    """Returns the matrix that gives `fine` even squares the first `fine` moments of a profile.

    Three moments determine the far field of a pixel to a good part in a thousand, at frequencies
    below half a cycle a pixel.
    """
    powers, ends = np.arange(fine)[:, None], np.arange(fine + 1) / fine - 0.5
    moments = np.diff(ends ** (powers + 1), axis=1) / (powers + 1)
    return np.linalg.solve(moments, points**powers * weights)
