"""Figures: the only module that knows matplotlib. Written straight to PNG, no display needed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_kdpr.camera import centred
from jax_kdpr.evaluation import Samples
from jax_kdpr.metrics import mse, psnr_from_mse, ssim
from jax_kdpr.whole_files import write_whole

GREY = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}
PHASE = {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
MASKS_SHOWN = 6
EXACT = 1e-8  # misfit of a false object that rounding alone makes


def plot_run(samples: Samples, path: Path, *, axis: tuple[int, int], title: str) -> None:
    """Draws one row per scene, from the measurement to the error, and below them the masks.

    Phases run from -pi to pi, images from 0 to 1, errors from -0.5 (red) to 0.5 (blue). `axis` is
    that of the camera.
    """
    count = samples.images.shape[0]
    parts = ("",) if samples.images.shape[-1] == 1 else (" phase", " amplitude")
    columns = ["CDP 1, log", "|z|", "arg z"]
    for part in parts:
        columns += [f"scene{part}", f"recovered{part}", f"error{part}"]
    figure = Figure(figsize=(2.0 * len(columns), 2.1 * count + 2.8), layout="constrained")
    figure.suptitle(title)
    halves = figure.subfigures(2, 1, height_ratios=[2.1 * count, 2.4], squeeze=False)[:, 0]
    axes = halves[0].subplots(count, len(columns), squeeze=False)
    quality = _captions(samples)
    for row in range(count):
        estimate = np.asarray(samples.output.estimate[row])
        # The optical axis to the middle, as a camera sees it.
        pattern = centred(np.asarray(samples.output.intensity[row, 0]), axis)
        floor = max(pattern.max() * 1e-5, 1e-12)
        _show(axes[row, 0], np.log10(np.maximum(pattern, floor)), cmap="inferno")
        _show(axes[row, 1], np.abs(estimate), cmap="gray", vmin=0.0)
        _show(axes[row, 2], np.angle(estimate), **PHASE)
        for channel in range(len(parts)):
            scene = np.asarray(samples.images[row, ..., channel])
            recovered = np.asarray(samples.output.image[row, ..., channel])
            first = 3 + 3 * channel
            _show(axes[row, first], scene, **GREY)
            _show(axes[row, first + 1], recovered, **GREY, below=quality[row])
            _show(axes[row, first + 2], recovered - scene, cmap="RdBu", vmin=-0.5, vmax=0.5)
    for panel, name in zip(axes[0], columns, strict=True):
        panel.set_title(name, fontsize=9)
    _draw_masks(halves[1], np.asarray(samples.phases))
    _write(figure, path)


def plot_comparison(runs: dict[str, Samples], path: Path) -> None:
    """Draws the same scenes as recovered by several runs, each over its first mask."""
    first = next(iter(runs.values()))
    count = min(samples.images.shape[0] for samples in runs.values())
    figure = Figure(figsize=(2.0 * (count + 1), 2.15 * (len(runs) + 1)), layout="constrained")
    axes = figure.subplots(len(runs) + 1, count + 1, squeeze=False)
    axes[0, 0].set_axis_off()
    for column in range(count):
        _show(axes[0, column + 1], np.asarray(first.images[column, ..., 0]), **GREY)
        axes[0, column + 1].set_title("scene", fontsize=9)
    for row, (name, samples) in enumerate(runs.items(), start=1):
        snapshots = samples.phases.shape[0]
        _show(axes[row, 0], _wrapped(np.asarray(samples.phases[0])), **PHASE)
        axes[row, 0].set_title(f"{name}\nmask 1 of {snapshots}", fontsize=9)
        captions = _captions(samples)
        for column in range(count):
            recovered = np.asarray(samples.output.image[column, ..., 0])
            _show(axes[row, column + 1], recovered, **GREY, below=captions[column])
    _write(figure, path)


def plot_sweep(name: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Draws time and memory of each case of a benchmark over the quantity that was swept."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    kinds = (("median_ms", "time of a batch or step (ms)"), ("memory_mb", "memory (MB)"))
    for axis, (column, label) in zip(axes, kinds, strict=True):
        for case in dict.fromkeys(row["case"] for row in rows):
            points = [row for row in rows if row["case"] == case and column in row]
            axis.plot([p[name] for p in points], [p[column] for p in points], "o-", label=case)
            if column == "median_ms" and points:
                low, high = ([p[side] for p in points] for side in ("low_ms", "high_ms"))
                axis.fill_between([p[name] for p in points], low, high, alpha=0.2)
        axis.set_xlabel(name)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _write(figure, path)


class Line(NamedTuple):
    """One curve: a mean and, if there are several seeds, half the width of its interval."""

    x: list[float]
    y: list[float]
    half_width: list[float] | None = None


def plot_lines(
    lines: dict[str, Line],
    path: Path,
    *,
    x_label: str,
    y_label: str = "PSNR (dB)",
    reference: tuple[str, float] | None = None,
    log_x: bool = False,
    markers: bool = True,
) -> None:
    """Draws curves with their intervals, and a dashed horizontal line for `reference`."""
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axis = figure.subplots()
    for label, line in lines.items():
        mean = np.asarray(line.y)
        (drawn,) = axis.plot(line.x, mean, "o-" if markers else "-", label=label, markersize=4)
        if line.half_width is not None:
            half = np.nan_to_num(np.asarray(line.half_width))
            colour = drawn.get_color()
            axis.fill_between(line.x, mean - half, mean + half, alpha=0.2, color=colour)
    if reference is not None:
        axis.axhline(reference[1], linestyle="--", color="0.4", label=reference[0])
    if log_x:
        axis.set_xscale("log")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _write(figure, path)


def plot_panels(
    panels: dict[str, dict[str, Line]], path: Path, *, y_label: str = "PSNR (dB)"
) -> None:
    """Draws panels of curves, {x label: {name: curve}}, on a common y axis."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis, (label, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, line in lines.items():
            axis.plot(line.x, line.y, "o-", markersize=3, label=name)
        x = [value for line in lines.values() for value in line.x]
        if min(x) > 0 and max(x) / min(x) > 100:
            axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=7)
    for row in axes:
        row[0].set_ylabel(y_label)
    _write(figure, path)


