"""
The spectral estimate, iteration by iteration
=============================================

The network does not see the pattern. It sees a rough estimate of the object, the leading
eigenvector of a matrix that is made from the pattern. The power method finds it in T iterations.
Here the estimate is shown for several T: with the mask and the filter of a trained system, with its
mask and no filter, and with a random mask and a Gaussian filter.

The system was trained on garments (Fashion-MNIST), which are not part of the package. The object is
a procedural scene.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.optics.phase import align_global_phase
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init, gaussian_kernel

run = kdpr.pretrained("e2e-32")
random = kdpr.bench(np.random.default_rng(0).uniform(0, 2 * np.pi, (32, 32)))
scene = draw_scenes(jax.random.key(0), count=4, size=32)[3]
field = np.exp(1j * np.pi * scene)

# %%
# The filter is a low pass, applied between the iterations. A filter of a single tap changes
# nothing: it stands for none.
params, state = run.variables
cases = {
    "trained mask, trained filter": (run, params["filter"]),
    "trained mask, no filter": (run, gaussian_kernel(1)),
    "random mask, Gaussian filter": (random, gaussian_kernel(5, 1.0)),
}
iterations = (1, 5, 25, 100)

# %%
# No measurement holds the global phase. For the picture it is taken from the object. The number is
# the overlap of estimate and object, 1 for the object itself. With a filter the estimates are
# settled after 25 iterations. Without one, no number of them shows the object.
figure, axes = plt.subplots(len(cases), 5, figsize=(10.5, 6.4), layout="constrained")
for line, (name, (bench, kernel)) in zip(axes, cases.items(), strict=True):
    line[0].imshow(np.angle(field), cmap="twilight", vmin=-np.pi, vmax=np.pi)
    line[0].set_title("object", fontsize=10)
    line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=10)
    pattern = bench.measure(scene[None])[0]
    for axis, count in zip(line[1:], iterations, strict=True):
        options = SpectralOptions(iterations=count)
        made = filtered_spectral_init(pattern, bench.optics, kernel, state["start"], options)
        estimate = align_global_phase(made[0], field)
        overlap = np.abs(np.vdot(estimate, field)) / np.linalg.norm(estimate)
        overlap = overlap / np.linalg.norm(field)
        drawn = axis.imshow(np.angle(estimate), cmap="twilight", vmin=-np.pi, vmax=np.pi)
        axis.set_title(f"T = {count}, overlap {overlap:.2f}", fontsize=10)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="phase, radians", shrink=0.5)
plt.show()
