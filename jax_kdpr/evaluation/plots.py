"""Curves, straight to PNG: no display needed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_kdpr.core.figures import Figure, colormaps, own_style
from jax_kdpr.core.whole_files import write_whole

TEN = 10  # curves for which the usual colours do
STYLES = ("-", "--", ":", "-.")
EXACT = 1e-8  # misfit of a false object that rounding alone makes


@own_style
def plot_sweep(name: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Draws time and memory of each case of a benchmark over the quantity that was swept."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    kinds = (("median_ms", "time of a batch or step (ms)"), ("memory_mb", "memory (MB)"))
    for axis, (column, label) in zip(axes, kinds, strict=True):
        cases = list(dict.fromkeys(row["case"] for row in rows))
        for case, look in zip(cases, _looks(len(cases)), strict=True):
            points = [row for row in rows if row["case"] == case and column in row]
            axis.plot(
                [p[name] for p in points],
                [p[column] for p in points],
                marker="o",
                label=case,
                **look,
            )
            if column == "median_ms" and points:
                low, high = ([p[side] for p in points] for side in ("low_ms", "high_ms"))
                x, colour = [p[name] for p in points], look["color"]
                axis.fill_between(x, low, high, alpha=0.2, color=colour)
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
    markers: bool = True,
) -> None:
    """Draws curves with their intervals, and a dashed horizontal line for `reference`."""
    figure = Figure(figsize=(8.4, max(3.9, 0.2 * len(lines))), layout="constrained")
    axis = figure.subplots()
    marker = "o" if markers else None
    for (label, line), look in zip(lines.items(), _looks(len(lines)), strict=True):
        mean = np.asarray(line.y)
        axis.plot(line.x, mean, marker=marker, label=label, markersize=4, **look)
        if line.half_width is not None:
            half = np.nan_to_num(np.asarray(line.half_width))
            axis.fill_between(line.x, mean - half, mean + half, alpha=0.2, color=look["color"])
    if reference is not None:
        axis.axhline(reference[1], linestyle="--", color="0.4", label=reference[0])
    if log_x:
        axis.set_xscale("log")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    _add_legend(figure, axis.get_legend_handles_labels())
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
        for (name, line), look in zip(lines.items(), _looks(len(lines)), strict=True):
            axis.plot(line.x, line.y, marker="o", markersize=3, label=name, **look)
        x = [value for line in lines.values() for value in line.x]
        if min(x) > 0 and max(x) / min(x) > 100:
            axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    _add_legend(figure, axes[0, 0].get_legend_handles_labels())
    for row in axes:
        row[0].set_ylabel(y_label)
    write_figure(figure, path)


@own_style
def plot_ambiguity(designs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws what `jax_kdpr.ambiguity` found of each design: false objects, Jacobian, bounds."""
    figure = Figure(figsize=(14.0, 4.2), layout="constrained")
    false, spectrum, bounds = figure.subplots(1, 3)
    width = 0.8 / len(designs)
    for number, (name, found) in enumerate(designs.items()):
        colour = _looks(len(designs))[number]["color"]
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
    if not spectrum.lines:
        said = "too many unknowns for a spectrum:\nthe report has its ends"
        spectrum.text(0.5, 0.5, said, ha="center", transform=spectrum.transAxes)
    spectrum.set_xlabel("number")
    spectrum.set_ylabel("singular value of d sqrt(y) / d image")
    bounds.set_xscale("log")
    bounds.set_xlabel("photons a shot")
    bounds.set_ylabel("PSNR bound (dB); dotted: without prior")
    for axis in (false, spectrum, bounds):
        axis.grid(alpha=0.3)
    _add_legend(figure, bounds.get_legend_handles_labels())
    write_figure(figure, path)


def _looks(count: int) -> list[dict[str, Any]]:
    """Colour and style of each of some curves, no two of them alike."""
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
    """Beside the curves, where it covers none."""
    if entries[0]:
        figure.legend(*entries, loc="outside right upper", fontsize=8)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))
