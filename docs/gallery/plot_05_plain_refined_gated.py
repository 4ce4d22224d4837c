"""
Plain, refined and gated recovery
=================================

Three ways from one shot to an object. *Plain* is a network that sees the spectral estimate.
*Refined* are 30 steps of error reduction after it. *Gated* is a system of its own: it has error
reduction before its network, and after it as far as a gate lets it. It was also trained twice, so
what it gains is not the gate's alone.

Both systems come with the package. They were trained on garments (Fashion-MNIST), which are not
part of it. So the test object here is a procedural scene, that is, one of another kind than they
have seen.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.data.scenes import draw_scenes

plain, gated = kdpr.pretrained("e2e-32"), kdpr.pretrained("gated-32")
scene = np.asarray(draw_scenes(jax.random.key(0), count=4, size=32))[3:]
truth = np.pi * scene[0]

# %%
# Each system takes its own shot, through its own mask. There is no noise.
shots = {run: run.measure(scene) for run in (plain, gated)}
answers = {
    "plain": plain.reconstruct(shots[plain], centred=False),
    "refined": plain.reconstruct(
        shots[plain], centred=False, refinement=kdpr.Refinement(30, "error_reduction")
    ),
    "gated": gated.reconstruct(shots[gated], centred=False),
}

# %%
# The upper line shows the phases, the lower one what is wrong with them.
figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
phases = axes[0, 0].imshow(truth, vmin=0, vmax=np.pi)
axes[0, 0].set_title("object", fontsize=10)
for column, (name, found) in zip(axes[:, 1:].T, answers.items(), strict=True):
    error = found.phase[0] - truth
    psnr = -10 * np.log10(np.mean((error / np.pi) ** 2))
    print(f"{name}: {psnr:.1f} dB")
    column[0].imshow(found.phase[0], vmin=0, vmax=np.pi)
    column[0].set_title(f"{name}, {psnr:.1f} dB", fontsize=10)
    errors = column[1].imshow(error, cmap="RdBu_r", vmin=-1, vmax=1)
    column[1].set_title(f"error of {name}", fontsize=10)
figure.colorbar(phases, ax=axes[0, -1], label="phase, radians", shrink=0.8)
figure.colorbar(errors, ax=axes[1, -1], label="error, radians", shrink=0.8)
for axis in axes.ravel():
    axis.axis("off")
plt.show()
