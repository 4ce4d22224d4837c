"""Valid ranges of the numbers in options and flags, and error messages for other numbers."""

import math
import re
from typing import Any, NamedTuple

import numpy as np

from jax_kdpr.core.errors import InputError

MOST_COUNT = 1_000_000  # of steps, images and the like
MOST_PIXELS = 2**28  # of one frame or panel, 16384 x 16384, or values of a page


class Range(NamedTuple):
    """An interval of numbers; a round bracket excludes its endpoint."""

    low: int | float
    high: int | float
    ends: str = "[]"
    also: int | None = None  # one more valid number, outside the interval

    def holds(self, value: Any) -> bool:
        """Returns whether a number lies in the range; NaN lies in none."""
        if value == self.also:
            return True
        above = self.low <= value if self.ends[0] == "[" else self.low < value
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def __str__(self) -> str:
        interval = f"{self.ends[0]}{self.low:.10g}, {self.high:.10g}{self.ends[1]}"
        return interval if self.also is None else f"{interval} or {self.also}"


POSITIVE_LENGTHS = {  # metres, above 0
    "wavelength": Range(0, 1e-4, "(]"),  # from X-rays to 3 THz
    "pitch": Range(0, 1e-3, "(]"),  # of the pixels of masks and cameras
    "distance": Range(0, 10, "(]"),  # focal lengths too
}
# The same ranges with 0 included, which stands for a length that is not given.
LENGTHS = {kind: Range(0, within.high) for kind, within in POSITIVE_LENGTHS.items()}
SHARE = Range(0, 1)
SEEDS = Range(0, 2**32 - 1)

IN_METRES = "; write 532 nm as 532e-9, 8 um as 8e-6, 200 mm as 0.2"


def need(holds: bool, message: str) -> None:
    """Raises InputError(message) unless `holds`."""
    if not holds:
        raise InputError(message)


def require(name: str, value: Any, within: Range, *, unit: str = "") -> None:
    """Raises `InputError`, which names `unit`, if `name` is not a number in its range."""
    if getattr(value, "ndim", None) == 0:  # of NumPy or JAX
        value = value.item()
    is_number = isinstance(value, int | float | np.number)
    if is_number and within.holds(value):
        return
    what = "a number" if not is_number or math.isfinite(value) else "a finite number"
    hint = IN_METRES if unit == "metres" else ""
    raise InputError(
        f"{name}: expected {what} in {within}{unit and f' {unit}'}, got {shown(value)}{hint}"
    )


def require_whole(name: str, value: Any, within: Range) -> None:
    """Raises `InputError` if `name` is not a whole number in its range."""
    require(name, value, within)
    if not isinstance(value, int | np.integer):
        raise InputError(f"{name}: expected a whole number, got {shown(value)}")


def require_pixels(name: str, height: int, width: int) -> None:
    """Raises `InputError` for a frame or panel of more than `MOST_PIXELS`."""
    if height * width > MOST_PIXELS:
        raise InputError(
            f"{name}: expected at most {MOST_PIXELS:,} pixels, got {shown(height)} x {shown(width)}"
        )


def read_pixels(name: str, text: str) -> tuple[int, int]:
    """Returns (height, width) of a text like "1080x1920"; raises `InputError` for other texts."""
    sides = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text)
    if not sides:
        raise InputError(
            f"{name}: expected HEIGHTxWIDTH in pixels, such as 1080x1920, got {shown(text)}"
        )
    height, width = int(sides[1]), int(sides[2])
    require_pixels(name, height, width)
    return height, width


def number_hint(text: str) -> str:
    """Returns a hint on how to write "2*pi", "pi/4" or "200 mm"; "" for any other text."""
    if re.fullmatch(r"[\d.]+(?:e-?\d+)?\s*(?:nm|um|µm|mm|cm|m)", text.strip()):
        return IN_METRES
    factors = re.fullmatch(r"(?:(\d+(?:\.\d+)?)\s*\*?\s*)?pi(?:\s*/\s*([1-9]\d*))?", text.strip())
    if not factors:
        return ""
    return f"; write {float(factors[1] or 1) * math.pi / int(factors[2] or 1):.10g}"


def shown(value: Any) -> str:
    """Returns a value as text for a message; a long one becomes its size.

    Python itself refuses to print integers of thousands of digits.
    """
    if isinstance(value, int) and abs(value) >= 10**12:
        digits = int(value.bit_length() * math.log10(2))
        return f"about {'-' if value < 0 else ''}10^{digits}"
    if isinstance(value, tuple) and len(value) > 16:
        return f"({len(value)} values)"
    try:
        text = repr(value)
    except ValueError:
        return type(value).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
