"""
How much light does a recovery need?
====================================

The system ``bench-32`` comes with the package. It was trained for a simulated bench whose frames
have a million photons. Here its frames have from a thousand to ten million. Photons arrive at
random (Poisson noise); all else on this bench is right. The network's answer is compared with what
30 steps of error reduction make of it.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr

run = kdpr.pretrained("bench-32")
scenes = np.asarray(run.scenes(16))  # of its own test images, [n h w 1]
quiet = run.camera.quiet  # no noise, no errors of alignment
clean = jax.jit(quiet.measure)(run.optics, scenes, jax.random.key(0))

# %%
# ``gain`` is the counts of a sample whose pattern is 1. Here a count is a photon. So the gain sets
# the light of a frame.
rng = np.random.default_rng(0)
answers = {"network": kdpr.Refinement(), "and 30 steps": kdpr.Refinement(30)}
photons = 10.0 ** np.arange(3, 8)
psnr, images = {name: [] for name in answers}, {}
for light in photons:
    gain = light / np.mean(np.sum(clean, axis=(1, 2, 3)))
    counts = rng.poisson(gain * np.asarray(clean))
    for name, refinement in answers.items():
        found = run.reconstruct(counts, gain=gain, centred=False, refinement=refinement)
        errors = np.mean((found.image - scenes) ** 2, axis=(1, 2, 3))
        psnr[name].append(np.mean(-10 * np.log10(errors)))
        images[name, light] = found.phase[0]
for name, values in psnr.items():
    print(name, ", ".join(f"{n:.0e}: {v:.1f} dB" for n, v in zip(photons, values, strict=True)))

# %%
# Steps after the network follow the frame. That helps where there is light, and harms where there
# is little: then they follow the noise.
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for marker, (name, values) in zip("os", psnr.items(), strict=True):
    axis.semilogx(photons, values, marker=marker, label=name)
axis.set(xlabel="photons in a frame", ylabel="PSNR in dB, mean of 16 scenes")
axis.legend()
plt.show()

# %%
# One of the scenes.
figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained")
for line, name in zip(axes, answers, strict=True):
    line[0].imshow(np.pi * scenes[0, ..., 0], vmin=0, vmax=np.pi)
    line[0].set_title("object", fontsize=10)
    for axis, light in zip(line[1:], photons, strict=True):
        drawn = axis.imshow(images[name, light], vmin=0, vmax=np.pi)
        axis.set_title(f"{name}, {light:.0e}", fontsize=10)
for axis in axes.ravel():
    axis.axis("off")
figure.colorbar(drawn, ax=axes, label="phase, radians", shrink=0.7)
plt.show()
