"""Writes mask files, each with a sidecar that states what its values mean.

    phases phi -> `coding` -> gray levels, heights or phases -> `layout` -> file, sidecar

The phases are those with which the run was trained and is evaluated (`Camera.written`). The
levels, the range, the table and the super-pixels of its device are applied to them already.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Float, Shaped
from PIL import Image

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.options import shallow
from jax_kdpr.core.provenance import provenance
from jax_kdpr.lab.masks.shown import Addition, add
from jax_kdpr.optics.beam import Plane
from jax_kdpr.optics.device import DeviceOptions
from jax_kdpr.optics.mask_files.coding import circle_distance, coding_in_words, decode, encode
from jax_kdpr.optics.mask_files.format import HEIGHT, SLM, MaskFormat
from jax_kdpr.optics.mask_files.layout import layout_in_words, place
from jax_kdpr.optics.mask_files.reading import ERROR, SHOWN, shown_path, sidecar_path
from jax_kdpr.runs.run import Run

# Radians by which a level of the file may differ from the run's level and still count as the same:
# a panel that reaches 2 pi at gray level 210 is 0.015 off the run's 256 levels, at no cost.
CLOSE = 0.03
MISSED = 0.2  # radians; a measured table that is further off gets a warning
ALONE = "It holds the mask alone: no flatness correction, no lens, no grating."


def export_masks(
    plan: MaskFormat,
    phases: Float[np.ndarray, "k h w"],
    run: Run,
    *,
    output: Path,
    addition: Addition | None = None,
) -> dict[Path, dict[str, Any]]:
    """Writes files of masks, each with its sidecar, and what a panel is to show.

    Args:
        plan: From `request.plan_export`.
        phases: Phases that the run's device shows (`Camera.written`), in radians.
        run: The sidecars name its folder and its checkpoint; for an untrained run no folder, and
            the digest of the masks.
        output: Folder for the files; it is made if it does not exist.
        addition: What the panel shows besides the mask, in files of their own (`shown_path`);
            without it, those of an earlier export are removed.

    Returns:
        {mask file: its sidecar}.

    Raises:
        InputError: If the file cannot hold the levels that the run was trained on, or a file of
            another run would be replaced.
    """
    encoded = np.stack([encode(mask.astype(float), plan) for mask in phases])
    held = np.stack([decode(values, plan) for values in encoded])
    errors = circle_distance(held, phases.astype(float)).max(axis=(1, 2))
    _require_levels(plan, run.config.device, float(errors.max()))
    planes = np.stack([place(values, plan) for values in encoded])
    name = plan.format if plan.format in (SLM, HEIGHT) else "phases"
    groups = {output / f"{name}-{k}{plan.suffix}": [k] for k in range(len(planes))}
    if plan.stack:
        groups = {output / f"{name}{plan.suffix}": list(range(len(planes)))}
    origin = {
        "folder": str(run.workdir.resolve()) if run.is_trained else "",
        "checkpoint_digest": run.digest or Plane.of(np.asarray(phases)).digest,  # of the masks
        "checkpoint_step": run.step,
    }
    whole_files.require_writable("--output", output)
    ours = [
        shown_path(path) for path in groups if _require_own(path, origin, adds=addition is not None)
    ]
    output.mkdir(parents=True, exist_ok=True)
    made = provenance()
    written = {}
    for path, numbers in groups.items():
        content = file_bytes(planes if plan.stack else planes[numbers[0]], plan.suffix)
        sidecar = {
            "file": path.name,
            "sha256": _digest(content),
            "masks_in_file": numbers,
            "masks_of_run": len(phases),
            "about": in_words(plan, phases.shape[1:]),
            "mask_shape": list(phases.shape[1:]),
            "format": shallow(plan),
            ERROR: float(errors[numbers].max()),
            "run": origin,
            "provenance": made,
        }
        shown, levels = shown_path(path), b""
        if addition is not None:
            summed, missed = add(planes[numbers[0]], addition, plan)
            levels = file_bytes(summed, plan.suffix)
            adds = {"sha256": _digest(levels), "adds": addition.about, ERROR: missed}
            sidecar[SHOWN] = {"file": shown.name, **adds}
        if shown in ours:
            shown.unlink()  # it is of the masks of before
        whole_files.write_whole(path, lambda file, content=content: file.write(content))
        json_files.write_json(sidecar_path(path), sidecar)  # its file is whole
        if levels:  # last: it is known for ours by the sidecar
            whole_files.write_whole(shown, lambda file, levels=levels: file.write(levels))
        written[path] = sidecar
    return written


def in_words(plan: MaskFormat, shape: tuple[int, ...]) -> str:
    """Returns in words all conventions of a mask file; `shape` is that of a mask."""
    return f"{coding_in_words(plan)} {layout_in_words(plan, shape)} {ALONE}"


def magnify_warning(plan: MaskFormat, device: DeviceOptions) -> str:
    """Returns a warning if a mask pixel has other panel pixels than in the training; else ""."""
    if plan.format != SLM or device.panel_pixels in (1, plan.side):
        return ""
    return (
        f"warning: the run was trained for {device.panel_pixels} panel pixels a mask pixel, each "
        f"way, and the file has {plan.side}: another pitch; give --magnify {device.panel_pixels}"
    )


def doubts(plan: MaskFormat, written: dict[Path, dict[str, Any]]) -> str:
    """Returns a note on what no verification can know, or on how far a table is off; else ""."""
    if plan.format == SLM and not plan.table and not plan.gray_2pi:
        return (
            f"note: a phase of 2 pi is taken to be gray level {plan.turn}; if your panel reaches "
            "it elsewhere, give --gray_2pi or --table: no verification can know"
        )
    missed = max(sidecar[ERROR] for sidecar in written.values())
    summed = max(sidecar.get(SHOWN, {}).get(ERROR, 0.0) for sidecar in written.values())
    if summed > MISSED >= missed:
        return (
            f"warning: the panel misses what it is to show by up to {summed:.2g} rad: it does not "
            "reach 2 pi, and the sum of mask and additions does; put the correction elsewhere"
        )
    if not plan.table or missed <= MISSED:
        return ""
    return (
        f"warning: the table's phases are up to {missed:.2g} rad off the trained ones: a panel "
        "does not show what it has no gray level for; train with this table (train --bench, or "
        "config.device.table = device_table(FILE))"
    )


def file_bytes(values: Shaped[np.ndarray, "*k h w"], suffix: str) -> bytes:
    """Returns a file's content: .png, .bmp, .tiff, .npy or .csv (no header, one line a row)."""
    buffer = io.BytesIO()
    values = np.ascontiguousarray(values)
    match suffix:
        case ".tiff":
            tifffile.imwrite(buffer, values, photometric="minisblack")
        case ".npy":
            np.save(buffer, values)
        case ".csv":
            np.savetxt(buffer, values, delimiter=",", fmt="%.9g")  # exact for float32
        case _:
            Image.fromarray(values).save(buffer, format=suffix[1:].upper())
    return buffer.getvalue()


