"""One picture of all objects of a reconstruction, with what each is worth."""

from pathlib import Path
from typing import Any

import numpy as np

from jax_kdpr.core.metrics import rms_unit
from jax_kdpr.evaluation import pictures
from jax_kdpr.optics.objects import SceneOptions

SHEET_FILE = "sheet.png"


def write_sheet(
    folder: Path, rows: list[dict[str, Any]], *, scene: SceneOptions, pitch: float, stack: bool
) -> None:
    """Writes the first `pictures.SHEET` objects of results.json into one picture.

    Args:
        folder: With the files of the objects.
        rows: Of results.json.
        scene: `Camera.scene`; of a complex one the phase is drawn.
        pitch: Of the object's pixels, metres; 0 where it is not known.
        stack: Whether the objects lie in one file.
    """
    part = "phase" if scene.has_phase else "amplitude"
    shown = rows[: pictures.SHEET]
    pages = np.load(folder / f"{part}.npy", mmap_mode="r") if stack else None
    objects = [
        pictures.Sheet(
            row["name"],
            np.load(folder / f"{row['name']}.npy") if pages is None else np.asarray(pages[number]),
            _verdict(row, part),
            not row["warning"],
        )
        for number, row in enumerate(shown)
    ]
    trusted = sum(not row["warning"] for row in rows)
    title = f"{trusted} of {len(rows)} objects explain their frames"
    if len(shown) < len(rows):
        title += f"; the first {len(shown)}"
    scale = pictures.part_scale(part, scene)
    pictures.plot_sheet(objects, folder / SHEET_FILE, scale=scale, title=title, pitch=pitch)


def _verdict(row: dict[str, Any], part: str) -> str:
    said = f"{'doubtful' if row['warning'] else 'trusted'}, misfit {row['misfit']:.2f}"
    if "psnr" not in row:
        return said
    return f"{said}\n{row['psnr']:.1f} dB, rms {row['rms']:.2f}{rms_unit(part)}"
