"""
A frame that a real bench has measured
======================================

The frames of this page are test data of SiSPRNet (Q. Ye, L.-W. Wang and D. Lun, Opt. Express 30,
31937, 2022). They show a phase object on a modulator, through a lens, a little out of focus and
without a mask. The package does not hold them: the variable ``KDPR_MEASURED_DIR`` names a folder
with ``frame-1.npz`` and ``frame-2.npz``. With it, the script fits the bench on one frame, whose
object is known, and recovers the object of the other one by a solver. Without it, the script shows
a stored picture of all results; run it in its own folder then.
"""

import math
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.lab.frames.fitting import Shot, fit_optics
from jax_kdpr.lab.frames.geometry import Geometry, centred_on_light, to_sensor

FOLDER = os.environ.get("KDPR_MEASURED_DIR", "")
RANGE = 190 / 255 * 2 * math.pi  # radians from the modulator's gray level 30 to 220

if not FOLDER:
    print("KDPR_MEASURED_DIR is not set: this is the stored picture")
    figure, axis = plt.subplots(figsize=(12, 4), layout="constrained")
    axis.imshow(plt.imread(Path("../../results/measured/frames.png")))
    axis.axis("off")


# %%
# The bench of the model: no mask, a Gaussian beam, and a camera that sees the middle of the
# pattern, 41 x 41 samples of half a cycle of the object's side.
def read(number):
    """Returns the counts of a frame, and the phase that the modulator was told to show."""
    with np.load(Path(FOLDER) / f"frame-{number}.npz") as file:
        counts, phase = file["intensity"].astype(float), file["displayed_phase"]
    return counts, (phase - phase.min()).reshape(32, 4, 32, 4).mean(axis=(1, 3))


def recover():
    """Fits the bench on frame 1, and recovers the object of frame 2."""
    config = kdpr.Config()
    config.scene.phase_range = RANGE
    config.illumination.kind = "gaussian"
    config.sensor.step, config.sensor.rows, config.sensor.columns = 0.5, 41, 41
    design = kdpr.bench(np.zeros((32, 32)), config)
    counts, displayed = read(1)
    fit = fit_optics(
        [Shot((displayed / RANGE)[..., None].astype(np.float32), [counts])],
        design.camera,
        design.phases,
        centred_on_light(Geometry(0, 0, scale=3.0), [counts]),
        ("defocus", "waist", "offset"),
        pixel_side=0.0,
        sampling="points",
    )
    for name, (value, error) in fit.errors.items():
        print(f"{name}: {value:.3f} +- {error:.3f}")
    print(f"correlation of the amplitudes: {fit.score:.3f}; trusted: {fit.trusted}")
    counts, displayed = read(2)
    bench = design.with_optics(fit.optics)
    light = to_sensor(
        counts - fit.offset, fit.geometry, bench.sensor, sampling="points", axis=bench.camera.axis
    )
    found = bench.reconstruct(light, gain=fit.counts_per_unit, centred=False)
    return counts, displayed, found.phase[0]


# %%
# The solver has learned nothing and has not seen the object. It starts from 16 spectral estimates,
# and the answer that explains the frame best counts. A phase repeats after a turn: what exceeds the
# range by much is read a turn too low, and is dark in the picture.
if FOLDER:
    counts, displayed, phase = recover()
    alike = np.corrcoef(displayed.ravel(), phase.ravel())[0, 1]
    print(f"correlation of displayed and recovered phase: {alike:.3f}")
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3), layout="constrained")
    shown = [
        ("frame 2", np.log10(np.maximum(counts, 1)), "log10 of counts", {"cmap": "inferno"}),
        ("displayed", displayed, "radians", {"vmin": 0, "vmax": RANGE}),
        ("recovered by the solver", phase, "radians", {"vmin": 0, "vmax": RANGE}),
    ]
    for axis, (title, picture, unit, scale) in zip(axes, shown, strict=True):
        figure.colorbar(axis.imshow(picture, **scale), ax=axis, label=unit, shrink=0.8)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
plt.show()
