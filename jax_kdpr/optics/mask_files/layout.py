"""Where the pixels of a mask lie in its file: orientation, magnification, place on the panel.

    mask [h w] -> flips -> rotation -> magnified -> centred on the panel, or repeated over it

Row 0 is the top row. `pick` undoes `place`.
"""

import numpy as np
from jaxtyping import Shaped

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import changed
from jax_kdpr.optics.mask_files.format import MaskFormat

Mask = Shaped[np.ndarray, "h w"]
Pixels = Shaped[np.ndarray, "ph pw"]  # of a file


def place(mask: Mask, of: MaskFormat) -> Pixels:
    """Returns the pixels of a file.

    Raises:
        InputError: If the panel is smaller than the mask.
    """
    mask = mask[:: -1 if of.flip_vertical else 1, :: -1 if of.flip_horizontal else 1]
    shown = np.kron(np.rot90(mask, of.rotate // 90), np.ones((of.side,) * 2, mask.dtype))
    if of.panel is None:
        return shown
    height, width = of.panel
    if height < shown.shape[0] or width < shown.shape[1]:
        raise InputError(
            f"--panel: expected at least the {shown.shape[0]}x{shown.shape[1]} pixels of the mask "
            f"(magnified {of.side} times), got {height}x{width}; magnify it less"
        )
    if of.tile:
        repeats = (-(-height // shown.shape[0]), -(-width // shown.shape[1]))
        return np.tile(shown, repeats)[:height, :width]
    panel = np.full(of.panel, of.background, shown.dtype)
    row, column = corner(shown.shape, of)
    panel[row : row + shown.shape[0], column : column + shown.shape[1]] = shown
    return panel


def pick(pixels: Pixels, of: MaskFormat, shape: tuple[int, int]) -> Mask:
    """Returns the mask [h w] = `shape` that lies in the pixels of a file.

    Raises:
        InputError: If the file does not have the size that the layout gives, or its pixels differ
            where the layout repeats one value.
    """
    shown = shown_shape(shape, of)
    expected = shown if of.panel is None else of.panel
    if pixels.shape != tuple(expected) or min(shape) < 1:
        raise InputError(
            f"expected {' x '.join(map(str, expected))} pixels with a mask of {shape[0]} x "
            f"{shape[1]}, as the sidecar says, got {pixels.shape[0]} x {pixels.shape[1]}"
        )
    row, column = corner(shown, of)
    window = pixels[row : row + shown[0], column : column + shown[1]]
    mask = np.rot90(window[:: of.side, :: of.side], -of.rotate // 90)
    mask = mask[:: -1 if of.flip_vertical else 1, :: -1 if of.flip_horizontal else 1]
    repeated = pixels if of.tile else window
    wanted = place(mask, of if of.tile else changed(of, panel=None))
    if not np.array_equal(repeated, wanted):
        raise InputError(
            "pixels that show one and the same mask pixel differ; it was resampled, moved or "
            "corrected after the export, and holds no mask of this layout"
        )
    return mask


def shown_shape(shape: tuple[int, ...], of: MaskFormat) -> tuple[int, int]:
    """Returns the height and width that a mask of some shape has in the file."""
    height, width = shape[::-1] if of.rotate % 180 else shape
    return height * of.side, width * of.side


def corner(shown: tuple[int, ...], of: MaskFormat) -> tuple[int, int]:
    """Returns the row and column in the file of a mask's top left pixel, for its shape there."""
    if of.panel is None or of.tile:
        return 0, 0
    height, width = of.panel
    return (height - shown[0]) // 2, (width - shown[1]) // 2


def layout_in_words(of: MaskFormat, shape: tuple[int, ...]) -> str:
    """Returns how a mask of some shape lies in its file."""
    turns = [
        *(["top and bottom exchanged"] if of.flip_vertical else []),
        *(["left and right exchanged"] if of.flip_horizontal else []),
        *([f"turned {of.rotate} degrees counter-clockwise"] if of.rotate else []),
    ]
    told = (
        f"Row 0 is the top row; the mask is {', then '.join(turns) or 'neither flipped nor turned'}"
    )
    if of.side > 1:
        told += f"; {of.side} x {of.side} pixels show one of the mask"
    if of.tile:
        told += "; repeated over the panel from its top left corner on"
    elif of.panel is not None:
        row, column = corner(shown_shape(shape, of), of)
        told += (
            f"; its top left pixel is at row {row}, column {column} of the panel, the rest of "
            f"which has gray level {of.background}"
        )
    return f"{told}."
