"""Draws the optical setup of a trained run: `python docs/figures/setup.py RUN [FILE.png]`.

Object, mask, camera frame and recovery are the run's own; its scenes must be phases. README.md
shows the one of `configs/quickstart/e2e.py`, docs/figures/setup.png.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.patches import Ellipse, FancyBboxPatch, Polygon, Rectangle

import jax_kdpr as kdpr
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.figures import Axes, Figure, own_style
from jax_kdpr.evaluation.pictures import ANGLE, Scale, part_scale
from jax_kdpr.optics.camera import centred
from jax_kdpr.optics.masks import wrap_phases

SCENES = 64  # test scenes of which the one of median quality is shown
WIDTH, HEIGHT, MIDDLE, SIDE = 12.6, 2.75, 1.5, 1.5  # inches; the row, and its panels
OBJECT, MASK, LENS, CAMERA, NETWORK, RECOVERED = 1.45, 3.25, 5.65, 6.55, 8.7, 10.75  # left edges
LIGHT, INK = "#f6c9c4", "0.25"


@own_style
def draw(workdir: Path, path: Path) -> None:
    """Draws the setup of a run folder into a PNG.

    Raises:
        InputError: If it is no run of phase scenes.
    """
    run = kdpr.load(workdir)
    if run.config.scene.kind != "phase":
        raise InputError(f"{workdir}: expected phase scenes, got {run.config.scene.kind}")
    scenes = run.scenes(SCENES)
    frames = run.measure(scenes)
    found = run.reconstruct(frames, centred=False)
    scores = run.camera.score(jnp.asarray(found.image), scenes)
    number = int(np.argsort(np.asarray(scores.psnr))[len(scenes) // 2])
    pattern = np.log10(np.maximum(centred(frames[number, 0], run.camera.axis), 1e-30))
    logs = Scale("log10 of intensity", pattern.max() - 3, pattern.max(), "inferno")
    phases = part_scale("phase", run.camera.scene)
    angle = np.asarray(wrap_phases(run.camera.written(run.phases))[0])
    mask = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    true = run.config.scene.phase_range * np.asarray(scenes[number, ..., 0])

    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    _draw_light(axes)
    _panel(figure, OBJECT, true, phases, "object")
    _panel(figure, MASK, mask, ANGLE, "phase mask, trained")
    _panel(figure, CAMERA, pattern, logs, "camera: one frame")
    quality = f"{float(scores.psnr[number]):.1f} dB"
    _panel(figure, RECOVERED, found.phase[number], phases, f"recovered, {quality}")
    _draw_network(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _panel(figure: Figure, left: float, values: np.ndarray, scale: Scale, title: str) -> None:
    """One square picture, its bar below."""
    size = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    place = np.divide((left, MIDDLE - SIDE / 2, SIDE, SIDE), size)
    axes = figure.add_axes(tuple(place))
    image = axes.imshow(values, cmap=scale.map, vmin=scale.low, vmax=scale.high)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=11)
    place = np.divide((left, MIDDLE - SIDE / 2 - 0.17, SIDE, 0.09), size)
    bar = figure.colorbar(image, cax=figure.add_axes(tuple(place)), orientation="horizontal")
    bar.set_label(scale.label, fontsize=9, labelpad=1)
    bar.ax.tick_params(labelsize=8, length=2, pad=1)
    if "rad" in scale.label:
        ends = {-np.pi: "$-\\pi$", 0.0: "0", np.pi: "$\\pi$", 2 * np.pi: "$2\\pi$"}
        ticks = [value for value in ends if scale.low - 1e-6 <= value <= scale.high + 1e-6]
        bar.set_ticks(ticks, labels=[ends[value] for value in ticks])


def _draw_light(axes: Axes) -> None:
    """The laser, its plane wave, and the lens that brings the far field to the camera."""
    half = 0.4 * SIDE
    axes.add_patch(Rectangle((0.75, MIDDLE - half), LENS - 0.75, 2 * half, color=LIGHT, lw=0))
    narrowing = [(LENS, MIDDLE - half), (LENS, MIDDLE + half), (CAMERA, MIDDLE + 0.1)]
    axes.add_patch(Polygon([*narrowing, (CAMERA, MIDDLE - 0.1)], color=LIGHT, lw=0))
    box = (0.1, MIDDLE - 0.18)
    axes.add_patch(FancyBboxPatch(box, 0.55, 0.36, boxstyle="round,pad=0.02", fc="0.9", ec=INK))
    axes.text(0.375, MIDDLE, "laser", ha="center", va="center", fontsize=10)
    for x in (0.9, 1.0, 1.1, 1.2):
        axes.plot((x, x), (MIDDLE - half, MIDDLE + half), color="tab:red", lw=0.9)
    axes.text(1.05, MIDDLE + half + 0.08, "plane\nwave", ha="center", fontsize=8, linespacing=0.9)
    axes.add_patch(Ellipse((LENS, MIDDLE), 0.2, SIDE, fc="#cfe3f5", ec=INK))
    axes.text(LENS, MIDDLE + SIDE / 2 + 0.085, "lens", ha="center", fontsize=11)
    for start, end in ((MASK + SIDE, LENS), (LENS, CAMERA)):
        y = MIDDLE - SIDE / 2 - 0.02
        style = {"arrowstyle": "<->", "color": INK, "shrinkA": 3, "shrinkB": 3}
        axes.annotate("", (start, y), (end, y), arrowprops=style)
        axes.text((start + end) / 2, y - 0.2, "$f$", ha="center", fontsize=11)


def _draw_network(axes: Axes) -> None:
    """An hourglass between frame and recovery."""
    width, high, low = 1.35, 0.42 * SIDE, 0.2 * SIDE
    middle, right = NETWORK + width / 2, NETWORK + width
    left = [(NETWORK, MIDDLE - high), (NETWORK, MIDDLE + high), (middle, MIDDLE + low)]
    other = [(right, MIDDLE + high), (right, MIDDLE - high), (middle, MIDDLE - low)]
    axes.add_patch(Polygon([*left, *other], fc="#dfead8", ec=INK))
    words = "spectral\nestimate\nand U-Net"
    axes.text(middle, MIDDLE, words, ha="center", va="center", fontsize=9.5)
    axes.text(middle, MIDDLE + SIDE / 2 + 0.085, "network, trained", ha="center", fontsize=11)
    for start, end in ((CAMERA + SIDE, NETWORK), (right, RECOVERED)):
        style = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 4, "shrinkB": 4}
        axes.annotate("", (end, MIDDLE), (start, MIDDLE), arrowprops=style)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    draw(given[0], given[1] if len(given) > 1 else Path(__file__).with_name("setup.png"))
