r"""
Other objects with the same pattern
===================================

A camera sees no phase, so one shot does not have one object only. Let :math:`d = e^{j\phi}` be the
mask. In the far field, without zero padding, other objects have exactly the pattern of :math:`x`
(as has :math:`x` times a global phase):

* the twin, :math:`d(r)\,d(-r)\,\overline{x(-r)}`;
* every circular shift, :math:`d(r)\,\overline{d(r-s)}\,x(r-s)`.

The script checks this with numbers, and shows what a mask changes: not that they exist, but how
they look.
"""

import matplotlib.pyplot as plt
import numpy as np

from jax_kdpr.evaluation.uniqueness.ambiguity import mirror, shifted, twin
from jax_kdpr.optics.cdp import measure_intensity

y, x = np.mgrid[-1:1:32j, -1:1:32j]
image = 0.5 * (np.hypot(x, y) < 0.7) + 0.5 * (np.hypot(x - 0.3, y + 0.2) < 0.25)
field = np.exp(1j * np.pi * image).astype(np.complex64)
random = np.random.default_rng(0).uniform(0, 2 * np.pi, (1, 32, 32)).astype(np.float32)
flat = np.zeros_like(random)


def others(mask, shift=(5, 9)):
    """Returns false objects of one mask."""
    made = {"twin": twin(field, mask), "shift": shifted(field, mask, shift)}
    return {name: np.asarray(one) for name, one in made.items()}


def difference(one, mask, padding=1):
    """Returns how far its pattern is from the true one, at most, over the brightest sample."""
    found, true = (measure_intensity(f, mask, oversample=padding) for f in (one, field))
    return float(np.abs(found - true).max() / true.max())


# %%
# The false objects of each mask have the true pattern, up to rounding. But the random mask tells
# the true object from the false ones of the flat mask.
cases = [
    ("of the flat mask, through it", flat, flat),
    ("of the random mask, through it", random, random),
    ("of the flat mask, through the random one", flat, random),
]
for words, objects, through in cases:
    for name, one in others(objects).items():
        print(f"{name} {words}: {difference(one, through):.1e}")

# %%
# Zero padding to twice the size breaks twin and shifts. It does not break the twin about the
# middle of the window, here called mirror.
for name, one in {**others(random), "mirror": mirror(field, random)}.items():
    print(f"{name} of the random mask, with padding: {difference(one, random, 2):.1e}")

# %%
# Behind a flat mask the false objects look like objects. Behind the random mask they contain the
# mask and look like noise. Who knows what objects look like can tell them from the true one.
figure, axes = plt.subplots(2, 4, figsize=(10, 4.8), layout="constrained")
for line, (name, mask) in zip(axes, {"flat": flat, "random": random}.items(), strict=True):
    pattern = np.log10(np.fft.fftshift(measure_intensity(field, mask)[0]) + 1e-9)
    for axis, (title, one) in zip(line, {"object": field, **others(mask)}.items(), strict=False):
        phases = axis.imshow(np.angle(one), cmap="twilight", vmin=-np.pi, vmax=np.pi)
        axis.set_title(f"{title}, {name} mask", fontsize=10)
    seen = line[3].imshow(pattern, cmap="inferno", vmin=-3, vmax=2.5)
    line[3].set_title(f"pattern of all, {name} mask", fontsize=10)
    figure.colorbar(phases, ax=line[2], label="phase, radians", shrink=0.8)
    figure.colorbar(seen, ax=line[3], label="log10 of intensity", shrink=0.8)
for axis in axes.ravel():
    axis.axis("off")
plt.show()
