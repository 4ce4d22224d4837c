"""What a person reads of exported masks: their conventions, and what became of them."""

from pathlib import Path

from jax_kdpr.core import json_files
from jax_kdpr.lab.masks.files import (
    CONJUGATE,
    HEIGHT,
    PHASE,
    SLM,
    Coding,
    gray_phases,
    sidecar_path,
)
from jax_kdpr.lab.masks.layout import Layout, corner
from jax_kdpr.lab.masks.relief import turn_height
from jax_kdpr.lab.masks.request import Plan
from jax_kdpr.lab.masks.verification import Verdict

ERROR = "largest_phase_error_rad"  # in a sidecar
MISSED = 0.2  # radians off that a measured table should not be
NO_CORRECTION = (
    "no correction included: neither flatness of the device, nor lens, nor grating; your tools may "
    "add them, once"
)


def sentences(plan: Plan, shape: tuple[int, ...]) -> str:
    """Returns all conventions of a file in words."""
    coding, layout = plan.coding, plan.layout
    sign = "p = -phi" if coding.sign == CONJUGATE else "p = phi"
    told = [
        _meaning(coding),
        f"Here {sign}, where phi is the mask of the trained operator, e^{{-j phi}}.",
    ]
    told.append(
        "A device that adds p multiplies the light by e^{j p}, as trained."
        if coding.sign == CONJUGATE
        else "This is as trained where the device multiplies the light by e^{-j p}."
    )
    told.append(_placement(layout, shape, plan.background))
    told.append(f"{NO_CORRECTION.capitalize()}.")
    return " ".join(told)


def _meaning(coding: Coding) -> str:
    if coding.kind == HEIGHT:
        turn = turn_height(wavelength=coding.wavelength, index=coding.index)
        how = (
            "h = -p lambda / (4 pi), in reflection: a higher surface is less phase p"
            if coding.index is None
            else f"h = p lambda / (2 pi (n - 1)), n = {coding.index:g}, in transmission: thicker "
            "is more phase p"
        )
        steps = f", etched in {coding.levels} levels" if coding.levels else ""
        return f"Heights in metres, {how}; wrapped to one turn, which is [0, {turn:.4g}) m{steps}."
    if coding.kind == PHASE:
        return "Phases p in radians, wrapped to [0, 2 pi)."
    container = "" if coding.bits == 8 else ", right-justified in 16-bit pixels"
    if coding.table:
        rule = f"shows the phase p that the table of {len(coding.table)} levels gives"
    elif coding.falling:
        top = len(gray_phases(coding)) - 1
        rule = f"shows p = 2 pi ({top} - g) / {coding.gray_2pi}, falling"
    else:
        rule = f"shows p = 2 pi g / {coding.gray_2pi}"
    return f"Gray level g ({coding.bits} bits, 0 to {2**coding.bits - 1}{container}) {rule}."


def _placement(layout: Layout, shape: tuple[int, ...], background: int) -> str:
    turns = [
        *(["top and bottom exchanged"] if layout.flip_vertical else []),
        *(["left and right exchanged"] if layout.flip_horizontal else []),
        *([f"turned {layout.rotate} degrees counter-clockwise"] if layout.rotate else []),
    ]
    told = (
        f"Row 0 is the top row; the mask is {', then '.join(turns) or 'neither flipped nor turned'}"
    )
    if layout.magnify > 1:
        told += f"; {layout.magnify} x {layout.magnify} pixels show one of the mask"
    if layout.panel is None:
        return f"{told}."
    row, column = corner(shape, layout)
    if layout.tile:
        return f"{told}; repeated over the panel from its top left corner on."
    return (
        f"{told}; its top left pixel is at row {row}, column {column} of the panel, the rest of "
        f"which has gray level {background}."
    )


def turn_note(coding: Coding, *, is_given: bool) -> str:
    """Says which gray level is taken for 2 pi; "" where somebody has said it (`is_given`)."""
    if coding.kind != SLM or coding.table or is_given:
        return ""
    return (
        f"a phase of 2 pi is taken to be gray level {coding.gray_2pi}; if your panel reaches it "
        "elsewhere, give --gray_2pi or --table: no verification can know"
    )


def table_warning(coding: Coding, paths: list[Path]) -> str:
    """Says that a measured table misses the trained phases of files; "" where it does not."""
    missed = max(json_files.read_json(sidecar_path(path))[ERROR] for path in paths)
    if not coding.table or missed <= MISSED:
        return ""
    return (
        f"the table's phases are up to {missed:.2g} rad off the trained ones: a panel does not "
        "show what it has no gray level for; train with this table (config.device.table = "
        "device_table(FILE), docs/bench.md)"
    )


def written(path: Path) -> str:
    """Returns the line of a file that was written, from its sidecar."""
    sidecar = json_files.read_json(sidecar_path(path))
    line = f"written: {path} and {path.name}.json; at most {sidecar[ERROR]:.2g} rad off"
    relief = sidecar.get("relief")
    if relief:
        length = relief["smallest_feature_m"]
        line += (
            f"; smallest feature {relief['smallest_feature_pixels']} mask pixel(s)"
            f"{f' = {length:.3g} m' if length else ''}, largest step "
            f"{relief['largest_step_m']:.3g} m"
        )
    return line


def verified(verdict: Verdict) -> str:
    """Returns the line of files that were verified."""
    return (
        f"PSNR over {verdict.images:,} test images, and rms over the object: trained masks "
        f"{verdict.trained:.2f} dB, {verdict.trained_rms:.3f}{verdict.rms_unit}; file "
        f"{verdict.found:.2f} dB, {verdict.found_rms:.3f}{verdict.rms_unit}; loss "
        f"{verdict.loss:.3f} ± {verdict.loss_error:.3f} dB"
    )
