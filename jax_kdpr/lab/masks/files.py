"""Files of a mask: phases to gray levels, heights or radians and back, and the sidecar beside them.

    phases phi -> sign -> gray levels, heights or phases -> `layout` -> file, sidecar

A device that adds the phase p multiplies the light by e^{j p}; the operator multiplies it by
e^{-j phi} (`optics.cdp`). The sign "conjugate" therefore writes p = -phi, "direct" p = phi.
What is read back comes from the file and its sidecar alone.
"""

import hashlib
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tifffile
from jaxtyping import Float, Shaped
from PIL import Image

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.limits import POSITIVE_LENGTHS, Range, require, shown
from jax_kdpr.data.pages.opening import read_stack
from jax_kdpr.data.pages.page import require_file
from jax_kdpr.lab.masks.layout import Layout, pick
from jax_kdpr.lab.masks.relief import added_phases, heights, turn_height
from jax_kdpr.optics.device import TURN, DeviceOptions, nearest_level, written_phases

SLM, HEIGHT, PHASE = "slm", "height", "phase"  # what the numbers of a file are
CONJUGATE, DIRECT = "conjugate", "direct"
BITS = (8, 10, 16)

# Of what is read of a sidecar.
SIDECAR = {
    "coding": {
        **{"kind": str, "sign": str, "bits": int, "gray_2pi": int, "falling": bool},
        **{"table": [float], "wavelength": float, "index": float | None, "levels": Maybe(int)},
    },
    "layout": {
        **{"flip_vertical": bool, "flip_horizontal": bool, "rotate": int, "magnify": int},
        **{"panel": list | None, "tile": bool},
    },
    **{"masks_in_file": [int], "mask_shape": (int, int), "largest_phase_error_rad": Maybe(float)},
    **{"sha256": Maybe(str), "run": Maybe(dict)},
}

Plane = Float[np.ndarray, "h w"]
Values = Shaped[np.ndarray, "h w"]


class Coding(NamedTuple):
    """From phases to the numbers of a file."""

    kind: str  # SLM, HEIGHT or PHASE (radians)
    sign: str = CONJUGATE
    bits: int = 8  # slm: gray levels are 0 to 2^bits - 1
    gray_2pi: int = 256  # slm: gray level of one turn, which is level 0 again
    falling: bool = False  # slm: the largest level is phase 0, and phase falls with the level
    table: tuple[float, ...] = ()  # slm: measured phase of each level, in place of the two above
    wavelength: float = 0.0  # height: metres
    index: float | None = None  # height: of the material; None in reflection
    levels: int = 0  # height: etch levels on the circle; 0: any height


class MaskFile(NamedTuple):
    """What a file and its sidecar say."""

    numbers: list[int]  # of the masks in it
    phases: Float[np.ndarray, "k h w"]  # phi of e^{-j phi}, [0, 2 pi)
    sidecar: dict[str, Any]
    changed: bool  # since it was exported


def gray_phases(coding: Coding) -> Float[np.ndarray, "n"]:
    """Returns the phase in radians that the panel adds at each gray level that is written.

    On a panel of more than one turn these are the levels of the first one: with N = gray_2pi
    they are 2 pi / N apart, and level N would be level 0 again.
    """
    if coding.table:
        return np.asarray(coding.table, float)
    count = min(coding.gray_2pi, 2**coding.bits)
    phases = TURN * np.arange(count) / coding.gray_2pi
    return phases[::-1] if coding.falling else phases


def encode(phases: Plane, coding: Coding) -> Values:
    """Returns the numbers that stand for a mask: uint8 or uint16 levels, metres or radians.

    Levels are the nearest on the circle. Heights and phases are float32, of phases in [0, 2 pi).
    """
    shown = np.mod(-phases if coding.sign == CONJUGATE else phases, TURN)
    if coding.kind == SLM:
        levels = nearest_level(jnp.asarray(shown, jnp.float32)[None], gray_phases(coding))[0]
        return np.asarray(levels, np.uint8 if coding.bits == 8 else np.uint16)
    if coding.kind == HEIGHT:
        if coding.levels:
            wanted = jnp.asarray(shown, jnp.float32)[None]
            shown = np.asarray(
                written_phases(wanted, DeviceOptions(levels=coding.levels))[0], float
            )
        material = {"wavelength": coding.wavelength, "index": coding.index}
        return _below(heights(shown, **material), turn_height(**material))
    return _below(shown, TURN)


def decode(values: Values, coding: Coding) -> Plane:
    """Returns the mask phases phi, in [0, 2 pi), that the numbers of a file stand for.

    Raises:
        InputError: If a gray level has no phase.
    """
    if coding.kind == SLM:
        if values.dtype.kind not in "ui":
            raise InputError(f"expected integer gray levels, got {values.dtype}")
        top = len(coding.table) or 2**coding.bits
        if values.max() >= top:
            raise InputError(f"expected gray levels up to {top - 1}, got {values.max()}")
        if coding.table:
            shown = np.array(coding.table)[values]
        elif coding.falling:
            largest = min(coding.gray_2pi, 2**coding.bits) - 1
            shown = TURN * (largest - values.astype(float)) / coding.gray_2pi
        else:
            shown = TURN * values.astype(float) / coding.gray_2pi
    else:
        shown = values.astype(float)
        if coding.kind == HEIGHT:
            shown = added_phases(shown, wavelength=coding.wavelength, index=coding.index)
    return np.mod(-shown if coding.sign == CONJUGATE else shown, TURN)


