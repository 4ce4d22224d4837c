"""Where the pixels of a mask lie in its file: orientation, magnification, place on the panel.

    mask [h w] -> flips -> rotation -> magnified -> centred on the panel, or repeated over it

Row 0 is the top row. `pick` undoes `place`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from jax_kdpr.core.errors import InputError

Mask = Shaped[np.ndarray, "h w"]
Pixels = Shaped[np.ndarray, "ph pw"]  # of a file


class Layout(NamedTuple):
    """From a mask to the pixels of a file."""

    flip_vertical: bool = False  # top and bottom exchanged
    flip_horizontal: bool = False  # left and right exchanged
    rotate: int = 0  # degrees counter-clockwise, after the flips: 0, 90, 180 or 270
    magnify: int = 1  # pixels of the file, each way, that show one of the mask
    panel: tuple[int, int] | None = None  # height and width, pixels; None: just the mask
    tile: bool = False  # repeat the mask from the panel's top left corner on


def place(mask: Mask, layout: Layout, *, background: int = 0) -> Pixels:
    """Returns the pixels of a file; `background` fills what a centred mask leaves of the panel.

    Raises:
        InputError: If the panel is smaller than the mask.
    """
    shown = _magnified(_oriented(mask, layout), layout.magnify)
    if layout.panel is None:
        return shown
    height, width = layout.panel
    if height < shown.shape[0] or width < shown.shape[1]:
        raise InputError(
            f"--panel: expected at least the {shown.shape[0]}x{shown.shape[1]} pixels of the mask "
            f"(magnified {layout.magnify} times), got {height}x{width}; magnify it less"
        )
    if layout.tile:
        repeats = (-(-height // shown.shape[0]), -(-width // shown.shape[1]))
        return np.tile(shown, repeats)[:height, :width]
    row, column = corner(mask.shape, layout)
    panel = np.full(layout.panel, background, shown.dtype)
    panel[row : row + shown.shape[0], column : column + shown.shape[1]] = shown
    return panel


def pick(pixels: Pixels, layout: Layout, shape: tuple[int, int]) -> Mask:
    """Returns the mask [h w] = `shape` that lies in the pixels of a file.

    Raises:
        InputError: If the file is not of the size that the layout gives, or its pixels differ where
            the layout repeats one value.
    """
    turned = shape[::-1] if layout.rotate % 180 else shape
    shown = (turned[0] * layout.magnify, turned[1] * layout.magnify)
    expected = layout.panel or shown
    if pixels.shape != tuple(expected):
        raise InputError(
            f"expected {expected[0]}x{expected[1]} pixels, as the sidecar says, got "
            f"{pixels.shape[0]}x{pixels.shape[1]}"
        )
    row, column = corner(shape, layout)
    window = pixels[row : row + shown[0], column : column + shown[1]]
    oriented = window[:: layout.magnify, :: layout.magnify]
    turned_back = np.rot90(oriented, -layout.rotate // 90)
    mask = turned_back[:: -1 if layout.flip_vertical else 1, :: -1 if layout.flip_horizontal else 1]
    repeated = pixels if layout.tile else window
    wanted = place(mask, layout if layout.tile else layout._replace(panel=None))
    if not np.array_equal(repeated, wanted):
        raise InputError(
            "pixels that show one and the same mask pixel differ; it was resampled, moved or "
            "corrected after the export, and holds no mask of this layout"
        )
    return mask


def corner(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Returns row and column of the mask's top left pixel in the file."""
    if layout.panel is None or layout.tile:
        return 0, 0
    height, width = shape[::-1] if layout.rotate % 180 else shape
    return (
        (layout.panel[0] - height * layout.magnify) // 2,
        (layout.panel[1] - width * layout.magnify) // 2,
    )


def _oriented(mask: Mask, layout: Layout) -> Pixels:
    if layout.flip_vertical:
        mask = np.flipud(mask)
    if layout.flip_horizontal:
        mask = np.fliplr(mask)
    return np.rot90(mask, layout.rotate // 90)


def _magnified(mask: Mask, times: int) -> Pixels:
    return np.repeat(np.repeat(mask, times, axis=0), times, axis=1)
