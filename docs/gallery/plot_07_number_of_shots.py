"""
How many shots does a solver need?
==================================

A classical solver has not learned what objects look like. How many shots does it need to find an
object exactly? Here RAAR recovers 16 scenes from L shots, each through a random mask of its own.
Either it knows that the objects change only the phase of light, or it knows nothing of them. There
is no noise.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.data.scenes import draw_scenes

SHOTS = 1, 2, 3, 4
ENOUGH = 1e-3  # relative error of an object that counts as found

scenes = np.asarray(draw_scenes(jax.random.key(0), count=16, size=32))
fields = np.exp(1j * np.pi * scenes)
masks = np.random.default_rng(0).uniform(0, 2 * np.pi, (max(SHOTS), 32, 32))
frames = kdpr.bench(masks).measure(scenes)  # [object, shot, row, column]

# %%
# ``kdpr.solve`` starts from the spectral estimate. Its fields have an arbitrary global phase, which
# is taken away before they are compared with the truth.
known = {"phase": "known to be phase objects", "none": "nothing known"}
errors = {}
for scene in known:
    for count in SHOTS:
        shots, through = frames[:, :count], masks[:count]
        found, misfit = kdpr.solve(shots, through, solver="raar", steps=300, scene=scene)
        turn = np.angle(np.sum(found.conj() * fields, axis=(1, 2), keepdims=True))
        missing = found * np.exp(1j * turn) - fields
        errors[scene, count] = np.linalg.norm(missing, axis=(1, 2)) / 32
        print(f"{scene}, L = {count}: median error {np.median(errors[scene, count]):.1e},", end=" ")
        print(f"median misfit {np.median(misfit):.1e}")

# %%
# The misfit says how badly an object explains its shots. Where nothing is known of the objects,
# one shot is explained to all digits, and still the objects are wrong. A small misfit of one shot
# proves nothing.
#
# Left is the error of each scene, right the share of scenes below the dashed line. It jumps from
# none to all. Where it jumps depends on what the solver knows.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for (scene, words), aside, marker in zip(known.items(), (-0.05, 0.05), "os", strict=True):
    every = np.array([errors[scene, count] for count in SHOTS])
    left.plot(np.array(SHOTS) + aside, every, marker, ms=3, color="C0" if marker == "o" else "C1")
    share = [np.mean(errors[scene, count] < ENOUGH) for count in SHOTS]
    right.plot(SHOTS, share, marker=marker, label=words)
left.axhline(ENOUGH, color="gray", ls="--")
left.set(yscale="log", xticks=SHOTS, xlabel="shots L", ylabel="relative error of the field")
right.set(xticks=SHOTS, xlabel="shots L", ylabel="share of scenes that are found")
right.legend()
plt.show()
