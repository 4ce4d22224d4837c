"""Pictures of scenes, masks and recoveries, with phases in radians and lengths in micrometres.

All panels of a column have one colour scale, which a colour bar shows. It goes from 0 to the
scene's phase range for phases of objects and of their estimates, and from -pi to pi for masks.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jax_kdpr.core.figures import Axes, Figure, Normalize, ScalarMappable, SubFigure, own_style
from jax_kdpr.core.metrics import mse, psnr_from_mse, ssim
from jax_kdpr.evaluation.plots import write_figure
from jax_kdpr.evaluation.scores import Samples, Shown
from jax_kdpr.optics.camera import centred
from jax_kdpr.optics.objects import SceneOptions, scene_parts

SHEET = 100  # the most objects on a contact sheet
SHEET_COLUMNS = 8
SHEET_NAME = 24  # the most characters of a name above an object
DECADES = 5  # of a CDP's intensity that are shown
GOOD, DOUBTFUL = "tab:green", "tab:red"


class Scale(NamedTuple):
    """How the values of one column are coloured."""

    label: str
    low: float
    high: float
    map: str

    def bar(
        self,
        figure: Figure | SubFigure,
        axes: Iterable[Axes],
        location: str = "bottom",
        *,
        panels: int = 1,
    ):
        """Draws its colour bar along some axes, which are `panels` panels long."""
        mappable = ScalarMappable(Normalize(self.low, self.high), self.map)
        drawn = figure.colorbar(
            mappable, ax=list(axes), location=location, aspect=15 * panels, pad=0.02
        )
        drawn.set_label(self.label, fontsize=8)
        drawn.ax.tick_params(labelsize=7)


ANGLE = Scale("phase (rad)", -np.pi, np.pi, "twilight")


class Column(NamedTuple):
    """One column of panels in `plot_run`."""

    title: str
    scale: Scale
    values: np.ndarray  # [n h w]
    below: Sequence[str] = ()  # captions of the n panels, if any


class Sheet(NamedTuple):
    """One object of `plot_sheet`."""

    name: str
    values: Float[np.ndarray, "h w"]  # radians, or amplitude
    verdict: str  # in a few words
    trusted: bool


def part_scale(part: str, scene: SceneOptions) -> Scale:
    """Returns the scale of a part of `scene_parts`: "phase" or "amplitude"."""
    if part == "phase":
        return Scale("phase (rad)", 0.0, scene.phase_range, "viridis")
    return Scale("amplitude", 0.0, 1.0, "gray")


@own_style
def plot_run(
    samples: Samples,
    path: Path,
    *,
    scene: SceneOptions,
    axis: tuple[int, int],
    title: str,
    pitch: float = 0.0,
    masks: bool = True,
) -> None:
    """Draws one row per scene, from the measurement to the error, and below them the masks.

    `scene` and `axis` are the camera's. `pitch` is the pitch of the object's pixels in metres, or 0
    if it is not known. `masks` says whether to draw the masks.
    """
    count = samples.images.shape[0]
    scenes, recovered = (
        scene_parts(np.asarray(images), scene) for images in (samples.images, samples.output.image)
    )
    estimates = np.asarray(samples.output.estimate)
    patterns = np.stack([centred(np.asarray(cdps[0]), axis) for cdps in samples.output.intensity])
    logs = np.log10(np.maximum(patterns, 1e-30))
    top = float(logs.max())
    shots = samples.output.intensity.shape[1]
    log_scale = Scale("intensity, log10", top - DECADES, top, "inferno")
    # A uniform modulus is light gray, not white.
    modulus = Scale("modulus", 0.0, 1.25 * float(np.abs(estimates).max()) or 1.0, "gray")
    columns = [
        Column(f"CDP, shot 1 of {shots}", log_scale, logs),
        Column("estimate, |z|", modulus, np.abs(estimates)),
        Column("estimate, arg z", *_estimated_phase(estimates, scene)),
    ]
    for part, scale in ((part, part_scale(part, scene)) for part in scenes):
        half = (scale.high - scale.low) / 2
        unit = scale.label.removeprefix(part)
        error = Scale(f"recovered - scene{unit}", -half, half, "RdBu_r")
        several = f", {part}" if len(scenes) > 1 else ""
        columns += [
            Column(f"scene{several}", scale, scenes[part]),
            Column(f"recovered{several}", scale, recovered[part], _captions(samples.shown)),
            Column(f"error{several}", error, recovered[part] - scenes[part]),
        ]
    heights = [2.1 * count + 0.6, 2.6][: 1 + masks]
    size = (2.0 * len(columns), sum(heights) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    halves = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes = halves[0].subplots(count, len(columns), squeeze=False)
    for place, column in enumerate(columns):
        axes[0, place].set_title(column.title, fontsize=9)
        for row, value in enumerate(column.values):
            below = column.below[row] if column.below else ""
            _show(axes[row, place], value, column.scale, below=below, pitch=pitch if place else 0.0)
    for scale, alike in groupby(range(len(columns)), key=lambda place: columns[place].scale):
        places = list(alike)
        scale.bar(halves[0], axes[:, places].flat, panels=len(places))
    if masks:
        _draw_masks(halves[1], np.asarray(samples.phases), len(columns))
    write_figure(figure, path)


@own_style
def plot_comparison(
    runs: dict[str, Shown], path: Path, *, scene: SceneOptions, pitch: float = 0.0
) -> None:
    """Draws the same scenes as recovered by several runs, each beside its first mask.

    For complex scenes it draws the phase. The arguments are those of `plot_run`.
    """
    first = next(iter(runs.values()))
    count = min(shown.images.shape[0] for shown in runs.values())
    figure = Figure(figsize=(2.0 * (count + 1) + 0.6, 2.15 * (len(runs) + 1)), layout="constrained")
    axes = figure.subplots(len(runs) + 1, count + 1, squeeze=False)
    axes[0, 0].set_axis_off()
    part, truths = next(iter(scene_parts(np.asarray(first.images), scene).items()))
    scale = part_scale(part, scene)
    for column in range(count):
        _show(axes[0, column + 1], truths[column], scale, pitch=pitch)
        axes[0, column + 1].set_title("scene", fontsize=9)
    for row, (name, shown) in enumerate(runs.items(), start=1):
        snapshots = shown.phases.shape[0]
        _show(axes[row, 0], _wrapped(np.asarray(shown.phases[0])), ANGLE)
        axes[row, 0].set_title(f"{name}\nmask 1 of {snapshots}", fontsize=9)
        captions = _captions(shown)
        recovered = scene_parts(np.asarray(shown.recovered), scene)[part]
        for column in range(count):
            _show(axes[row, column + 1], recovered[column], scale, below=captions[column])
    ANGLE.bar(figure, axes[1:, 0])
    scale.bar(figure, axes[:, 1:].flat, "right", panels=len(runs) + 1)
    write_figure(figure, path)


@own_style
def plot_masks(masks: dict[str, np.ndarray], path: Path) -> None:
    """Draws the first mask, its spectrum and a histogram for each {label: phases [k h w]}."""
    columns = len(masks)
    figure = Figure(figsize=(2.3 * columns + 0.7, 6.6), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    spectra = [
        np.fft.fftshift(np.abs(np.fft.fft2(np.exp(-1j * phases[0]), norm="ortho")))
        for phases in masks.values()
    ]
    top = float(np.log10(max(spectrum.max() for spectrum in spectra)))
    scale = Scale("modulus of its spectrum, log10", -1.0, max(top, 0.0), "inferno")
    for column, (label, phases) in enumerate(masks.items()):
        _show(axes[0, column], _wrapped(phases[0]), ANGLE)
        axes[0, column].set_title(f"{label}\nmask 1 of {len(phases)}", fontsize=9)
        _show(axes[1, column], np.log10(np.maximum(spectra[column], 1e-2)), scale)
        _draw_histogram(axes[2, column], phases)
    ANGLE.bar(figure, axes[0], "right")
    scale.bar(figure, axes[1], "right")
    write_figure(figure, path)


@own_style
def plot_object(
    values: np.ndarray, path: Path, *, title: str, scale: Scale, pitch: float = 0.0
) -> None:
    """Draws one recovered object, in radians or as amplitude; `pitch` is that of `plot_run`."""
    figure = Figure(figsize=(3.6, 3.0), layout="constrained")
    axis = figure.subplots()
    _show(axis, values, scale, pitch=pitch)
    axis.set_title(title, fontsize=9)
    scale.bar(figure, [axis], "right")
    write_figure(figure, path)


@own_style
def plot_sheet(
    objects: list[Sheet], path: Path, *, scale: Scale, title: str, pitch: float = 0.0
) -> None:
    """Draws many recovered objects in one picture, trusted ones in a green frame.

    There should be at most `SHEET` of them. `pitch` is that of `plot_run`.
    """
    columns = min(SHEET_COLUMNS, len(objects))
    rows = -(-len(objects) // columns)
    size = (max(1.5 * columns, 3.0) + 0.8, 1.85 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, one in zip(axes.flat, objects, strict=False):
        colour = GOOD if one.trusted else DOUBTFUL
        _show(axis, one.values, scale, below=one.verdict, pitch=pitch)
        axis.set_title(_shortened(one.name), fontsize=7)
        axis.xaxis.label.set(color=colour, fontsize=7)
        for edge in axis.spines.values():
            edge.set(color=colour, linewidth=2.0)
    for axis in axes.flat[len(objects) :]:
        axis.set_axis_off()
    scale.bar(figure, axes.flat, "right", panels=rows)
    write_figure(figure, path)


def _shortened(name: str) -> str:
    """Shortens a name to its two ends if it is too long to stand above a panel of a sheet."""
    return name if len(name) <= SHEET_NAME else f"{name[:8]}...{name[11 - SHEET_NAME :]}"


def _captions(shown: Shown) -> list[str]:
    psnr = psnr_from_mse(mse(shown.recovered, shown.images))
    similarity = ssim(shown.recovered, shown.images)
    return [f"{p:.1f} dB, SSIM {s:.2f}" for p, s in zip(psnr, similarity, strict=True)]


def _estimated_phase(estimates: np.ndarray, scene: SceneOptions) -> tuple[Scale, np.ndarray]:
    """Returns colour scale and phase of estimates: on the scene's phase range, if it has one."""
    if not scene.has_phase:
        return ANGLE, np.angle(estimates)
    middle = scene.phase_range / 2
    return part_scale("phase", scene), middle + np.angle(estimates * np.exp(-1j * middle))


