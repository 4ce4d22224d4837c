"""What `tolerance` reports of runs: curves of each error, yields of random benches."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.tolerance import (
    GRIDS,
    UNITS,
    error_curves,
    make_measure,
    random_benches,
    share_above,
)
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.runs.run import Run

FEW_IMAGES = 100


class Request(NamedTuple):
    """What to measure."""

    errors: tuple[str, ...]  # of `GRIDS`, to draw curves of
    benches: int  # random ones; 0: curves only
    spreads: dict[str, float]  # their standard deviations
    loss: float  # dB that a good bench may lose
    target: float | None  # PSNR in dB of a good bench, in place of `loss`
    images: int  # of the test images, from the first
    seed: int  # of the benches and of the noise


def check_errors(errors: tuple[str, ...], *, benches: int) -> None:
    """Refuses errors that have no curve, and nothing at all to measure.

    Raises:
        InputError: By the flags of `tolerance`.
    """
    unknown = sorted(set(errors) - set(GRIDS))
    if unknown:
        raise InputError(f"--errors: expected some of {', '.join(GRIDS)}, got {unknown[0]!r}")
    if not errors and not benches:
        raise InputError("--errors: none, and no --benches: nothing is left to measure")


def measure_run(run: Run, request: Request) -> dict[str, Any]:
    """Returns PSNR and rms of the design, of the curves, and of each random bench of one run."""
    test = run.dataset.test[: request.images]
    alone = replace(run.on_one_device(), batch_size=min(run.batch_size, len(test)))
    measure = make_measure(alone, test)
    key = jax.random.key(request.seed)
    design = np.mean(measure(Perturbation(), 0.0, jax.random.split(key)[1]), axis=1)
    curves = error_curves(measure, key, kinds=request.errors)
    result: dict[str, Any] = {"design_psnr": float(design[0]), "design_rms": float(design[1])}
    for name, metric in (("curves", "psnr"), ("rms_curves", "rms")):
        result[name] = {
            kind: {value: float(getattr(found, metric)) for value, found in curve.items()}
            for kind, curve in curves.items()
        }
    if request.benches:
        found = random_benches(measure, key, count=request.benches, spreads=request.spreads)
        threshold = result["design_psnr"] - request.loss
        threshold = threshold if request.target is None else request.target
        result["bench_psnr"], result["bench_rms"] = found.psnr.tolist(), found.rms.tolist()
        result["yield"] = share_above(found.psnr, threshold)._asdict()
    return result | {"rms": rms_header(run.config.scene.kind)}


def report(runs: dict[str, dict[str, Any]], images: dict[str, int], request: Request) -> str:
    """Lays out the curves, one table an error, and the yields.

    Args:
        runs: `measure_run` of each.
        images: How many each was measured on.
        request: That they were measured for.
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
    """Draws the curves of all runs, a panel an error."""
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
