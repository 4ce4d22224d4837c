"""What a panel is to show in the end: a mask, the panel's flatness correction, and a grating.

    p = p of the mask file's gray level + correction + grating -> nearest gray level of the panel

A mask file holds the mask alone, so that it can be read back and verified. What the panel shows is
a file of its own beside it. The mask is in it once, and so is each of the others.
"""

import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import check, option, section
from jax_kdpr.data.pages.opening import read_named
from jax_kdpr.optics.device import TURN, nearest_level
from jax_kdpr.optics.mask_files.coding import added_phases, circle_distance
from jax_kdpr.optics.mask_files.format import SLM, MaskFormat
from jax_kdpr.optics.mask_files.layout import corner, shown_shape

Pixels = Shaped[np.ndarray, "ph pw"]  # of the panel
FINEST = 2.0  # panel pixels: the shortest period that they show


@section
class ShownOptions:
    """What the panel shows besides the mask; the flags of `export_mask` for it."""

    correction: str = option(
        "",
        "slm: file of the panel's flatness correction, of the panel's size: the maker's gray "
        "levels, or the radians that the panel is to add as floats; writes shown-0, too",
    )
    correction_2pi: int = option(
        0, "slm: gray level of 2 pi in that file; 0: 256", within=Range(2, 65536, also=0)
    )
    grating: float = option(
        0.0,
        "slm: period of a blazed grating over the mask, panel pixels, across; below 0: to the "
        "other side; 0: none; writes shown-0, too",
        within=Range(-1e6, 1e6),
    )


class Addition(NamedTuple):
    """Phases that a panel adds besides those of the mask."""

    phases: Float[np.ndarray, "ph pw"]  # radians
    about: str


def plan_addition(asked: ShownOptions, plan: MaskFormat, *, size: int) -> Addition | None:
    """Returns what the panel is to show besides masks of `size` pixels each way; None if nothing.

    Raises:
        InputError: If the correction cannot be read, is of another size or has an unknown unit, or
            an option is wrong.
    """
    check(asked, before="--")
    if asked.correction_2pi and not asked.correction:
        raise InputError("--correction_2pi: is read only with --correction; leave it out")
    if not (asked.correction or asked.grating):
        return None
    if plan.format != SLM:
        raise InputError("--correction, --grating: are those of a panel; give --format slm")
    if 0 < abs(asked.grating) < FINEST:
        raise InputError(
            f"--grating: expected a period of {FINEST:g} panel pixels or more, got "
            f"{asked.grating:g}; 8 sends 95 % of the light to one side"
        )
    shown = shown_shape((size, size), plan)
    phases, said = np.zeros(plan.panel or shown), []
    if asked.correction:
        phases += _read_correction(asked, plan, phases.shape)
        said.append(f"the correction {Path(asked.correction).name}")
    if asked.grating:
        row, column = corner(shown, plan)
        over = np.s_[:] if plan.tile else np.s_[row : row + shown[0], column : column + shown[1]]
        ramp = phases[over]
        ramp += TURN * np.arange(ramp.shape[1]) / asked.grating
        said.append(f"a grating of {asked.grating:g} panel pixels over the mask")
    return Addition(phases, " and ".join(said))


def add(levels: Pixels, addition: Addition, plan: MaskFormat) -> tuple[Pixels, float]:
    """Returns the gray levels of the sum, and by how many radians they miss it at most."""
    wanted = np.mod(added_phases(levels, plan) + addition.phases, TURN)
    known = added_phases(np.arange(plan.gray_levels), plan)
    found = np.asarray(nearest_level(jnp.asarray(wanted, jnp.float32)[None], known)[0])
    missed = circle_distance(known[found][None], wanted[None])
    return found.astype(levels.dtype), float(missed.max())


def shown_path(path: Path) -> Path:
    """Returns the file to show for a mask file: shown-0.png beside slm-0.png."""
    return path.with_name(path.name.replace(SLM, "shown", 1))


def grating_note(asked: ShownOptions, plan: MaskFormat) -> str:
    """Returns where a grating sends the pattern, with a warning if it stays on the axis."""
    if not asked.grating:
        return ""
    sent = float(np.sinc(1 / asked.grating) ** 2)
    where = f"{abs(plan.side / asked.grating):.3g} times its own width"
    if plan.wavelength and plan.pixel_pitch:
        angle = math.asin(min(plan.wavelength / (abs(asked.grating) * plan.pixel_pitch), 1.0))
        where += f", {1e3 * angle:.3g} mrad"
    said = f"note: the grating moves the pattern across by {where}, with {sent:.0%} of its light"
    if abs(asked.grating) >= 2 * plan.side:
        said += (
            "; the light of the axis stays within the pattern: take a period below "
            f"{2 * plan.side} panel pixels"
        )
    return said


def _read_correction(
    asked: ShownOptions, plan: MaskFormat, shape: tuple[int, ...]
) -> Float[np.ndarray, "ph pw"]:
    """Returns the radians that the panel is to add."""
    pages = read_named("--correction", asked.correction)
    if len(pages) != 1 or pages.shape[1:] != shape:
        raise InputError(
            f"--correction: expected one image of the panel's {shape[0]} x {shape[1]} pixels, got "
            f"{len(pages)} of {' x '.join(map(str, pages.shape[1:]))} in {asked.correction!r}; "
            "give the --panel that it is for, or cut it to the panel"
        )
    values = pages[0]
    if not np.all(np.isfinite(values)):
        raise InputError(f"--correction: expected finite numbers in {asked.correction!r}")
    if values.dtype.kind == "f":
        if asked.correction_2pi:
            raise InputError(
                "--correction_2pi: the correction holds floats, which are radians; leave it out"
            )
        return values.astype(float)
    if values.dtype != np.uint8 and not asked.correction_2pi:
        raise InputError(
            f"--correction_2pi: {asked.correction!r} holds {values.dtype}; say which gray level of "
            "it is 2 pi"
        )
    turn = asked.correction_2pi or 256
    if values.max(initial=0) > turn:
        raise InputError(
            f"--correction: expected gray levels up to {turn}, that of 2 pi, got {values.max()}; "
            "give the --correction_2pi of the file"
        )
    return (-TURN if _falls(plan) else TURN) * values / turn


def _falls(plan: MaskFormat) -> bool:
    """Returns whether brighter pixels of the panel have less phase."""
    if not plan.table:
        return plan.falling
    steps = np.diff(np.asarray(plan.table))
    return bool(np.median(np.mod(steps + math.pi, TURN) - math.pi) < 0)
