"""
A mask for an 8-bit panel
=========================

A spatial light modulator shows gray levels. ``python -m jax_kdpr.export_mask`` writes the file; the
same functions are called here. Then the mask of a trained system is rounded to few levels, and the
script measures what that costs.
"""

import json
import tempfile
import textwrap
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import jax_kdpr as kdpr
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.lab.masks.export import export_masks
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.optics.mask_files.format import MaskFormat

run = kdpr.pretrained("e2e-32")
asked = MaskFormat(format="slm", panel=(300, 480), magnify=8)
with tempfile.TemporaryDirectory() as folder:
    shown = np.asarray(run.camera.written(run.phases))  # radians, [L h w]
    (file,) = export_masks(plan_export(asked, run.config), shown, run, output=Path(folder))
    gray = np.asarray(Image.open(file))
    beside = json.loads(file.with_name(f"{file.name}.json").read_text())  # states all conventions
print(textwrap.fill(beside["about"], 100))

# %%
# Now the levels. ``with_optics`` returns the system at another bench: its panel rounds each phase
# to the nearest level, and the recovery knows of that. The network is the same.
scenes = np.asarray(draw_scenes(jax.random.key(0), count=16, size=32))
psnr = {}
for levels in (2, 4, 8, 256):
    bench = run.with_optics({"device": {"levels": levels}})
    found = bench.reconstruct(bench.measure(scenes), centred=False).image[..., 0]
    psnr[levels] = np.mean(-10 * np.log10(np.mean((found - scenes) ** 2, axis=(1, 2))))
    print(
        f"{levels} levels: {psnr[levels]:.1f} dB, {psnr[levels] - psnr[2]:.1f} more than two give"
    )

# %%
# Left is what the panel shows: each mask pixel takes 8 x 8 of its pixels, and the rest has the gray
# level 0. Light that falls there reaches the camera too, so block it. Right is the mean PSNR of 16
# procedural scenes; the system was trained on garments, with any phase allowed.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
drawn = left.imshow(gray, cmap="gray", vmin=0, vmax=255)
left.set(title="file for the panel", xlabel="panel pixels", ylabel="panel pixels")
figure.colorbar(drawn, ax=left, label="gray level (256 would be 2 pi radians)", shrink=0.9)
right.plot(psnr.keys(), psnr.values(), marker="o")
right.set_xscale("log", base=2)
right.set(title="cost of few levels", xlabel="levels in a turn", ylabel="PSNR in dB")
right.set_xticks(list(psnr), map(str, psnr))
plt.show()
