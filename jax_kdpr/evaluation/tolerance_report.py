"""What `tolerance` reports about runs: curves of each error, and yields of random benches."""

from pathlib import Path
from typing import Any

import numpy as np

from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.tolerance import UNITS, Request

FEW_IMAGES = 100


def report(runs: dict[str, dict[str, Any]], images: dict[str, int], request: Request) -> str:
    """Lays out `measure_run` of each run: a table for each error, and a table of the yields.

    `images` has the number of test images of each run.
    """
    counts = sorted(set(images.values()))
    parts = [
        f"Mean PSNR (dB), and mean rms over the object, of {' or '.join(map(str, counts))} test "
        "images, each on the bench that is named, with noise drawn anew for each number "
        "(`evaluate` draws benches by the run's own jitter)."
        + " So few images leave tenths of a dB to chance."
        * (min(counts) < FEW_IMAGES)
    ]
    parts += [_curve_table(kind, runs) for kind in request.errors]
    if request.benches:
        spread = ", ".join(
            f"{name} {value:g} {UNITS[name]}" for name, value in request.spreads.items()
        )
        parts += [
            f"{request.benches} random benches, standard deviations: {spread}.",
            _yield_table(runs),
            "Yield: share of benches at or above `good from`, with its 95 % interval.",
        ]
    return "\n\n".join(parts)


def _curve_table(kind: str, runs: dict[str, dict[str, Any]]) -> str:
    values = list(next(iter(runs.values()))["curves"][kind])
    rows = []
    for name, run in runs.items():
        psnr, rms = run["curves"][kind], run["rms_curves"][kind]
        rows.append([f"{name}: PSNR (dB)", *(f"{psnr[v]:.2f}" for v in values)])
        rows.append([f"{name}: {run['rms']}", *(f"{rms[v]:.3f}" for v in values)])
    return markdown_table([f"{kind} ({UNITS[kind]})", *(f"{v:g}" for v in values)], rows)


def _yield_table(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, run in runs.items():
        found, share = np.array(run["bench_psnr"]), run["yield"]
        rows.append(
            [
                name,
                f"{run['design_psnr']:.2f}",
                f"{found.mean():.2f}",
                f"{np.percentile(found, 10):.2f}",
                f"{share['threshold']:.2f}",
                f"{run['design_rms']:.3f}",
                f"{np.mean(run['bench_rms']):.3f}",
                f"{100 * share['share']:.0f} % "
                f"({100 * share['low']:.0f} to {100 * share['high']:.0f})",
            ]
        )
    header = ["run", "design (dB)", "mean bench (dB)", "worst tenth below", "good from"]
    rms = " or ".join(dict.fromkeys(run["rms"] for run in runs.values()))
    return markdown_table([*header, f"design, {rms}", f"mean bench, {rms}", "yield"], rows)


def draw(runs: dict[str, dict[str, Any]], request: Request, path: Path) -> None:
    """Draws the curves of all runs, with one panel for each error."""
    plots.plot_panels(
        {
            f"{kind} ({UNITS[kind]})": {
                name: Line(list(run["curves"][kind]), list(run["curves"][kind].values()))
                for name, run in runs.items()
            }
            for kind in request.errors
        },
        path,
    )