def circle_distance(
    one: Float[np.ndarray, "*k h w"], other: Float[np.ndarray, "*k h w"]
) -> Float[np.ndarray, "*k h w"]:
    """Returns the distance of two phases on the circle, in [0, pi] radians."""
    return np.abs(np.mod(one - other + math.pi, TURN) - math.pi)


def file_bytes(values: Shaped[np.ndarray, "*k h w"], suffix: str) -> bytes:
    """Returns a file's content: .png, .bmp, .tiff, .npy or .csv (no header, one line a row)."""
    buffer = io.BytesIO()
    match suffix:
        case ".png" | ".bmp":
            image = Image.fromarray(np.ascontiguousarray(values))
            image.save(buffer, format=suffix[1:].upper())
        case ".tiff":
            tifffile.imwrite(buffer, np.ascontiguousarray(values), photometric="minisblack")
        case ".npy":
            np.save(buffer, np.ascontiguousarray(values))
        case ".csv":
            np.savetxt(buffer, values, delimiter=",", fmt="%.9g")  # exact for float32
        case _:
            raise ValueError(f"suffix: expected .png, .bmp, .tiff, .npy or .csv, got {suffix!r}")
    return buffer.getvalue()


def sidecar_path(path: Path) -> Path:
    """Returns where the sidecar of a mask file lies: slm-0.png.json beside slm-0.png."""
    return path.with_name(f"{path.name}.json")


def read_mask_file(path: Path) -> MaskFile:
    """Reads masks back from a file, by what the sidecar beside it says.

    Raises:
        InputError: If one of the two is missing, damaged, or not what the other says.
    """
    remedy = f"keep the sidecar of {path.name} beside it, under the same name, or export it again"
    sidecar = json_files.read_json(sidecar_path(path), SIDECAR, remedy=remedy)
    coding, layout = _rebuilt(Coding, sidecar["coding"]), _rebuilt(Layout, sidecar["layout"])
    numbers, shape = sidecar["masks_in_file"], tuple(sidecar["mask_shape"])
    _check_values(sidecar_path(path), coding, layout, shape)
    planes = _read_planes(path)
    if len(planes) != len(numbers):
        raise InputError(
            f"{path}: expected {len(numbers)} mask(s), as its sidecar says, got shape "
            f"{planes.shape}"
        )
    if not np.all(np.isfinite(planes)):
        raise InputError(f"{path}: expected finite numbers, got NaN or infinity")
    try:
        phases = [decode(pick(plane, layout, shape), coding) for plane in planes]
    except InputError as failure:
        raise InputError(f"{path}: {failure}") from failure
    changed = hashlib.sha256(path.read_bytes()).hexdigest() != sidecar.get("sha256")
    return MaskFile(numbers, np.stack(phases), sidecar, changed)


def _below(values: Plane, limit: float) -> Plane:
    """As float32; what rounds up to the limit, where the circle closes, is 0."""
    rounded = values.astype(np.float32)
    return np.where(rounded >= np.float32(limit), np.float32(0), rounded)


def _rebuilt(kind: Any, values: dict[str, Any]) -> Any:
    """A NamedTuple from JSON, which knows lists only; missing fields take their defaults."""
    known = {name: values[name] for name in kind._fields if name in values}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})


def _check_values(sidecar: Path, coding: Coding, layout: Layout, shape: tuple[int, int]) -> None:
    """Refuses what no export writes."""
    for name, pixels in (
        ("mask_shape", shape),
        ("panel", shape if layout.panel is None else layout.panel),
    ):
        if len(pixels) != 2 or not all(type(side) is int and side > 0 for side in pixels):
            raise InputError(f"{sidecar}: expected {name} of two sides, got {shown(pixels)}")
    kinds, signs = (SLM, HEIGHT, PHASE), (CONJUGATE, DIRECT)
    if coding.kind not in kinds or coding.sign not in signs or coding.bits not in BITS:
        raise InputError(
            f"{sidecar}: expected kind {', '.join(kinds)}, sign {', '.join(signs)} and bits "
            f"{', '.join(map(str, BITS))}, got {coding.kind}, {coding.sign} and {coding.bits}"
        )
    require(f"{sidecar}: gray_2pi", coding.gray_2pi, Range(2, 2**24))
    require(f"{sidecar}: magnify", layout.magnify, Range(1, 8192))
    require(f"{sidecar}: index", coding.index or 0.0, Range(0, 10))
    if coding.kind == HEIGHT:
        within = POSITIVE_LENGTHS["wavelength"]
        require(f"{sidecar}: wavelength", coding.wavelength, within, unit="metres")
    if layout.rotate not in (0, 90, 180, 270) or coding.index == 1:
        raise InputError(
            f"{sidecar}: expected a rotation of 0, 90, 180 or 270 degrees and an index that is not "
            f"1, got {shown(layout.rotate)} and {coding.index}"
        )


def _read_planes(path: Path) -> Shaped[np.ndarray, "k h w"]:
    if path.suffix.lower() != ".csv":
        return read_stack(path)
    try:
        require_file(path)
        return np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")[None]
    except (OSError, ValueError) as failure:
        raise InputError(f"{path}: cannot be read as a mask ({failure})") from failure
