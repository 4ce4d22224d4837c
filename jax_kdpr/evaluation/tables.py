"""The tables that `evaluate` and `solve` print, and their advice about a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation.scores import (
    CONSTANT,
    MEAN_IMAGE,
    RECOVERED,
    REFINED,
    SPECTRAL,
    paired_gain,
)
from jax_kdpr.evaluation.scoring import Evaluated
from jax_kdpr.evaluation.solvers import NETWORK, START, Plan
from jax_kdpr.runs.run import Run

TRIVIAL = {MEAN_IMAGE: "mean training image", CONSTANT: "constant"}


def comparison_table(runs: dict[str, Evaluated]) -> str:
    """Lays out the scores of runs on the same test images, and the trivial answers below them.

    If there are several runs, and one is E2E, every other row shows the gain over it, paired by
    image.
    """
    first = next(iter(runs.values()))
    refined = [run.result for run in runs.values() if run.result["refine"]]
    lines = []  # label, shots, run, answer
    for name, run in runs.items():
        epochs, wanted = run.result["epochs"], run.config.train.epochs
        label = name + f" (after {epochs} of {wanted} epochs)" * (epochs < wanted)
        lines.append((label, run.config.masks.snapshots, run, RECOVERED))
    lines += [(label, "", first, answer) for answer, label in TRIVIAL.items()]
    baseline = next((name for name, run in runs.items() if run.config.regime == "e2e"), None)
    reference = runs[baseline] if baseline and len(runs) > 1 else None
    rows = []
    for label, shots, run, answer in lines:
        found = run.result["scores"]
        row = [label, shots, *_cells(found[answer])]
        for other in (SPECTRAL, REFINED)[: 1 + bool(refined)]:
            row.append(_psnr(found[other]) if answer == RECOVERED and other in found else "")
        if run is reference and answer == RECOVERED:
            row.append("")
        elif reference:
            gain, error = paired_gain(run.scores[answer], reference.scores[RECOVERED])
            row.append(f"{gain:+.2f} ± {error:.2f}")
        rows.append(row)
    rms = rms_header(first.config.scene.kind)
    header = ["run", "L", "PSNR (dB)", "pooled", rms, "SSIM", "network's input alone (dB)"]
    if refined:
        steps = sorted({result["refine"] for result in refined})
        header.append(f"refined, {', '.join(map(str, steps))} steps (dB)")
    if reference:
        header.append(f"gain over {baseline} (dB)")
    note = (
        f"Mean ± standard error over {len(first.scores[CONSTANT].mse):,} test images"
        f"{'; gains are paired by image' if reference else ''}. Pooled: PSNR of the squared error "
        "averaged over all of them. rms: over the object, the mean error of each image taken away. "
        "The global phase of the network's input, and whole turns where the phase range leaves "
        "them open, are taken from the truth. The errors say nothing about another random seed."
    )
    for solver, tv in sorted({(one["refine_with"], one["refine_tv"]) for one in refined}):
        prior = f", weight of the total variation {tv:g}" if tv else ""
        note += f" Refined with {solver}{prior}, from the network's image."
    return f"{markdown_table(header, rows)}\n\n{note}"


def solve_table(
    results: dict[str, dict[str, Any]], run: Run, plan: Plan, *, support: np.ndarray | None
) -> str:
    """Lays out what `solvers.summarise` gives, with a note on how it was made."""
    rms = rms_header(run.config.scene.kind)
    header = ["solver", "PSNR (dB)", "pooled", rms, "SSIM", "misfit", "ms / image"]
    header.append("global phase")
    labels = {START: "none: the spectral estimate", NETWORK: "none: the network"}
    rows = [
        [
            labels.get(name, name),
            *_cells(one),
            f"{one['misfit']:.2e}",
            "" if one["seconds_per_image"] is None else f"{1e3 * one['seconds_per_image']:.3g}",
            one["global_phase"],
        ]
        for name, one in results.items()
    ]
    count = next(iter(results.values()))["images"]
    best_of = f", best misfit of {plan.restarts}" if plan.restarts > 1 else ""
    prior = f", total variation {plan.tv:g}" if plan.tv else ""
    known = "" if support is None else f", dark in {np.mean(~support):.0%} of the pixels"
    its_field, its_time = (
        (", of the network that of its image's field", ", of the network with its estimate")
        if NETWORK in results
        else ("", "")
    )
    note = (
        f"{plan.steps} steps, {plan.start} start{best_of}; known of the object: "
        f"{plan.scene_constraint or run.config.scene.kind}{known}{prior}; "
        f"{run.config.masks.snapshots} shot(s), noise {run.config.noise.kind}. Mean ± standard "
        f"error over {count:,} test images; 100 dB stands for an error of zero. rms: over the "
        "object, the mean error of each image taken away. Misfit: mean of "
        f"norm(abs(A x) - sqrt(y)) / norm(sqrt(y)){its_field}. "
        f"Time: of batches of {run.batch_size}, compiled before; of a solver without its "
        f"start{its_time}. No intensity holds the global phase, "
        "nor whole turns: the last column says where they are from."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def advice(name: str, run: Evaluated) -> str:
    """Returns advice for a run that is worse than the mean image or its own input; else ""."""
    answers = (RECOVERED, MEAN_IMAGE, SPECTRAL)
    recovered, mean, spectral = (run.result["scores"][one]["psnr"] for one in answers)
    if recovered < mean:
        return (
            f"warning: {name} is worse than the mean training image: it needs more steps "
            "(train.epochs, or a smaller train.batch_size)"
        )
    if recovered >= spectral:
        return ""
    steps = "" if run.config.spectral.consistency_steps else ", or spectral.consistency_steps=10"
    return (
        f"note: {name} is worse than its own input with the true global phase, which no "
        f"measurement tells: train longer (train.epochs){steps}"
    )


def _cells(found: Mapping[str, float]) -> list[str]:
    """Returns the table cells of a `scores.Summary` that is given as a dictionary."""
    return [
        _psnr(found),
        f"{found['psnr_pooled']:.2f}",
        f"{found['rms']:.3f} ± {found['rms_error']:.3f}",
        f"{found['ssim']:.3f} ± {found['ssim_error']:.3f}",
    ]


def _psnr(found: Mapping[str, float]) -> str:
    return f"{found['psnr']:.2f} ± {found['psnr_error']:.2f}"
