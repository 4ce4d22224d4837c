"""What a panel is to show in the end: a mask, the panel's flatness correction, and a grating.

    p = p of the mask file's gray level + correction + grating -> nearest gray level of the panel

A mask file holds the mask alone, so that it can be read back and verified. What the panel shows is
a file of its own beside it. The mask is in it once, and so is each of the others.
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import check, option, section
from jax_kdpr.data.pages.opening import read_named
from jax_kdpr.lab.bench_file import Bench, require_grating
from jax_kdpr.optics.device import TURN, nearest_level
from jax_kdpr.optics.mask_files.coding import added_phases, circle_distance
from jax_kdpr.optics.mask_files.format import CONJUGATE, SLM, MaskFormat
from jax_kdpr.optics.mask_files.layout import corner, shown_shape

Pixels = Shaped[np.ndarray, "ph pw"]  # of the panel
WRAPPED = 0.97  # of a turn: the least height of a gray level next to the wrap of a phase
STEEP = 0.7  # of the range of the values: a step that only a wrap makes


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

    A printed line says what was read.

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
    require_grating("--grating", asked.grating, plan.side)
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


def grating_note(bench: Bench, period: float, magnify: int, *, sign: str = CONJUGATE) -> str:
    """Returns in words where a grating of a bench sends the pattern, as far as that is known."""
    panel, camera = bench.modulator, bench.camera
    way = f"{magnify / abs(period):.3g} of its widths"
    if bench.wavelength and panel.pixel_pitch:
        sine = bench.wavelength / (abs(period) * panel.pixel_pitch)
        way += f", {1e3 * math.asin(min(sine, 1.0)):.3g} mrad"
        if bench.focal_length:
            way += f", {1e3 * sine * bench.focal_length:.3g} mm"
            if camera.pixel_pitch:
                pixels = sine * bench.focal_length / camera.pixel_pitch
                way += f", {pixels:.0f} camera pixels"
    # With the sign "direct" the light has less phase where the panel says more.
    side = "larger" if (period > 0) == (sign == CONJUGATE) else "smaller"
    sent = np.sinc(1 / period) ** 2
    return (
        f"the grating moves the pattern by {way}, to {side} columns (of a camera that sees it "
        f"unflipped), with {sent:.0%} of its light; move the camera, or its window, after it"
    )


def _read_correction(
    asked: ShownOptions, plan: MaskFormat, shape: tuple[int, ...]
) -> Float[np.ndarray, "ph pw"]:
    """Returns the radians that the panel is to add."""
    pages = read_named("--correction", asked.correction)
    if len(pages) != 1 or pages.shape[1:] != shape:
        wanted = f"the panel's {shape[0]} x {shape[1]} pixels"
        hint = "is it the file of this panel?"
        if pages.shape[1:] == shape[::-1]:
            hint = "it looks transposed (in MATLAB: x.')"
        if plan.panel is None:
            wanted = f"{shape[0]} x {shape[1]} pixels, those of the mask alone"
            hint = "give the --panel that it is for"
        raise InputError(
            f"--correction: expected one image of {wanted}, got {len(pages)} of "
            f"{' x '.join(map(str, pages.shape[1:]))} in {asked.correction!r}; {hint}"
        )
    values = pages[0]
    if not np.all(np.isfinite(values)):
        raise InputError(f"--correction: expected finite numbers in {asked.correction!r}")
    low, high = values.min(), values.max()
    what = f"--correction: {shape[0]} x {shape[1]}, {values.dtype}, {low:.4g} to {high:.4g}"
    if values.dtype.kind == "f":
        if asked.correction_2pi:
            raise InputError(
                "--correction_2pi: the correction holds floats, which are radians; leave it out"
            )
        if high > TURN and np.array_equal(values, values.round()):
            raise InputError(
                f"--correction: floats are radians, and {asked.correction!r} holds whole numbers "
                f"up to {high:g}; save gray levels as uint8"
            )
        print(f"{what} rad, {(high - low) / TURN:.2g} turns")
        if _wraps(values) and abs(high - low - TURN) > (1 - WRAPPED) * TURN:
            print(
                f"warning: --correction: its values wrap, and their range is {high - low:.4g}, not "
                "2 pi: are they radians?",
                file=sys.stderr,
            )
        return values.astype(float)
    if values.dtype != np.uint8 and not asked.correction_2pi:
        raise InputError(
            f"--correction_2pi: {asked.correction!r} holds {values.dtype}; say which gray level of "
            "it is 2 pi"
        )
    turn = asked.correction_2pi or 256
    if high > turn:
        raise InputError(
            f"--correction: expected gray levels up to {turn}, that of 2 pi, got {high}; give the "
            "--correction_2pi of the file"
        )
    print(f"{what}, where {turn} is 2 pi")
    if _wraps(values) and high < WRAPPED * turn:
        print(
            f"warning: --correction: it wraps at gray level {high}; if that is 2 pi, give "
            f"--correction_2pi {int(high) + 1}",
            file=sys.stderr,
        )
    return (-TURN if _falls(plan) else TURN) * values / turn


def _wraps(values: Pixels) -> bool:
    """Returns whether neighbours differ by nearly the whole range, as where a phase wraps."""
    steps = np.abs(np.diff(values.astype(float), axis=1))
    limit = STEEP * (float(values.max()) - float(values.min()))
    return bool(steps.max(initial=0.0) > limit > 0)


def _falls(plan: MaskFormat) -> bool:
    """Returns whether brighter pixels of the panel have less phase."""
    if not plan.table:
        return plan.falling
    phases = np.unwrap(plan.table)
    return bool(phases[-1] < phases[0])
