"""Plots curves straight to PNG files, without a display."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_kdpr.core.figures import Axes, Figure, colormaps, own_style
from jax_kdpr.core.whole_files import write_whole

TEN = 10  # for so many curves Matplotlib's default colours are enough
STYLES = ("-", "--", ":", "-.")


@own_style
def plot_sweep(name: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Draws time and memory of each case of a benchmark against the swept quantity."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    kinds = (("median_ms", "time of a batch or step (ms)"), ("memory_mb", "memory (MB)"))
    for axis, (column, label) in zip(axes, kinds, strict=True):
        cases = list(dict.fromkeys(row["case"] for row in rows))
        for case, look in zip(cases, _looks(len(cases)), strict=True):
            points = [row for row in rows if row["case"] == case and column in row]
            x = [point[name] for point in points]
            axis.plot(x, [point[column] for point in points], marker="o", label=case, **look)
            if column == "median_ms":
                low, high = ([point[side] for point in points] for side in ("low_ms", "high_ms"))
                axis.fill_between(x, low, high, alpha=0.2, color=look["color"])
        axis.set_xlabel(name)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    _add_legend(figure, axes[0].get_legend_handles_labels())
    write_figure(figure, path)


class Line(NamedTuple):
    """One curve: a mean and, if there are several seeds, half the width of its interval."""

    x: list[float]
    y: list[float]
    half_width: list[float] | None = None


@own_style
def plot_lines(
    lines: dict[str, Line],
    path: Path,
    *,
    x_label: str,
    y_label: str = "PSNR (dB)",
    reference: tuple[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    markers: bool = True,
) -> None:
    """Draws curves with their intervals, and a dashed horizontal line for `reference`."""
    figure = Figure(figsize=(8.4, max(3.9, 0.2 * len(lines))), layout="constrained")
    axis = figure.subplots()
    _draw_lines(axis, lines, "o" if markers else None)
    if reference is not None:
        axis.axhline(reference[1], linestyle="--", color="0.4", label=reference[0])
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    _add_legend(figure, axis.get_legend_handles_labels())
    write_figure(figure, path)


@own_style
def plot_histograms(panels: dict[str, dict[str, np.ndarray]], path: Path, *, y_label: str) -> None:
    """Draws panels of histograms, {x label: {name: values}}, as outlines."""
    figure = Figure(figsize=(4.2 * len(panels) + 1.0, 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (label, values) in zip(axes, panels.items(), strict=True):
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
        for (name, one), look in zip(values.items(), _looks(len(values)), strict=True):
            axis.stairs(np.histogram(one, edges)[0], edges, label=name, **look)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(y_label)
    _add_legend(figure, axes[0].get_legend_handles_labels())
    write_figure(figure, path)


@own_style
def plot_panels(
    panels: dict[str, dict[str, Line]], path: Path, *, y_label: str = "PSNR (dB)"
) -> None:
    """Draws panels of curves, {x label: {name: curve}}, on a common y axis."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis, (label, lines) in zip(axes.flat, panels.items(), strict=False):
        _draw_lines(axis, lines, "o")
        x = [value for line in lines.values() for value in line.x]
        if min(x) > 0 and max(x) / min(x) > 100:
            axis.set_xscale("log")
        axis.set_xlabel(label)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    _add_legend(figure, axes[0, 0].get_legend_handles_labels())
    for row in axes:
        row[0].set_ylabel(y_label)
    write_figure(figure, path)


class Point(NamedTuple):
    """One system: the time of a frame, and how well it is recovered."""

    ms: float
    psnr: float
    half_width: float


@own_style
def plot_front(points: dict[str, Point], front: list[str], path: Path) -> None:
    """Draws PSNR against the time of a frame, and a line through the points of the front."""
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    axis = figure.subplots()
    for (label, point), look in zip(points.items(), _looks(len(points)), strict=True):
        half = np.nan_to_num(point.half_width)
        place = ([point.ms], [point.psnr])
        axis.errorbar(*place, [half], fmt="o", color=look["color"], capsize=2, label=label)
    best = [points[label] for label in front]
    axis.plot([one.ms for one in best], [one.psnr for one in best], color="0.4", zorder=0)
    axis.set_xscale("log")
    axis.set_xlabel("a frame alone (ms)")
    axis.set_ylabel("PSNR (dB)")
    axis.grid(alpha=0.3, which="both")
    _add_legend(figure, axis.get_legend_handles_labels())
    write_figure(figure, path)


def _draw_lines(axis: Axes, lines: dict[str, Line], marker: str | None) -> None:
    for (label, line), look in zip(lines.items(), _looks(len(lines)), strict=True):
        mean = np.asarray(line.y)
        axis.plot(line.x, mean, marker=marker, label=label, markersize=4, **look)
        if line.half_width is not None:
            half = np.nan_to_num(np.asarray(line.half_width))
            axis.fill_between(line.x, mean - half, mean + half, alpha=0.2, color=look["color"])
    axis.grid(alpha=0.3)


def _looks(count: int) -> list[dict[str, Any]]:
    """Returns colour and line style of each of some curves, no two of them alike."""
    if count <= TEN:
        return [{"color": f"C{number}", "linestyle": "-"} for number in range(count)]
    return [
        {
            "color": colormaps["turbo"](number / (count - 1)),
            "linestyle": STYLES[number % len(STYLES)],
        }
        for number in range(count)
    ]


def _add_legend(figure: Figure, entries: tuple[list[Any], list[Any]]) -> None:
    """Adds a legend beside the curves, where it covers none of them."""
    if entries[0]:
        figure.legend(*entries, loc="outside right upper", fontsize=8)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))
