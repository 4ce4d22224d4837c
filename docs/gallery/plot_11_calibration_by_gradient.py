"""
What is my bench like? A fit by gradient
========================================

A camera stands a little out of focus, and the beam is not even. Both are found from one frame of a
known object, since the model of the bench can be differentiated by its numbers. The script fits a
defocus and the waist of a Gaussian beam. ``python -m jax_kdpr.calibrate --fit`` does this for real
frames, with more numbers and with the place of the pattern on the camera.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jax_kdpr as kdpr
from jax_kdpr.lab.frames.parameters import fitted_camera

y, x = np.mgrid[-1:1:32j, -1:1:32j]
image = 0.5 * (np.hypot(x, y) < 0.7) + 0.5 * (np.hypot(x - 0.3, y + 0.2) < 0.25)
known = kdpr.bench(np.random.default_rng(0).uniform(0, 2 * np.pi, (32, 32)))


def pattern(values):
    """Returns the pattern of a bench: defocus in radians rms, waist in sides of the object."""
    beam = {"kind": "gaussian", "waist": values[1]}
    wavefront = {"zernike": (0.0, 0.0, 0.0, values[0])}
    camera = fitted_camera(known.camera, {"illumination": beam, "aberrations": wavefront})
    return camera.measure(camera.optics(known.phases), image[None, ..., None], jax.random.key(0))


# %%
# The frame has a hundred thousand photons. The fit does not know the true numbers.
truth = jnp.array([0.9, 0.7])
expected = np.asarray(pattern(truth))
gain = 1e5 / expected.sum()
frame = jnp.sqrt(np.random.default_rng(1).poisson(gain * expected) / gain)


@jax.jit
def misfit(values):
    """Returns the relative difference of the amplitudes."""
    return jnp.linalg.norm(jnp.sqrt(pattern(values)) - frame) / jnp.linalg.norm(frame)


slope, optimizer = jax.jit(jax.value_and_grad(misfit)), optax.adam(0.05)
values, path = jnp.array([0.0, 1.2]), []
memory = optimizer.init(values)
for _ in range(120):
    now, gradient = slope(values)
    path.append((*np.asarray(values), float(now)))
    change, memory = optimizer.update(gradient, memory)
    values = optax.apply_updates(values, change)
print(f"found: defocus {values[0]:.3f} rad rms, waist {values[1]:.3f}; misfit {now:.3f}")
print(f"truth: defocus {truth[0]:.3f} rad rms, waist {truth[1]:.3f}; {misfit(truth):.3f} by noise")

# %%
# Left is the misfit over a range of both numbers, and the way of the fit. It is no bowl but a
# valley in a plain, and on the plain the slope says little. That is why ``calibrate`` begins at
# several values of defocus. Right is the misfit of each step.
defocus, waists = np.linspace(-4, 4, 81), np.linspace(0.4, 1.6, 25)
grid = np.stack(np.meshgrid(defocus, waists), axis=-1).reshape(-1, 2)
heights = np.asarray(jax.lax.map(misfit, grid, batch_size=64)).reshape(25, 81)
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
drawn = left.pcolormesh(defocus, waists, heights, cmap="viridis", shading="nearest")
steps = np.array(path)
left.plot(steps[:, 0], steps[:, 1], "w.-", ms=3, lw=1, label="way of the fit")
left.plot(*truth, "r+", ms=12, mew=2, label="truth")
left.set(xlabel="defocus, radians rms", ylabel="waist, sides of the object")
left.legend(facecolor="0.3", labelcolor="white")
figure.colorbar(drawn, ax=left, label="misfit of the amplitudes")
right.plot(steps[:, 2])
right.axhline(float(misfit(truth)), color="gray", ls="--", label="misfit of the truth: noise")
right.set(xlabel="steps", ylabel="misfit of the amplitudes", ylim=(0, None))
right.legend()
plt.show()
