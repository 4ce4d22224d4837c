r"""
Near and far: the pattern at several distances
==============================================

Behind the mask the light can go through a lens, whose focal plane is the far field. Or it goes
through free space to a camera without a lens. Near the mask the package computes that with the
angular spectrum, farther away with a Fresnel transform. Here object and mask stay the same, and the
camera moves away.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.optics.camera import centred
from jax_kdpr.optics.propagation import sensor_pixel

y, x = np.mgrid[-1:1:32j, -1:1:32j]
image = 0.5 * (np.hypot(x, y) < 0.7) + 0.5 * (np.hypot(x - 0.3, y + 0.2) < 0.25)
mask = np.random.default_rng(0).uniform(0, 2 * np.pi, (32, 32))


def look(**propagation):
    """Returns the pattern with the axis in its middle, and the bench that made it."""
    config = kdpr.Config()
    config.masks.oversample = 2  # room for light that leaves the object's window
    for name, value in propagation.items():
        setattr(config.propagation, name, value)
    bench = kdpr.bench(mask, config)
    return centred(bench.measure(image[None])[0, 0], bench.camera.axis), bench


# %%
# With N pixels of pitch p, the angular spectrum is good up to about :math:`2 N p^2 / \lambda` here
# (the 2 is that of ``oversample``), and the Fresnel transform from :math:`N p^2 / \lambda` on.
# ``bench.camera.warnings()`` says where one of them is sampled too coarsely, and where square mask
# pixels want more.
lengths = {"wavelength": 633e-9, "pitch": 8e-6}
border = 32 * lengths["pitch"] ** 2 / lengths["wavelength"]
print(f"N p^2 / lambda = {1e3 * border:.2f} mm")
places = [("angular_spectrum", times) for times in (0.02, 0.1, 0.3, 1)]
places += [("fresnel", times) for times in (1, 10, 100)]
pictures = {}
for kind, times in places:
    pattern, bench = look(kind=kind, distance=times * border, **lengths)
    side = 1e6 * sensor_pixel(32, bench.config.propagation, oversample=2)
    title = f"{kind.replace('_', ' ')}\n{1e3 * times * border:.3g} mm, samples of {side:.3g} µm"
    pictures[title] = pattern
    warnings = " ".join(bench.camera.warnings()) or "no warning"
    print(textwrap.fill(f"{kind} at {1e3 * times * border:.3g} mm: {warnings}", 100))
far, _ = look(kind="far")
alike = np.corrcoef(far.ravel(), pattern.ravel())[0, 1]
print(f"correlation of the farthest with the far field: {alike:.3f}")
pictures["far field,\nin the focal plane of a lens"] = far

# %%
# Samples of the angular spectrum are as large as mask pixels. Those of the Fresnel transform grow
# with the distance, as the pattern does. Far away it becomes the one behind a lens.
figure, axes = plt.subplots(2, 4, figsize=(11.5, 5.6), layout="constrained")
for axis, (title, pattern) in zip(axes.ravel(), pictures.items(), strict=True):
    drawn = axis.imshow(np.log10(pattern + 1e-9), cmap="inferno", vmin=-3, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
figure.colorbar(drawn, ax=axes, label="log10 of intensity", shrink=0.7)
plt.show()
