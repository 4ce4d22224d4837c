"""From phases to the numbers of a mask file and back: gray levels, heights or radians.

A device that adds the phase p multiplies the light by e^{j p}; the operator multiplies it by
e^{-j phi} (`optics.cdp`). The sign "conjugate" therefore writes p = -phi, "direct" p = phi.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jax_kdpr.core.errors import InputError
from jax_kdpr.optics.device import TURN, DeviceOptions, nearest_level, written_phases
from jax_kdpr.optics.mask_files.format import CONJUGATE, HEIGHT, SLM, MaskFormat

Plane = Float[np.ndarray, "h w"]
Values = Shaped[np.ndarray, "h w"]


def encode(phases: Plane, of: MaskFormat) -> Values:
    """Returns the numbers that stand for a mask: uint8 or uint16 levels, metres or radians.

    Each level is the nearest on the circle. Heights and phases are float32, and stand for phases in
    [0, 2 pi).
    """
    added = np.mod(-phases if of.sign == CONJUGATE else phases, TURN)
    wanted = jnp.asarray(added, jnp.float32)[None]
    if of.format == SLM:
        levels = nearest_level(wanted, added_phases(np.arange(of.gray_levels), of))[0]
        return np.asarray(levels, np.uint8 if of.bits == 8 else np.uint16)
    if of.format != HEIGHT:
        return _below(added, TURN)
    if of.levels:
        added = np.asarray(written_phases(wanted, DeviceOptions(levels=of.levels))[0], float)
    turns = np.mod((-added if of.reflection else added) / TURN, 1.0)
    return _below(turns * of.turn_height, of.turn_height)


def decode(values: Values, of: MaskFormat) -> Plane:
    """Returns the mask phases phi, in [0, 2 pi), that the numbers of a file stand for.

    Raises:
        InputError: If a gray level has no phase.
    """
    if of.format == SLM:
        if values.dtype.kind not in "ui":
            raise InputError(f"expected integer gray levels, got {values.dtype}")
        top = len(of.table) or 2**of.bits
        if values.max() >= top:
            raise InputError(f"expected gray levels up to {top - 1}, got {values.max()}")
    added = added_phases(values, of)
    return np.mod(-added if of.sign == CONJUGATE else added, TURN)


def added_phases(values: Shaped[np.ndarray, "*h w"], of: MaskFormat) -> Float[np.ndarray, "*h w"]:
    """Returns the phases p that a device adds where its file holds `values`; not wrapped."""
    if of.table:
        return np.asarray(of.table, float)[values]
    numbers = values.astype(float)
    if of.format == SLM:
        return TURN * (of.gray_levels - 1 - numbers if of.falling else numbers) / of.turn
    if of.format == HEIGHT:
        phases = numbers * (TURN / of.turn_height)
        return -phases if of.reflection else phases
    return numbers


def circle_distance(
    one: Float[np.ndarray, "*k h w"], other: Float[np.ndarray, "*k h w"]
) -> Float[np.ndarray, "*k h w"]:
    """Returns the distance of two phases on the circle, in [0, pi] radians."""
    return np.abs(np.mod(one - other + math.pi, TURN) - math.pi)


def coding_in_words(of: MaskFormat) -> str:
    """Returns what the numbers of a file mean."""
    meaning = "Phases p in radians, wrapped to [0, 2 pi)"
    if of.format == HEIGHT:
        how = (
            "h = -p lambda / (4 pi), in reflection: a higher surface is less phase p"
            if of.reflection
            else f"h = p lambda / (2 pi (n - 1)), n = {of.index:g}, in transmission: thicker is "
            "more phase p"
        )
        steps = f", etched in {of.levels} levels" if of.levels else ""
        meaning = f"Heights in metres, {how}; of one turn, [0, {of.turn_height:.4g}) m{steps}"
    elif of.format == SLM:
        container = "" if of.bits == 8 else ", right-justified in 16-bit pixels"
        rule = f"p = 2 pi {f'({of.gray_levels - 1} - g)' if of.falling else 'g'} / {of.turn}"
        if of.table:
            rule = f"the phase p that the table of {len(of.table)} levels gives"
        meaning = f"Gray level g ({of.bits} bits, 0 to {2**of.bits - 1}{container}) shows {rule}"
    sign = "-" if of.sign == CONJUGATE else ""
    light = "" if of.sign == CONJUGATE else "-"
    return (
        f"{meaning}. Here p = {sign}phi, where phi is the mask of the trained operator, "
        f"e^{{-j phi}}: as trained where the device multiplies the light by e^{{{light}j p}}."
    )


def _below(values: Plane, limit: float) -> Plane:
    """Returns float32 values; those that round up to `limit`, where the circle closes, are 0."""
    rounded = values.astype(np.float32)
    return np.where(rounded >= np.float32(limit), np.float32(0), rounded)
