"""Reading mask files back, by the sidecar beside each, or as plain phases without one."""

import hashlib
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jax_kdpr.core import json_files, options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.data.pages.opening import read_named, read_stack
from jax_kdpr.data.pages.page import require_file
from jax_kdpr.optics.mask_files.coding import decode
from jax_kdpr.optics.mask_files.format import SLM, MaskFormat, check_format
from jax_kdpr.optics.mask_files.layout import pick

FLAT, MANY_TURNS = 1e-2, 16 * math.pi  # ranges of phases that can hardly be a mask in radians
ERROR = "largest_phase_error_rad"  # in a sidecar
# In a sidecar: the file of what a panel is to show, and what was added to the mask. In its name.
SHOWN = "shown"
SIDECAR = {
    **{"format": dict, "masks_in_file": [int], "mask_shape": (int, int), ERROR: Maybe(float)},
    **{"sha256": Maybe(str), "run": Maybe(dict), SHOWN: Maybe({"file": str})},
}


class MaskFile(NamedTuple):
    """Contents of a mask file and its sidecar."""

    numbers: list[int]  # numbers of its masks in the run
    phases: Float[np.ndarray, "k h w"]  # phi of e^{-j phi}, [0, 2 pi)
    sidecar: dict[str, Any]
    changed: bool  # whether the file has changed since its export


def sidecar_path(path: Path) -> Path:
    """Returns the path of a mask file's sidecar: slm-0.png.json beside slm-0.png."""
    return path.with_name(f"{path.name}.json")


def shown_path(path: Path) -> Path:
    """Returns the file to show for a mask file: shown-0.png beside slm-0.png."""
    return path.with_name(path.name.replace(SLM, SHOWN, 1))


def read_mask_file(path: Path) -> MaskFile:
    """Reads masks back from a file, as the sidecar beside it describes them.

    Raises:
        InputError: If one of the two is missing or damaged, or they contradict each other.
    """
    _refuse_shown(path)
    beside = sidecar_path(path)
    remedy = f"keep the sidecar of {path.name} beside it, under the same name, or export it again"
    sidecar = json_files.read_json(beside, SIDECAR, remedy=remedy)
    try:
        described = description(sidecar)
    except InputError as failure:
        raise InputError(f"{beside}: {failure}; {remedy}") from failure
    numbers, shape = sidecar["masks_in_file"], tuple(sidecar["mask_shape"])
    planes = read_planes(path)
    if len(planes) != len(numbers):
        raise InputError(
            f"{path}: expected {len(numbers)} mask(s), as its sidecar says, got shape "
            f"{planes.shape}"
        )
    if not np.all(np.isfinite(planes)):
        raise InputError(f"{path}: expected finite numbers, got NaN or infinity")
    try:
        phases = [decode(pick(plane, described, shape), described) for plane in planes]
    except InputError as failure:
        raise InputError(f"{path}: {failure}") from failure
    changed = hashlib.sha256(path.read_bytes()).hexdigest() != sidecar.get("sha256")
    return MaskFile(numbers, np.stack(phases), sidecar, changed)


def read_phases(
    named: str, path: str, *, size: int | None = None, snapshots: int | None = None
) -> Float[np.ndarray, "k h w"]:
    """Reads masks for a system: by the sidecar of their file, or phases in radians without one.

    Args:
        named: The option or flag that gave the path.
        path: Path of the file. Without a sidecar it holds floats, one page or plane a mask.
        size: Height and width that the masks must have; None for any square.
        snapshots: How many masks there must be; None for any number.

    Raises:
        InputError: As `read_mask_file`, or if the file is missing, holds no phases, or holds masks
            of another size or number.
    """
    _refuse_shown(Path(path))
    if sidecar_path(Path(path)).exists():
        file = read_mask_file(Path(path))
        if file.changed:
            print(f"warning: {named}: {path!r} has changed since its export", file=sys.stderr)
        phases = file.phases
    else:
        phases = read_named(named, path)
        if phases.dtype.kind != "f":
            raise InputError(
                f"{named}: {path!r} has no sidecar that says what {phases.dtype} numbers mean; "
                f"keep {sidecar_path(Path(path)).name} beside it, or save float phases in radians"
            )
    size = size or phases.shape[1]
    if phases.shape[1:] != (size, size) or len(phases) != (snapshots or len(phases)):
        raise InputError(
            f"{named}: expected {snapshots or 'any number of'} mask(s) of {size} x {size} pixels, "
            f"got {len(phases)} of {' x '.join(map(str, phases.shape[1:]))} in {path!r}; set "
            "masks.snapshots and data.size to what it holds, or bring the masks into one file of "
            "that size"
        )
    if not np.all(np.isfinite(phases)):
        raise InputError(f"{named}: expected finite numbers, got NaN or infinity in {path!r}")
    span = float(np.ptp(phases))
    if not FLAT < span < MANY_TURNS:
        what = f"{span / math.tau:.0f} turns" if span > FLAT else f"no more than {span:.2g} rad"
        print(
            f"warning: {named}: {what} of phase; are these radians, and not degrees, heights or "
            "gray levels? (jax_kdpr.import_mask reads heights)",
            file=sys.stderr,
        )
    return phases


def _refuse_shown(path: Path) -> None:
    """Refuses what a panel is to show, from which the mask alone cannot be had."""
    mask = path.with_name(path.name.replace(SHOWN, SLM, 1))
    if mask != path and sidecar_path(mask).exists():
        raise InputError(
            f"{path}: holds the mask and what was added to it, for the panel alone; give {mask}"
        )


def description(sidecar: dict[str, Any]) -> MaskFormat:
    """Returns the format that a sidecar gives its file; raises as `check_format`."""
    # JSON has null for what is not given.
    given = {name: value for name, value in sidecar["format"].items() if value is not None}
    described = options.build(MaskFormat, given, known=list(options.flatten(MaskFormat())))
    check_format(described)
    return described


def read_planes(path: Path) -> Shaped[np.ndarray, "k h w"]:
    """Reads the planes of a file, CSV included, as it stores them.

    Raises:
        InputError: If it cannot be read.
    """
    if path.suffix.lower() != ".csv":
        return read_stack(path)
    try:
        require_file(path)
        return np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")[None]
    except (OSError, ValueError) as failure:
        raise InputError(f"{path}: cannot be read as a mask ({failure})") from failure
