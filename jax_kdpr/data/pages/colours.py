"""Channels of a page: what hides behind alpha is refused, equal colours are grey."""

import numpy as np

from jax_kdpr.data.pages.limits import Refused

TRANSPARENT = "has transparent pixels, which have no value of their own; flatten it first"


def reduced(pixels: np.ndarray) -> np.ndarray:
    """Returns a page [h w] of pixels [h w c], where alpha is opaque and colours are equal.

    Args:
        pixels: [h w] or [h w c]: c = 1 is grey, 2 grey and alpha, 3 colours, 4 these and alpha.

    Returns:
        [h w]; or [h w 3] if the colours differ.

    Raises:
        Refused: If a pixel is transparent: what it shows depends on what lies behind it.
    """
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[-1] in (2, 4):
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
        if np.any(pixels[..., -1] != opaque):
            raise Refused(TRANSPARENT)
        pixels = pixels[..., :-1]
    return pixels[..., 0] if np.all(pixels == pixels[..., :1]) else pixels