def _draw_masks(figure: SubFigure, phases: np.ndarray, columns: int) -> None:
    """Draws the first masks, wrapped to (-pi, pi], and the histogram of all their phases."""
    axes = figure.subplots(1, columns, squeeze=False)[0]
    shown = min(len(phases), columns - 1)
    for number in range(shown):
        _show(axes[number], _wrapped(phases[number]), ANGLE)
        axes[number].set_title(f"mask {number + 1} of {len(phases)}", fontsize=9)
    ANGLE.bar(figure, axes[:shown], panels=shown)
    axes[shown].set_title("phases of all masks", fontsize=9)
    _draw_histogram(axes[shown], phases)
    axes[shown].set_box_aspect(1)
    for axis in axes[shown + 1 :]:
        axis.set_axis_off()


def _draw_histogram(axis: Axes, phases: np.ndarray) -> None:
    axis.hist(_wrapped(phases).ravel(), bins=48, range=(-np.pi, np.pi), color="tab:purple")
    axis.set_xlabel("phase (rad)", fontsize=8)
    axis.set_ylabel("pixels", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_yticks([])


def _wrapped(phases: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phases))


def _show(
    axis: Axes, values: np.ndarray, scale: Scale, *, below: str = "", pitch: float = 0.0
) -> None:
    """Draws one panel; with a pitch in metres, its axes are in micrometres."""
    height, width = (1e6 * pitch * side if pitch else side for side in values.shape)
    axis.imshow(
        values,
        interpolation="nearest",
        cmap=scale.map,
        vmin=scale.low,
        vmax=scale.high,
        extent=(0.0, width, height, 0.0),
    )
    if pitch:
        axis.set_xticks([0.0, width], ["0", f"{width:.4g} µm"], fontsize=6)
    else:
        axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(below, fontsize=8)
