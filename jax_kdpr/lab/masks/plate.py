"""Masks from a measured map of a plate, such as an interferometer's of a diffuser; wavefronts too.

map -> phases that it adds to the light -> gaps filled -> level -> means over mask pixels -> phi
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, require
from jax_kdpr.optics.device import TURN
from jax_kdpr.optics.mask_files.coding import added_phases
from jax_kdpr.optics.mask_files.format import MaskFormat, check_format

METRES = {"m": 1.0, "um": 1e-6, "nm": 1e-9}  # units of heights
RADIANS = {"rad": 1.0, "waves": TURN}  # units of the phase that a plate adds
UNITS = (*METRES, *RADIANS)
MISSING = 0.1  # share of a region without a value that is still filled
ROUGH = 0.5  # rms phase within mask pixels, radians, beyond which these are too coarse
LIKELY = Range(0.1, 100)  # radians from the lowest to the highest mask pixel
JUMP, WRAPPED = 1.0, 1e-3  # radians off a jump; share of jumps in a wrapped map
Map = Float[np.ndarray, "y x"]


class Region(NamedTuple):
    """The square of a map that becomes a mask."""

    size: int  # mask pixels each way
    ratio: float  # pixels of the map to a mask pixel
    centre: tuple[float, float]  # row and column of its middle; 0 is the middle of the first pixel
    core: float = 1.0  # share of a mask pixel's side that counts, about its middle

    def edges(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the edges of the mask pixels, rows and columns, in pixels of the map.

        Raises:
            InputError: If they leave the map.
        """
        steps = self.ratio * (np.arange(self.size + 1) - self.size / 2)
        rows, columns = (middle + 0.5 + steps for middle in self.centre)
        inside = min(rows[0], columns[0]) > -1e-6 and rows[-1] < shape[0] + 1e-6
        if not (inside and columns[-1] < shape[1] + 1e-6):
            raise InputError(
                f"--input: {self.size} mask pixels of {self.ratio:.4g} map pixels reach from row "
                f"{rows[0]:.1f}, column {columns[0]:.1f} to {rows[-1]:.1f}, {columns[-1]:.1f} of a "
                f"map of {shape[0]} x {shape[1]}; check --pitch and --mask_pitch, or take a "
                "smaller --size"
            )
        return rows, columns


class Plate(NamedTuple):
    """A mask, and what became of its map."""

    added: Float[np.ndarray, "h w"]  # mean phase p of each mask pixel, radians
    filled: float  # share of the region that had no value
    tilt: float  # radians that were taken off from edge to edge
    span: float  # radians between the highest and the lowest mask pixel
    rough: float  # rms phase within mask pixels, radians
    wrapped: bool  # whether neighbours in the map differ by about a turn more than by half of one

    @property
    def phases(self) -> Float[np.ndarray, "h w"]:
        """Returns phi of e^{-j phi}, radians in [0, 2 pi)."""
        return np.mod(-self.added, TURN)


def phases_added(values: Map, unit: str, of: MaskFormat, *, wavefront: bool = False) -> Map:
    """Returns the phases p that a plate adds, by which light is multiplied as e^{j p}.

    Args:
        values: Heights, or phases, in `unit`.
        unit: One of `UNITS`.
        of: Of heights, with the wavelength, and index or reflection.
        wavefront: Whether they are of the light itself; lengths are then optical paths.

    Raises:
        InputError: If heights come without these.
    """
    if unit in METRES and wavefront:
        require("--wavelength", of.wavelength, POSITIVE_LENGTHS["wavelength"], unit="metres")
        return TURN * values * METRES[unit] / of.wavelength
    if unit in METRES:
        check_format(of)
        return added_phases(values * METRES[unit], of)
    return values * RADIANS[unit]


def mask_of_map(added: Map, region: Region, *, level: bool) -> Plate:
    """Makes a mask from the phases that a plate adds.

    A pixel without a value (NaN) takes that of the nearest one. The phase of a mask pixel is the
    mean over its area, so the map must not be wrapped, or over its core, without the slopes
    between steps that were etched.

    Args:
        added: Phases p, radians, not wrapped.
        region: Where the mask lies, and how finely it is sampled.
        level: Whether to take off the plane that fits best. A tilt only moves the pattern.

    Raises:
        InputError: If the region leaves the map, or too much of it has no value.
    """
    rows, columns = region.edges(added.shape)
    low = [max(0, math.floor(edges[0] + 1e-6)) for edges in (rows, columns)]
    high = [math.ceil(edges[-1] - 1e-6) for edges in (rows, columns)]
    part = added[low[0] : high[0], low[1] : high[1]]
    missing = ~np.isfinite(part)
    filled = float(missing.mean())
    if filled > MISSING:
        raise InputError(
            f"--input: {filled:.0%} of the region have no value (NaN), of which at most "
            f"{MISSING:.0%} can be filled; mend the map, or move --centre"
        )
    if filled:
        places = distance_transform_edt(missing, return_distances=False, return_indices=True)
        part = part[tuple(np.asarray(places))]
    y, x = np.indices(part.shape)
    plane = np.stack([np.ones(part.size), y.ravel(), x.ravel()], axis=1)
    fit = np.linalg.lstsq(plane, part.ravel(), rcond=None)[0]
    tilt = float(np.hypot(*fit[1:]) * region.ratio * region.size)
    if level:
        part = part - (plane @ fit).reshape(part.shape)
    over = [
        _overlaps(edges - first, count, region.core)
        for edges, first, count in zip((rows, columns), low, part.shape, strict=True)
    ]
    means = over[0] @ part @ over[1].T
    spread = over[0] @ (part - part.mean()) ** 2 @ over[1].T - (means - part.mean()) ** 2
    return Plate(
        means,
        filled=filled,
        tilt=tilt if level else 0.0,
        span=float(np.ptp(means)),
        rough=float(np.sqrt(max(spread.mean(), 0.0))),
        wrapped=_wrapped(part),
    )


def doubts(plate: Plate, *, wavefront: bool = False) -> list[str]:
    """Returns what makes a mask, or a wavefront, doubtful."""
    said = []
    if not LIKELY.holds(plate.span) and not (wavefront and plate.span < 1):  # which may be flat
        said.append(f"{plate.span:.2g} rad from lowest to highest; check --unit")
    if plate.wrapped:
        said.append("the map has jumps of 2 pi, whose means are wrong: unwrap it first")
    elif plate.rough > ROUGH:
        said.append(
            f"{plate.rough:.2g} rad rms within a mask pixel are lost to the model: check --centre "
            "and --pitch, where the pixels are steps; else take a smaller --mask_pitch and a "
            "larger --size"
        )
    return said


def _wrapped(part: Map) -> bool:
    steps = np.concatenate([np.abs(np.diff(part, axis=axis)).ravel() for axis in (0, 1)])
    turns, halves = (np.count_nonzero(np.abs(steps - jump) < JUMP) for jump in (TURN, TURN / 2))
    return bool(turns > max(halves, WRAPPED * steps.size))


def _overlaps(
    edges: Float[np.ndarray, "m"], count: int, core: float
) -> Float[np.ndarray, "n count"]:
    """Returns the share of each of `count` pixels in the mean between neighbouring edges."""
    pixels, margin = np.arange(count), (1 - core) / 2 * np.diff(edges)[:, None]
    high = np.minimum(edges[1:, None] - margin, pixels + 1)
    shared = np.maximum(high - np.maximum(edges[:-1, None] + margin, pixels), 0.0)
    return shared / shared.sum(axis=1, keepdims=True)
