"""Measured look-up tables of a panel: which phase each gray level gives.

In a config file: `config.device.table = device_table("slm.csv")`; the masks are then trained on
exactly the phases that the panel can show, and `export_mask` writes their gray levels.
"""

import math
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.data.pages.page import require_file
from jax_kdpr.data.pages.stacks import read_array

LARGEST = 4 * math.pi  # radians; a panel gives at most two turns, a table in degrees hundreds
# A panel of less than half a turn makes no phase mask. Such an array is in waves or in units of pi.
SHORTEST = math.pi
# Units that a header may name, in radians.
UNITS = {
    **dict.fromkeys(("rad", "radian", "radians"), 1.0),
    **dict.fromkeys(("pi", "π"), math.pi),
    **dict.fromkeys(("wave", "waves", "lambda", "λ", "turn", "turns"), math.tau),
    **dict.fromkeys(("deg", "degree", "degrees", "°"), math.pi / 180),
}
LETTER = r"[^\W\d_]"
WORD = rf"({'|'.join(UNITS)})(?!{LETTER})"
# A unit is a word, or a multiple or a part of one: "pi", "2 pi", "2*pi rad", "waves/10".
NUMBER = r"(0\.\d*[1-9]\d*|[1-9]\d*(?:\.\d+)?)"
UNIT = rf"(?P<unit>(?:{NUMBER}[\s*·]*)?{WORD}(?:\s*/\s*{NUMBER})?)"
RAD_AFTER_PI = rf"((?:pi|π)(?:\s*/\s*\d+)?)[\s*·_]*rad(?:ian)?s?(?!{LETTER})"  # "rad" adds nothing
MOST_LEVELS = 2**16 - 1
FURTHEST = 1.75  # radians between neighbours, across which a line is drawn
VOLTAGES = 720.0  # whole numbers beyond are neither radians nor degrees
MOST_BYTES = 2**24  # of a text file


def read_table(path: str | Path) -> tuple[float, ...]:
    """Reads the phase in radians that each gray level 0, 1, ... n - 1 adds to the light.

    The phases need be neither monotone nor within one turn. One printed line says what was read.

    Levels that lie between measured ones are interpolated.

    Args:
        path: Text file of two columns, gray level and phase, split by semicolon, tab, comma or
            space, with levels from 0 on in any order. Its header names the unit of the phases,
            alone in a bracket: a word of `UNITS`, or a multiple or part of one, as in
            "gray,phase (waves)", "(2 pi rad)" or "(lambda/2)". Or NPY file [n] (phases) or [n 2],
            in radians.

    Raises:
        InputError: If the file cannot be read, has other columns, fewer than two levels, a level
            twice, a gap too wide to interpolate, no clear unit, or phases that cannot be right.
    """
    path = Path(path)
    is_array = path.suffix.lower() == ".npy"
    rows, unit = (_read_array(path), 1.0) if is_array else _read_text(path)
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
    _require_levels(path, rows[:, 0])
    if rows[:, 1].max() > VOLTAGES and np.array_equal(rows, rows.round()):
        raise InputError(
            f"{path}: expected the phase of each gray level, got whole numbers up to "
            f"{rows[:, 1].max():g}: "
            "voltages, as of a .lut file, which is for the driver of the panel; give gray_2pi "
            "instead, the gray level of 2 pi under that file"
        )
    if unit is None:
        raise InputError(
            f"{path}: does not say in which unit its phases are, {rows[:, 1].min():g} to "
            f"{rows[:, 1].max():g}; begin it with a header such as gray,phase (rad), (pi), (waves) "
            "or (degrees); of voltages no phase is known: give gray_2pi in place of the table"
        )
    phases = rows[:, 1] * unit
    low, high = float(phases.min()), float(phases.max())
    if max(-low, high) > LARGEST:
        raise InputError(
            f"{path}: expected phases of at most 4 pi, got {low:g} to {high:g} rad; mend the unit, "
            "or subtract what all levels share"
        )
    if is_array and high - low < SHORTEST:
        raise InputError(
            f"{path}: expected radians, and its phases reach only from {low:g} to {high:g}; "
            "multiply them, or write a text whose header names their unit"
        )
    phases, said = _between(path, rows[:, 0], phases)
    print(f"{path}: {len(phases)} gray levels, {low:.3g} to {high:.3g} rad{said}")
    return tuple(phases.tolist())