def _require_levels(plan: MaskFormat, device: DeviceOptions, error: float) -> None:
    """Refuses to export a run that was trained on levels to levels far from them.

    A measured table does not hold evenly spaced levels. A run that was trained on such levels
    therefore gets the nearest phases of the table, and the sidecar states the error.
    """
    levels = f"device.table of {len(device.table)} levels" if device.table else ""
    if device.levels and not plan.table:
        levels = f"device.levels = {device.levels}"
    if not levels or error <= CLOSE:
        return
    if plan.format == HEIGHT:
        hint = "leave --levels out, or give a multiple of the run's"
    elif plan.table:
        hint = (
            "train with device.table = lookup_table.device_table(FILE) (phases of e^{-j phi}), or "
            "give --sign direct if it was trained with lookup_table.read_table(FILE) and the panel "
            "multiplies by e^{-j p}"
        )
    else:
        hint = "train for this panel, by train --bench; or give the --gray_2pi that it has"
    raise InputError(
        f"the run was trained with {levels}, which the file would miss by {error:.3g} rad; {hint}"
    )


def _require_own(path: Path, origin: dict[str, Any], *, adds: bool) -> bool:
    """Refuses to replace files, unless the sidecar names the same run or checkpoint.

    Returns:
        Whether what is to be shown lies there, as an earlier export has written it. With `adds` it
        is to be written, and nothing else may lie there.
    """
    beside, shown = sidecar_path(path), shown_path(path)
    remedy, known = "give another --output", {}
    if path.exists() or beside.exists():
        theirs = json_files.read_json(beside, {"run": dict, SHOWN: Maybe(dict)}, remedy=remedy)
        of_run, known = theirs["run"], theirs.get(SHOWN, {})
        names = ("folder", "checkpoint_digest")
        if not any(origin[name] and origin[name] == of_run.get(name) for name in names):
            whose = f"the run {of_run['folder']!r}" if of_run.get("folder") else "other masks"
            raise InputError(f"{beside}: belongs to {whose}; {remedy}")
    if shown == path or not shown.exists():
        return False
    if _digest(shown.read_bytes()) == known.get("sha256"):
        return True
    if adds:
        raise InputError(f"{shown}: is not what this command has written there; {remedy}")
    return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
