r"""
A phase object, a mask and one pattern
======================================

A cell in water changes only the phase of light. A mask stands over it, a lens follows, and a camera
in the focal plane records one *coded diffraction pattern* (CDP). Here the pattern is computed, with
a flat mask and with a random one. In formulas: the object is :math:`x`, the mask has the phases
:math:`\phi`, :math:`F` is the discrete Fourier transform, and

.. math:: y = |F\,(e^{-j\phi} \cdot x)|^2 .
"""

import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr

# %%
# The object is an image in [0, 1]: a disc and a smaller one on it. A white pixel, 1, stands for a
# phase of pi, which is the default of ``scene.phase_range``.
y, x = np.mgrid[-1:1:32j, -1:1:32j]
image = 0.5 * (np.hypot(x, y) < 0.7) + 0.5 * (np.hypot(x - 0.3, y + 0.2) < 0.25)
phase = np.pi * image

# %%
# ``kdpr.bench`` puts a mask before a camera; ``measure`` returns patterns [object, shot, row,
# column]. Their zero frequency is at [0, 0]: ``fftshift`` brings it to the middle for the picture.
mask = np.random.default_rng(0).uniform(0, 2 * np.pi, (32, 32))
patterns = {}
for name, phases in {"flat": np.zeros((32, 32)), "random": mask}.items():
    frame = kdpr.bench(phases).measure(image[None])[0, 0]
    patterns[name] = np.fft.fftshift(frame)
    share = frame.max() / frame.sum()
    print(f"{name} mask: the brightest sample has {100 * share:.1f} % of the light")

# %%
# Without a mask most of the light meets in the middle. The random mask spreads it over all samples,
# so that all of them say something about the object.
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
logs = {"cmap": "inferno", "vmin": -3, "vmax": 2.5}
shown = [
    ("object", phase, "radians", {"cmap": "viridis", "vmin": 0, "vmax": np.pi}),
    ("mask", mask, "radians", {"cmap": "twilight", "vmin": 0, "vmax": 2 * np.pi}),
    ("pattern, flat mask", np.log10(patterns["flat"] + 1e-9), "log10 of intensity", logs),
    ("pattern, random mask", np.log10(patterns["random"] + 1e-9), "log10 of intensity", logs),
]
for axis, (title, picture, unit, scale) in zip(axes, shown, strict=True):
    drawn = axis.imshow(picture, **scale)
    axis.set_title(title, fontsize=10)
    axis.axis("off")
    figure.colorbar(drawn, ax=axis, label=unit, shrink=0.8)
plt.show()