def _require_levels(path: Path, levels: Float[np.ndarray, "n"]) -> None:
    wrong = np.flatnonzero(levels != np.round(levels))
    if len(wrong):
        raise InputError(f"{path}: expected gray levels, whole numbers, got {levels[wrong[0]]:g}")
    if levels[0] != 0:
        raise InputError(
            f"{path}: expected gray levels from 0 on, got {levels[0]:g} as the first; measure "
            "level 0, too"
        )
    if levels[-1] > MOST_LEVELS:
        raise InputError(f"{path}: expected gray levels up to {MOST_LEVELS}, got {levels[-1]:g}")
    if len(twice := np.flatnonzero(np.diff(levels) == 0)):
        raise InputError(
            f"{path}: expected every gray level once, got {levels[twice[0]]:g} twice; take the "
            "mean of its phases"
        )


def _between(
    path: Path, levels: Float[np.ndarray, "n"], phases: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "m"], str]:
    """Returns the phases of all levels, those between measured ones on straight lines."""
    every = np.arange(levels[-1] + 1)
    if len(every) == len(levels):
        return phases, ""
    step, rise = np.diff(levels), np.abs(np.diff(phases))
    far = np.flatnonzero((step > 1) & (rise > FURTHEST))
    if len(far):
        raise InputError(
            f"{path}: expected neighbouring phases at most {FURTHEST:.3g} rad apart where levels "
            f"lie between, got {rise[far[0]]:.3g} between levels {levels[far[0]]:g} and "
            f"{levels[far[0] + 1]:g}; unwrap the phases, or measure more levels"
        )
    said = f"; {len(levels)} were measured, the others are interpolated"
    return np.interp(every, levels, phases), said


def device_table(path: str | Path) -> tuple[float, ...]:
    """Returns a panel's table as `config.device.table` wants it: the phases phi of e^{-j phi}.

    A panel that adds the phase p multiplies the light by e^{j p}, as a mask of phase -p does.

    Args:
        path: As in `read_table`.

    Returns:
        -p of each gray level, in [0, 2 pi).

    Raises:
        InputError: As `read_table`.
    """
    return tuple(-phase % math.tau for phase in read_table(path))


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.asarray(read_array(path), float)
    except InputError:
        raise
    except Exception as failure:  # numpy and tokenize raise many kinds
        raise InputError(f"{path}: cannot be read as an array ({failure})") from failure


def _read_text(path: Path) -> tuple[np.ndarray, float | None]:
    """Returns the rows [n 2], and the header's unit in radians or None."""
    try:
        require_file(path)
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: expected a text of two columns, got more than 16 MB")
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(
            f"{path}: cannot be read ({failure}); save it as CSV in UTF-8"
        ) from failure
    rows: list[list[float]] = []
    unit = None
    content = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(content):
        cells = _cells(line)
        try:
            row = [float(cell) for cell in cells]
        except ValueError as failure:
            if number == 0 and not any(map(str.isdecimal, cells)):
                unit = _unit(path, line if len(cells) > 2 else cells[-1])  # of the header
                continue
            raise InputError(f"{path}: expected numbers, got {line!r}") from failure
        if len(row) != 2:
            raise InputError(
                f"{path}: expected two columns, gray level and phase, got {len(row)} in {line!r}"
            )
        rows.append(row)
    return np.array(rows, float).reshape(-1, 2), unit


def _cells(line: str) -> list[str]:
    """Returns the cells of a line; where commas do not split them, a comma is a decimal point."""
    for separator in (";", "\t"):
        if separator in line:
            return [cell.strip().replace(",", ".") for cell in line.split(separator)]
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _unit(path: Path, title: str) -> float | None:
    """Returns the unit in the title of a column, in radians; None where it names none.

    The unit stands alone in a bracket, or after one word: "phase (waves)", "phase_pi".
    """
    title = re.sub(RAD_AFTER_PI, r"\1", title.lower().strip())
    named = re.search(rf"[(\[]\s*{UNIT}\s*[)\]]", title)
    named = named or re.fullmatch(rf"(?:{LETTER}+\s*[_/]\s*)?{UNIT}", title)
    rest = title[: named.start("unit")] + title[named.end("unit") :] if named else title
    if re.search(WORD, rest):
        raise InputError(
            f"{path}: expected one unit in the header, alone in its bracket, such as (rad), (pi), "
            f"(waves), (lambda/2) or (degrees), got {title!r}; name the one that the phases are in"
        )
    if not named:
        return None
    _, times, word, parts = named.groups()
    return float(times or 1) * UNITS[word] / float(parts or 1)
