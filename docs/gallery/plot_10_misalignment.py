"""
A mask that sits a little wrong
===============================

On a bench the mask is never quite where the design has it. The recovery does not know: it believes
in the design. Here the mask is shifted or turned, and the script measures how well two systems
recover then. ``bench-32`` was trained with small errors drawn at random, on procedural scenes.
``e2e-32`` was trained without any, on garments (Fashion-MNIST).

Both recover procedural scenes here. For ``e2e-32`` these are objects of another kind than it has
seen. So compare how much each of them loses, and not which of them is higher.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.optics.misalignment import Perturbation

runs = {name: kdpr.pretrained(name) for name in ("bench-32", "e2e-32")}
scenes = np.asarray(runs["bench-32"].scenes(16))  # its test images, [n h w 1]
errors = {
    "shift_x": ("shift of the mask, mask pixels", (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)),
    "rotation": ("rotation of the mask, degrees", (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)),
}

# %%
# A ``Perturbation`` says what is wrong with a bench. With one, ``run.system.measure`` takes the
# pattern there, with the noise that the system was trained for. ``python -m jax_kdpr.tolerance``
# makes curves of all errors.
psnr, phases = {}, {}
for name, run in runs.items():
    measure = jax.jit(run.system.measure)
    for kind, (_, values) in errors.items():
        for value in values:
            by = Perturbation(**{kind: value})
            frames = measure(run.variables[0], scenes, jax.random.key(0), by)
            found = run.reconstruct(frames, gain=1.0, centred=False)
            error = np.mean((found.image - scenes) ** 2, axis=(1, 2, 3))
            psnr[name, kind, value] = np.mean(-10 * np.log10(error))
            phases[name, kind, value] = found.phase[0]
        text = ", ".join(f"{value:g}: {psnr[name, kind, value]:.1f}" for value in values)
        print(f"{name}, {kind} {text} dB")

# %%
# Mean PSNR of the 16 scenes.
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained", sharey=True)
for axis, (kind, (words, values)) in zip(axes, errors.items(), strict=True):
    for marker, name in zip("os", runs, strict=True):
        axis.plot(values, [psnr[name, kind, v] for v in values], marker=marker, label=name)
    axis.set_xlabel(words)
axes[0].set_ylabel("PSNR in dB")
axes[0].legend()
plt.show()

# %%
# What ``bench-32`` recovers of one scene. A mask that is a pixel too far to the right gives an
# object that is a pixel too far to the left: mainly its place is wrong, as the last line of the
# output shows. A turned mask is worse.
shown = [("shift_x", 0.0), ("shift_x", 0.5), ("shift_x", 1.0), ("rotation", 1.0), ("rotation", 2.0)]
figure, axes = plt.subplots(2, 5, figsize=(11, 4.6), layout="constrained")
truth = np.pi * scenes[0, ..., 0]
moved = phases["bench-32", "shift_x", 1.0]
for words, phase in {"as it is": moved, "a pixel to the right": np.roll(moved, 1, axis=1)}.items():
    print(f"recovered, {words}: error {np.sqrt(np.mean((phase - truth) ** 2)):.2f} rad rms")
for (above, below), (kind, value) in zip(axes.T, shown, strict=True):
    phase = phases["bench-32", kind, value]
    drawn = above.imshow(phase, vmin=0, vmax=np.pi)
    wrong = below.imshow(phase - truth, cmap="RdBu_r", vmin=-1.5, vmax=1.5)
    above.set_title(f"{kind} = {value:g}", fontsize=10)
for axis in axes.ravel():
    axis.axis("off")
figure.colorbar(drawn, ax=axes[0], label="phase, radians", shrink=0.8)
figure.colorbar(wrong, ax=axes[1], label="error, radians", shrink=0.8)
plt.show()
