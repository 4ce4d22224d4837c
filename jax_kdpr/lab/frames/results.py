"""Writes the files of a reconstruction, each whole or not at all, results.json last.

One object gives these files:

* NAME.tif and NAME.npy: phase in radians, or amplitude for an amplitude scene; float32
* NAME_amplitude.tif and NAME_amplitude.npy: the amplitude as well, if the scene is complex
* NAME.png: a preview with its scale bar
* NAME.npz: `estimate`, the complex spectral estimate that the network saw, and `intensity`, the
  CDPs as the system took them

A stack holds the same of all objects, in order: phase.tif, phase.npy (or amplitude), estimate.npy
and intensity.npy, without previews. sheet.png shows the first objects in one picture.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile
from jaxtyping import Complex, Float, Shaped

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.limits import Range
from jax_kdpr.core.metrics import rms_unit
from jax_kdpr.core.whole_files import remove_abandoned, whole, write_whole
from jax_kdpr.evaluation import pictures
from jax_kdpr.optics.objects import SceneOptions

RESULTS_FILE = "results.json"
SHEET_FILE = "sheet.png"
SCORES = ("psnr", "ssim", "rms")  # only if the truth is given
ROW = {  # of one object
    **{"name": str, "misfit": float, "refined_misfit": float, "energy": float},
    **{"saturation": float, "unused_bits": Range(0, 16), "warning": str},
    **dict.fromkeys(SCORES, Maybe(float)),
}
ENDS = (".tif", ".npy", ".npz", ".png", "_amplitude.tif", "_amplitude.npy")  # of its files
STACKED = ("phase", "amplitude", "estimate", "intensity")  # of all objects of a stack
RESULTS = {"settings": dict, "frames": [ROW]}
Row = dict[str, Any]  # of one object in results.json


class Recovery(NamedTuple):
    """What is written of one object."""

    name: str
    parts: dict[str, Float[np.ndarray, "h w"]]  # "phase" in radians, "amplitude", or both
    estimate: Complex[np.ndarray, "h w"]
    intensity: Float[np.ndarray, "k sh sw"]


def write_tiff(path: Path, values: Shaped[np.ndarray, "*n h w"]) -> None:
    """Writes a grey TIFF, with several pages for a stack, whole or not at all."""
    write_whole(path, lambda file: tifffile.imwrite(file, values, photometric="minisblack"))


def write_recovery(
    folder: Path, recovery: Recovery, *, scene: SceneOptions, pitch: float = 0.0
) -> None:
    """Writes the files of one object; `pitch` is that of its pixels in metres, 0 if unknown."""
    part, first = next(iter(recovery.parts.items()))
    for other, values in recovery.parts.items():
        name = f"{recovery.name}{'' if other == part else '_amplitude'}"
        write_tiff(folder / f"{name}.tif", values)
        write_whole(folder / f"{name}.npy", lambda file, v=values: np.save(file, v))
    preview, scale = folder / f"{recovery.name}.png", pictures.part_scale(part, scene)
    pictures.plot_object(first, preview, title=recovery.name, scale=scale, pitch=pitch)
    arrays: dict[str, Any] = {"estimate": recovery.estimate, "intensity": recovery.intensity}
    write_whole(folder / f"{recovery.name}.npz", lambda file: np.savez_compressed(file, **arrays))


@contextmanager
def open_stack(folder: Path, count: int) -> Iterator[Callable[[Recovery], None]]:
    """Yields append(recovery), which adds one of `count` objects to the stacks of a folder.

    The stacks grow under temporary names, and get their own names when all objects are in.
    """
    arrays: dict[str, np.memmap] = {}
    pages: dict[str, tifffile.TiffWriter] = {}
    numbers = itertools.count()
    with ExitStack() as opened:

        def open_file(name: str) -> IO[bytes]:
            remove_abandoned(folder / name)
            return opened.enter_context(whole(folder / name))

        def append(recovery: Recovery) -> None:
            number = next(numbers)
            values = {"estimate": recovery.estimate, "intensity": recovery.intensity}
            for name, value in {**recovery.parts, **values}.items():
                if name not in arrays:
                    path = open_file(f"{name}.npy").name
                    shape = (count, *value.shape)
                    arrays[name] = np.lib.format.open_memmap(path, "w+", value.dtype, shape)
                arrays[name][number] = value
            for name, value in recovery.parts.items():
                if name not in pages:
                    file = open_file(f"{name}.tif")
                    pages[name] = opened.enter_context(tifffile.TiffWriter(file))
                pages[name].write(value, photometric="minisblack", contiguous=True)

        yield append
        for array in arrays.values():
            array.flush()


def require_new(folder: Path, names: Iterable[str]) -> None:
    """Refuses to write objects, or stacks, of these names over files of something else.

    Raises:
        InputError: If one of these files exists.
    """
    planned = {f"{name}{end}" for name in names for end in ENDS} | {SHEET_FILE}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in planned:
            raise InputError(
                f"--output: {str(path)!r} is there, and no {RESULTS_FILE} says that it is of a "
                "reconstruction; give another folder, or --resume to go on with one that was "
                "killed at its start"
            )


def read_results(folder: Path, settings: dict[str, Any]) -> list[Row]:
    """Returns the rows of an earlier reconstruction with the same settings.

    Raises:
        InputError: If its settings were different, or results.json is damaged.
    """
    path = folder / RESULTS_FILE
    if not path.exists():
        return []
    found = json_files.read_json(path, RESULTS, remedy="give another --output")
    settings = json.loads(json.dumps(settings))  # as the file has them: lists for tuples
    if found["settings"] != settings:
        earlier = found["settings"]
        differing = [name for name in settings if settings[name] != earlier.get(name)]
        raise InputError(
            f"--resume: {path} was made with other {', '.join(differing) or 'settings'}; give the "
            "same flags, or another --output"
        )
    there = {path.name for path in folder.iterdir()}
    return [row for row in found["frames"] if f"{row['name']}.npz" in there]


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Writes results.json, whole or not at all."""
    json_files.write_json(folder / RESULTS_FILE, results)