def plot_masks(masks: dict[str, np.ndarray], path: Path) -> None:
    """Draws for each system its first mask, that mask's spectrum, and the histogram of all phases.

    Args:
        masks: For each label phases [k h w], radians.
        path: The PNG.
    """
    columns = len(masks)
    figure = Figure(figsize=(2.3 * columns, 6.6), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    for column, (label, phases) in enumerate(masks.items()):
        _show(axes[0, column], _wrapped(phases[0]), **PHASE)
        axes[0, column].set_title(f"{label}\nmask 1 of {len(phases)}", fontsize=9)
        spectrum = np.fft.fftshift(np.abs(np.fft.fft2(np.exp(-1j * phases[0]), norm="ortho")))
        _show(axes[1, column], np.log10(np.maximum(spectrum, 1e-2)), cmap="inferno", vmin=-1)
        _draw_histogram(axes[2, column], phases)
    axes[1, 0].set_ylabel("its spectrum, log", fontsize=8)
    _write(figure, path)


def plot_ambiguity(designs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws what `jax_kdpr.ambiguity` found of each design: false objects, Jacobian, bounds."""
    figure = Figure(figsize=(14.0, 4.2), layout="constrained")
    false, spectrum, bounds = figure.subplots(1, 3)
    width = 0.8 / len(designs)
    for number, (name, found) in enumerate(designs.items()):
        colour = f"C{number % 10}"
        for place, judged in enumerate(found["false_objects"].values()):
            where = place + (number - (len(designs) - 1) / 2) * width
            fits = judged["misfit"] <= EXACT
            false.bar(where, judged["prior_distance"], 0.9 * width, color=colour, alpha=0.8)
            said = "exact" if fits else f"{judged['misfit']:.1g}"
            false.text(where, judged["prior_distance"], said, ha="center", va="bottom", fontsize=8)
        values = found["jacobian"].get("spectrum")
        if values:
            spectrum.semilogy(np.maximum(values, 1e-12), color=colour, label=name)
        photons = [bound["photons"] for bound in found["bounds"]]
        for kind, style in (("cramer_rao", ":"), ("bayesian", "-")):
            psnr = [bound[kind]["psnr"] for bound in found["bounds"]]
            bounds.plot(photons, psnr, style, marker=".", color=colour, label=name)
            name = None  # one entry of the legend
    kinds = list(next(iter(designs.values()))["false_objects"])
    false.set_xticks(range(len(kinds)), kinds)
    false.axhline(1.0, color="0.5", linewidth=0.8)
    false.set_xlabel("false object; on top: how badly it fits the measurement")
    false.set_ylabel("distance to the training images (true scenes: 1)")
    spectrum.set_xlabel("number")
    spectrum.set_ylabel("singular value of d sqrt(y) / d image")
    bounds.set_xscale("log")
    bounds.set_xlabel("photons a shot")
    bounds.set_ylabel("PSNR bound (dB); dotted: without prior")
    for axis in (false, spectrum, bounds):
        axis.grid(alpha=0.3)
    bounds.legend(fontsize=8)
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))


def _captions(samples: Samples) -> list[str]:
    psnr = psnr_from_mse(mse(samples.output.image, samples.images))
    similarity = ssim(samples.output.image, samples.images)
    return [f"{p:.1f} dB / {s:.2f}" for p, s in zip(psnr, similarity, strict=True)]


def _draw_masks(figure, phases: np.ndarray) -> None:
    """Draws the first masks, wrapped to (-pi, pi], and the histogram of all their phases."""
    shown = min(len(phases), MASKS_SHOWN)
    axes = figure.subplots(1, shown + 1, squeeze=False)[0]
    for number in range(shown):
        _show(axes[number], _wrapped(phases[number]), **PHASE)
        axes[number].set_title(f"mask {number + 1} of {len(phases)}", fontsize=9)
    axes[-1].set_title("phases", fontsize=9)
    _draw_histogram(axes[-1], phases)


def _draw_histogram(axis: Axes, phases: np.ndarray) -> None:
    axis.hist(_wrapped(phases).ravel(), bins=48, range=(-np.pi, np.pi), color="tab:purple")
    axis.set_xlabel("wrapped phase (rad)", fontsize=8)
    axis.set_yticks([])


def _wrapped(phases: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phases))


def _show(axis: Axes, image: np.ndarray, *, below: str = "", **options) -> None:
    axis.imshow(image, interpolation="nearest", **options)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(below, fontsize=8)


def plot_phase(phase: np.ndarray, path: Path, *, title: str, top: float, unit: str) -> None:
    """Draws one recovered object with its scale bar, from 0 to `top` (radians, or amplitude)."""
    figure = Figure(figsize=(3.6, 3.0), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(phase, cmap="viridis", vmin=0.0, vmax=top, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axis, label=unit)
    _write(figure, path)
