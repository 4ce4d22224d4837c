"""Measured look-up tables of a panel: which phase each gray level gives.

In a config file: `config.device.table = device_table("slm.csv")`; the masks are then trained on
exactly the phases that the panel can show, and `export_mask` writes their gray levels.
"""

import math
import re
from pathlib import Path

import numpy as np

from jax_kdpr.errors import InputError

LARGEST = 4 * math.pi  # radians; a panel gives two turns at most, a table in degrees hundreds


def read_table(path: str | Path) -> tuple[float, ...]:
    """Reads the phase in radians that each gray level 0, 1, ... n - 1 adds to the light.

    The phases need be neither monotone nor within one turn.

    Args:
        path: Text of two columns, gray level and phase, split by comma, semicolon or white space,
            in any order of the levels, with or without a header line; or NPY [n] (phases) or [n 2].

    Raises:
        InputError: If the file cannot be read, has other columns, fewer than two levels, a gap
            between them, or phases that are no radians.
    """
    path = Path(path)
    rows = _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)
    if rows.ndim == 1:
        rows = np.stack([np.arange(len(rows)), rows], axis=1)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise InputError(
            f"{path}: expected two columns, gray level and phase, got shape {rows.shape}"
        )
    if len(rows) < 2:
        raise InputError(f"{path}: expected two gray levels or more, got {len(rows)}")
    if not np.all(np.isfinite(rows)):
        raise InputError(f"{path}: expected finite numbers, got NaN or infinity; measure it again")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    wrong = np.flatnonzero(rows[:, 0] != np.arange(len(rows)))
    if len(wrong):
        level = wrong[0]
        raise InputError(
            f"{path}: expected every gray level from 0 to {len(rows) - 1} once, got "
            f"{rows[level, 0]:g} in place of {level}; interpolate what was not measured"
        )
    largest = np.abs(rows[:, 1]).max()
    if largest > LARGEST:
        raise InputError(
            f"{path}: expected phases in radians, up to 4 pi, got {largest:g}; convert degrees, "
            "or subtract what all levels share"
        )
    return tuple(rows[:, 1].tolist())


def device_table(path: str | Path) -> tuple[float, ...]:
    """Returns a panel's table as `config.device.table` wants it: the phases phi of e^{-j phi}.

    A panel that adds the phase p multiplies the light by e^{j p}, which a mask of phase -p does.

    Args:
        path: As of `read_table`.

    Returns:
        -p of each gray level, in [0, 2 pi).

    Raises:
        InputError: As `read_table`.
    """
    return tuple(-phase % math.tau for phase in read_table(path))


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False), float)
    except (OSError, ValueError, EOFError) as failure:
        raise InputError(f"{path}: cannot be read as an array ({failure})") from failure


def _read_text(path: Path) -> np.ndarray:
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"{path}: cannot be read ({failure})") from failure
    rows: list[list[float]] = []
    content = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(content):
        cells = re.split(r"\s*[,;]\s*|\s+", line)
        try:
            row = [float(cell) for cell in cells]
        except ValueError as failure:
            if number == 0:
                continue  # the header
            raise InputError(f"{path}: expected numbers, got {line!r}") from failure
        if len(row) != 2:
            raise InputError(
                f"{path}: expected two columns, gray level and phase, got {len(row)} in {line!r}"
            )
        rows.append(row)
    return np.array(rows, float).reshape(-1, 2)