def write_sheet(
    folder: Path, rows: list[Row], *, scene: SceneOptions, pitch: float, stack: bool, placed: bool
) -> None:
    """Draws the first objects of results.json in one picture; of complex objects, the phase.

    `pitch` is as in `write_recovery`. With `stack`, all objects are in one file. Where `placed` is
    False, the place of the pattern is in doubt, and so are all objects.
    """
    part = "phase" if scene.has_phase else "amplitude"
    pages = np.load(folder / f"{part}.npy", mmap_mode="r") if stack else None
    objects = []
    for number, row in enumerate(rows[: pictures.SHEET]):
        name = row["name"]
        values = np.load(folder / f"{name}.npy") if pages is None else np.asarray(pages[number])
        is_trusted = placed and not row["warning"]
        said = f"{'trusted' if is_trusted else 'doubtful'}, misfit {row['misfit']:.2f}"
        if "psnr" in row:
            said += f"\n{row['psnr']:.1f} dB, rms {row['rms']:.2f}{rms_unit(part)}"
        objects.append(pictures.Sheet(name, values, said, is_trusted))
    explained = sum(not row["warning"] for row in rows)
    title = f"{explained} of {len(rows)} objects explain their frames"
    if not placed:
        title += ", whose calibration or orientation is in doubt"
    if len(objects) < len(rows):
        title += f"; the first {len(objects)}"
    scale = pictures.part_scale(part, scene)
    pictures.plot_sheet(objects, folder / SHEET_FILE, scale=scale, title=title, pitch=pitch)


def in_words(found: dict[str, Any], kind: str) -> str:
    """Returns a short summary of results.json, for scenes of a kind."""
    said = (
        f"{len(found['frames'])} object(s), median misfit {found['median_misfit']:.3f} (limit "
        f"{found['median_misfit_limit']:.3f})"
    )
    after = [row["refined_misfit"] for row in found["frames"]]
    if after != [row["misfit"] for row in found["frames"]]:
        said += f", {np.median(after):.3f} after refinement"
    rows = [row for row in found["frames"] if "psnr" in row]
    if not rows:
        return said
    psnr, ssim, rms = (float(np.mean([row[name] for row in rows])) for name in SCORES)
    unit = "" if kind == "amplitude" else " rad, piston removed"
    return (
        f"{said}\nagainst --truth, mean of {len(rows)}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}, rms "
        f"error over the object {rms:.3f}{unit}"
    )


def warnings(found: dict[str, Any]) -> list[str]:
    """Returns the warnings about all objects together, and the first about a single object."""
    flagged = [row for row in found["frames"] if row["warning"]]
    said = f"{len(flagged)} of {len(found['frames'])} objects; first "
    first = [f"{said}{row['name']}: {row['warning']}" for row in flagged[:1]]
    return [*found["warnings"], *first]
