"""Writes the masks of a run as files for a device, and beside each what it means.

The phases are those that the run was trained and is evaluated with (`Camera.written`): levels,
range, table and super-pixels of its device are in them already.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.masks.files import (
    HEIGHT,
    circle_distance,
    decode,
    encode,
    file_bytes,
    sidecar_path,
)
from jax_kdpr.lab.masks.layout import corner, place
from jax_kdpr.lab.masks.relief import largest_step, smallest_feature
from jax_kdpr.lab.masks.report import ERROR, NO_CORRECTION, sentences
from jax_kdpr.lab.masks.request import Plan
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run

# Radians between a level of the run's device and the file's that pass for the same: a panel that
# reaches 2 pi at gray level 210 is 0.015 away from the run's 256 levels, which costs nothing.
CLOSE = 0.03


def export_masks(
    plan: Plan,
    phases: Float[np.ndarray, "k h w"],
    run: Run,
    *,
    output: Path,
) -> list[Path]:
    """Writes the files of a plan, each with its sidecar, all or none of them.

    Args:
        plan: From `plan_export`.
        phases: That the run's device shows (`Camera.written`), radians.
        run: Whose folder and checkpoint are named in the sidecars.
        output: Folder for the files, which is made if need be.

    Returns:
        The files, without sidecars.

    Raises:
        InputError: If the file cannot hold the levels that the run was trained on, or there are
            files of another run in `output`.
    """
    encoded = [encode(mask.astype(float), plan.coding) for mask in phases]
    errors = [
        float(circle_distance(decode(values, plan.coding), mask.astype(float)).max())
        for values, mask in zip(encoded, phases, strict=True)
    ]
    _require_levels(plan, max(errors))
    planes = [place(values, plan.layout, background=plan.background) for values in encoded]
    if plan.stack:
        groups = {output / f"{plan.name}{plan.suffix}": list(range(len(planes)))}
    else:
        groups = {output / f"{plan.name}-{k}{plan.suffix}": [k] for k in range(len(planes))}
    origin = {
        "folder": str(run.workdir.resolve()),
        "checkpoint_digest": run.digest,
        "checkpoint_step": run.step,
    }
    _refuse_foreign(output, groups, origin)
    contents = {}
    provenance = run_folder.provenance()
    for path, numbers in groups.items():
        values = np.stack([planes[k] for k in numbers]) if plan.stack else planes[numbers[0]]
        contents[path] = file_bytes(values, plan.suffix)
        sidecar = {
            "file": path.name,
            "sha256": hashlib.sha256(contents[path]).hexdigest(),
            "masks_in_file": numbers,
            "masks_of_run": len(phases),
            **_describe(plan, phases.shape[1:], values),
            ERROR: max(errors[k] for k in numbers),
            "run": origin,
            "provenance": provenance,
        }
        if plan.coding.kind == HEIGHT:
            sidecar["relief"] = _relief([encoded[k] for k in numbers], plan)
        contents[sidecar_path(path)] = sidecar
    output.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():  # a sidecar after its file: it is the sign of a whole
        if isinstance(content, bytes):
            whole_files.write_whole(path, lambda file, content=content: file.write(content))
        else:
            json_files.write_json(path, content)
    return list(groups)


def _describe(plan: Plan, shape: tuple[int, ...], values: np.ndarray) -> dict[str, Any]:
    """What the sidecar says of a file that does not depend on which mask it is."""
    coding = plan.coding._asdict()
    table = np.asarray(plan.coding.table)
    return {
        "about": sentences(plan, shape),
        "mask_shape": list(shape),
        "file_shape": list(values.shape),
        "data_type": str(values.dtype),
        "coding": coding,
        "layout": plan.layout._asdict(),
        "table_digest": hashlib.sha256(table.tobytes()).hexdigest() if table.size else "",
        "corner": list(corner(shape, plan.layout)),
        "background": plan.background,
        "wrap": "[0, 2 pi)",
        "corrections": NO_CORRECTION,
        "wavelength_m": plan.wavelength or None,
        "mask_pitch_m": plan.mask_pitch or None,
        "pixel_pitch_m": plan.pixel_pitch or None,
        "levels_of_run": plan.levels or "none that the file keeps to",
    }


def _relief(heights: list[np.ndarray], plan: Plan) -> dict[str, int | float | None]:
    pixels = min(smallest_feature(plane) for plane in heights)
    return {
        "smallest_feature_pixels": pixels,
        "smallest_feature_m": pixels * plan.mask_pitch or None,
        "largest_height_m": max(float(plane.max()) for plane in heights),
        "largest_step_m": max(largest_step(plane) for plane in heights),
    }


def _require_levels(plan: Plan, error: float) -> None:
    """A run that was trained on levels is exported on these, not on others far from them."""
    if not plan.levels or error <= CLOSE:
        return
    if plan.coding.kind == HEIGHT:
        hint = "leave --levels out, or give a multiple of the run's"
    elif plan.coding.table:
        hint = (
            "train with device.table = lookup_table.device_table(FILE) (phases of e^{-j phi}), or "
            "give --sign direct if it was trained with lookup_table.read_table(FILE) and the panel "
            "multiplies by e^{-j p}"
        )
    else:
        hint = "train with device.levels = --gray_2pi of your panel, or give more --bits"
    raise InputError(
        f"the run was trained with {plan.levels}, which the file would miss by {error:.3g} rad; "
        f"{hint}"
    )


def _refuse_foreign(output: Path, paths: Iterable[Path], run: dict[str, Any]) -> None:
    run_folder.require_writable("--output", output)
    for path in paths:
        beside = sidecar_path(path)
        if beside.exists():
            theirs = json_files.read_json(beside, {"run": dict}, remedy="give another --output")[
                "run"
            ]
            same = ("folder", "checkpoint_digest")
            if any(theirs.get(name) == run[name] for name in same):
                continue
            raise InputError(
                f"{beside}: belongs to the run {theirs.get('folder', '(unknown)')!r}; give another "
                "--output"
            )
        if path.exists():
            raise InputError(
                f"{path}: exists, and no sidecar says whose it is; give another --output"
            )
