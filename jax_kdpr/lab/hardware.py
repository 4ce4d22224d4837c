"""Shows masks on a modulator and takes camera frames, by objects of slmsuite (extra `slm`).

slmsuite (https://github.com/holodyne/slmsuite) drives many modulators and cameras, and simulates
both. A script that works with the simulated ones therefore also drives those of the lab. Any other
object will do if it has the few attributes that are used here:

    slm.shape, slm.set_phase(array, settle=True)     camera.get_image(), camera.flush() if it has it
    slm.bitdepth, slm.dtype (only with `levels`)

A session writes the folders that `calibrate` and `reconstruct` read (docs/guides/hardware.md):

    from jax_kdpr.lab import hardware
    hardware.save_frames("dark.tif", hardware.take_frames(camera, 8))     # the light is off
    hardware.photograph(slm, camera, masks, "blank/blank")                # no object in the beam
    hardware.photograph(slm, camera, masks, "frames/cell-1")              # and so on
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, require
from jax_kdpr.core.options import changed
from jax_kdpr.data.pages.opening import read_stack
from jax_kdpr.lab.frames.results import write_tiff
from jax_kdpr.optics.mask_files.format import SLM, MaskFormat
from jax_kdpr.optics.mask_files.layout import place
from jax_kdpr.optics.mask_files.reading import SHOWN, MaskFile, description, read_mask_file

Panel = Shaped[np.ndarray, "ph pw"]


def panel_phases(
    path: str | Path, shape: tuple[int, int], *, mask: int = 0, also: ArrayLike | None = None
) -> Float[np.ndarray, "ph pw"]:
    """Returns the phases that a panel adds to the light to show a mask: radians, 0 around the mask.

    The mask multiplies the light by e^{-j phi} and the panel by e^{j p}. The result is therefore
    p = -phi, however the file codes it. It is flipped, turned, magnified and placed as the file
    says.

    Args:
        path: A mask file of `export_mask`, with its sidecar beside it.
        shape: Rows and columns of the panel.
        mask: Number of the mask in the file, from 0.
        also: Phases [h w], in radians, that the panel adds to the mask, such as a trial object.

    Raises:
        InputError: If the file cannot be read or has no such mask, if `also` has another shape, or
            if the panel is too small or not the one that the file is for.
    """
    return _added(path, *_read(path, shape), shape, mask=mask, also=also)


def show_mask(
    slm: Any,
    path: str | Path,
    *,
    mask: int = 0,
    also: ArrayLike | None = None,
    levels: bool = False,
) -> None:
    """Shows a mask of a file on a modulator, and waits until it has settled.

    By default slmsuite gets phases. It turns them into gray levels by what it knows of the
    modulator (`set_gamma`, `wav_design_um`), and adds the wavefront correction that it has
    measured. With `levels` the gray levels of the file go to the panel unchanged: those of the
    file's own table (`export_mask --table`, `--gray_2pi`), with its correction and grating if the
    export has any (`--correction`, `--grating`: shown-0.png). In slmsuite's convention a brighter
    level has less phase, and phase 0 is the brightest level: `export_mask --falling` writes such
    files.

    Args:
        slm: Modulator of slmsuite.
        path: A mask file, as in `panel_phases`.
        mask: Number of the mask in the file, from 0.
        also: Phases that are added, as in `panel_phases`; not with `levels`.
        levels: Whether to show the file's own gray levels.

    Raises:
        InputError: As `panel_phases`, or if `levels` does not suit the file or the panel.
    """
    slm.set_phase(_panel(slm, path, mask=mask, also=also, levels=levels), settle=True)


def _added(
    path: str | Path,
    file: MaskFile,
    plan: MaskFormat,
    shape: tuple[int, int],
    *,
    mask: int,
    also: ArrayLike | None,
) -> Float[np.ndarray, "ph pw"]:
    """Returns the phases of `panel_phases`, for a file that was read."""
    if not 0 <= mask < len(file.phases):
        raise InputError(f"{path}: expected a mask of 0 to {len(file.phases) - 1}, got {mask}")
    phases = -file.phases[mask]
    if also is not None:
        given = np.asarray(also)
        given = given.astype(float) if given.dtype.kind in "uif" else np.full((), np.nan)
        if given.shape != phases.shape or not np.all(np.isfinite(given)):
            raise InputError(
                f"also: expected finite phases {list(phases.shape)}, those of the mask's pixels, "
                f"got {list(given.shape)}"
            )
        phases = phases + given
    return place(phases, changed(plan, panel=shape, background=0)).astype(np.float32)


def _panel(slm: Any, path: str | Path, *, mask: int, also: ArrayLike | None, levels: bool) -> Panel:
    """Returns what `show_mask` hands to the modulator."""
    rows, columns = slm.shape
    file, plan = _read(path, (rows, columns))
    if not levels:
        if SHOWN in file.sidecar:
            print(
                f"note: {path} is shown alone; levels=True shows the file with its correction and "
                "grating",
                file=sys.stderr,
            )
        return _added(path, file, plan, (rows, columns), mask=mask, also=also)
    if plan.format != SLM or also is not None or mask:
        raise InputError(
            f"{path}: levels shows the one mask of a gray image as it is; export one with "
            "--format slm and leave mask and also out"
        )
    beside = file.sidecar.get(SHOWN, {}).get("file", Path(path).name)
    gray = read_stack(Path(path).with_name(beside))[0]
    if gray.shape != (rows, columns):
        raise InputError(
            f"{path}: expected the panel's {rows} x {columns} pixels, got {gray.shape[0]} x "
            f"{gray.shape[1]}; export it with --panel {rows}x{columns}"
        )
    if gray.max() >= 2**slm.bitdepth:
        raise InputError(f"{path}: has gray levels beyond {slm.bitdepth} bits; export with --bits")
    return gray.astype(slm.dtype)


def take_frames(camera: Any, count: int = 1) -> Shaped[np.ndarray, "n y x"]:
    """Takes new frames: raw counts in the camera's own type, none from before this call.

    Raises:
        InputError: If a frame is not grey, or does not hold unsigned counts.
    """
    require("count", count, Range(1, 100_000))
    if hasattr(camera, "flush"):
        camera.flush()
    frames = np.stack([np.asarray(camera.get_image()) for _ in range(count)])
    if frames.ndim != 3 or frames.dtype.kind != "u":
        raise InputError(
            f"camera: expected grey frames [y x] of unsigned counts, got {frames.dtype} "
            f"{list(frames.shape[1:])}; switch colour, averaging and HDR off"
        )
    return frames


def save_frames(path: str | Path, frames: Shaped[np.ndarray, "*n y x"]) -> None:
    """Writes frames as a TIFF file with one page per frame.

    Raises:
        InputError: If the file exists already.
    """
    file = Path(path)
    _require_new(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(file, frames)


def photograph(
    slm: Any,
    camera: Any,
    masks: Sequence[str | Path],
    name: str | Path,
    *,
    also: ArrayLike | None = None,
    levels: bool = False,
) -> list[Path]:
    """Takes the shots of one object, a frame through each mask: NAME_00.tif, NAME_01.tif, ...

    Everything is checked before the first mask is shown, and written after the last frame.

    Args:
        slm: Modulator of slmsuite.
        camera: Camera of slmsuite.
        masks: Mask files of one mask each, in the order of the run's snapshots.
        name: Folder and start of the names of the frames; none of these files may exist yet.
        also: As in `show_mask`.
        levels: As in `show_mask`.

    Returns:
        The files, in the order by name in which `calibrate` and `reconstruct` read them.

    Raises:
        InputError: As `show_mask` and `take_frames`, or if a frame of that name exists.
    """
    if isinstance(masks, str | os.PathLike) or not len(masks) or not Path(name).name:
        raise InputError("masks, name: expected a list of files, one a shot, and a name of frames")
    paths = [Path(f"{name}_{number:02d}.tif") for number in range(len(masks))]
    for path in paths:
        _require_new(path)
    for file in masks:
        if (held := len(read_mask_file(Path(file)).phases)) > 1:
            raise InputError(f"{file}: holds {held} masks; export each to a file of its own")
    panels = [_panel(slm, file, mask=0, also=also, levels=levels) for file in masks]
    frames = []
    for panel in panels:
        slm.set_phase(panel, settle=True)
        frames.append(take_frames(camera)[0])
    for path, frame in zip(paths, frames, strict=True):
        save_frames(path, frame)
    return paths


def _require_new(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path}: is there already; give the frames another name")


def _read(path: str | Path, shape: tuple[int, int]) -> tuple[MaskFile, MaskFormat]:
    """Reads a mask file and its format; refuses a file that is for another panel."""
    file = read_mask_file(Path(path))
    if file.changed:
        print(f"warning: {path} has changed since its export", file=sys.stderr)
    plan = description(file.sidecar)
    if plan.panel is not None and tuple(plan.panel) != shape:
        raise InputError(
            f"{path}: was exported for a panel of {plan.panel[0]} x {plan.panel[1]} pixels, got "
            f"one of {shape[0]} x {shape[1]}; export it with --panel {shape[0]}x{shape[1]}"
        )
    return file, plan
