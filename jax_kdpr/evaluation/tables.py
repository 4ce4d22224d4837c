"""The tables that `evaluate` and `solve` print, and what they say of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import (
    CONSTANT,
    MEAN_IMAGE,
    RECOVERED,
    REFINED,
    SOLVED,
    SPECTRAL,
)
from jax_kdpr.evaluation.scoring import Evaluated
from jax_kdpr.evaluation.solvers import NETWORK, START, Plan
from jax_kdpr.runs.run import Run

TRIVIAL = {MEAN_IMAGE: "mean training image", CONSTANT: "constant"}


def comparison_table(runs: dict[str, Evaluated]) -> str:
    """Lays out the scores of runs on the same test images, and the trivial answers below them.

    With an E2E run among several, every other one shows its gain over it, paired by image.
    """
    first = next(iter(runs.values()))
    steps = {run.result["refine"] for run in runs.values()} - {0}
    rms = rms_header(first.config.scene.kind)
    header = ["run", "L", "PSNR (dB)", "pooled", rms, "SSIM", "network's input alone (dB)"]
    if steps:
        header.append(f"refined, {', '.join(map(str, sorted(steps)))} steps (dB)")
    lines = []  # label, shots, run, answer
    for name, run in runs.items():
        cut = f" (after {run.epochs} of {run.config.train.epochs} epochs)"
        label = name + cut * (run.epochs < run.config.train.epochs)
        lines.append((label, run.config.masks.snapshots, run, RECOVERED))
    lines += [(label, "", first, answer) for answer, label in TRIVIAL.items()]
    solved = [
        (f"{answer.removeprefix(SOLVED)} ({name})", run.config.masks.snapshots, run, answer)
        for name, run in runs.items()
        for answer in run.scores
        if answer.startswith(SOLVED)
    ]
    lines += solved
    rows = []
    for label, shots, run, answer in lines:
        found = run.result["scores"]
        others = (SPECTRAL, REFINED)[: 1 + bool(steps)]
        beside = [_psnr(found[one]) if answer == RECOVERED else "" for one in others]
        rows.append([label, shots, *_cells(found[answer]), *beside])
    baseline = next((name for name, run in runs.items() if run.config.regime == "e2e"), None)
    paired = ""
    if baseline is not None and len(runs) > 1:
        paired = "; gains are paired by image"
        header.append(f"gain over {baseline} (dB)")
        reference = runs[baseline].scores[RECOVERED]
        for row, (_, _, run, answer) in zip(rows, lines, strict=True):
            gain, error = evaluation.paired_gain(run.scores[answer], reference)
            itself = run.scores[answer] is reference
            row.append("" if itself else f"{gain:+.2f} ± {error:.2f}")
    note = (
        f"Mean ± standard error over {len(first.scores[CONSTANT].mse):,} test images"
        f"{paired}. Pooled: PSNR of the squared error averaged over all of them. rms: over the "
        "object, the mean error of each image taken away. The global phase of the network's "
        "input, and whole turns where the phase range leaves them open, are taken from the truth. "
        "The errors say nothing about another random seed."
    )
    refined = [run.result for run in runs.values() if run.result["refine"]]
    solvers = {result["refine_with"] for result in refined}
    if solvers - {"error_reduction"}:
        note += f" Refined with {', '.join(sorted(solvers))}, from the network's image."
    priors = {result["refine_tv"] for result in refined} - {0.0}
    if priors:
        note += f" Weight of the total variation: {', '.join(f'{tv:g}' for tv in sorted(priors))}."
    if solved:
        note += (
            " Solvers have the CDPs of the run in brackets, no network, and "
            f"{first.result['solver_steps']} steps from its spectral estimate; their global phase "
            "is taken from the truth too."
        )
    return f"{markdown_table(header, rows)}\n\n{note}"


def solve_table(
    results: dict[str, dict[str, Any]], run: Run, plan: Plan, *, support: np.ndarray | None
) -> str:
    """Lays out what `solvers.summarise` gives, with a note on how it was made."""
    rms = rms_header(run.config.scene.kind)
    header = ["solver", "PSNR (dB)", "pooled", rms, "SSIM", "residual", "ms / image"]
    header.append("global phase")
    labels = {START: "none: the spectral estimate", NETWORK: "none: the network"}
    rows = [
        [
            labels.get(name, name),
            *_cells(one),
            f"{one['residual']:.2e}",
            "" if one["seconds_per_image"] is None else f"{1e3 * one['seconds_per_image']:.3g}",
            one["global_phase"],
        ]
        for name, one in results.items()
    ]
    best_of = f", best residual of {plan.restarts}" if plan.restarts > 1 else ""
    prior = f", total variation {plan.tv:g}" if plan.tv else ""
    known = "" if support is None else f", dark in {np.mean(~support):.0%} of the pixels"
    note = (
        f"{plan.steps} steps, {plan.start} start{best_of}; known of the object: {plan.constraint}"
        f"{known}{prior}; {run.config.masks.snapshots} shot(s), "
        f"noise {run.config.noise.kind}. Mean ± standard error over {plan.count:,} test "
        "images; 100 dB stands for an error of zero. rms: over the object, the mean error of "
        "each image taken away. Residual: mean of "
        "norm(abs(A x) - sqrt(y)) / norm(sqrt(y)), of the network that of its image's field. "
        f"Time: of batches of {run.batch_size}, compiled before; of a solver without its "
        "start, of the network with its spectral estimate. No intensity holds the global phase, "
        "nor whole turns: the last column says where they are from."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def advice(name: str, run: Evaluated) -> str:
    """Says of a run that does worse than no network, or than its own input, what it needs."""
    recovered, mean, spectral = (
        run.result["scores"][answer]["psnr"] for answer in (RECOVERED, MEAN_IMAGE, SPECTRAL)
    )
    if recovered < mean:
        return (
            f"warning: {name} is worse than the mean training image: it needs more steps "
            "(train.epochs, or a smaller train.batch_size)"
        )
    if recovered >= spectral:
        return ""
    plain = not run.config.spectral.consistency_steps
    return (
        f"note: {name} is worse than its own input with the true global phase (and whole turns, "
        "if any), which no measurement tells: train longer (train.epochs)"
        + ", or with spectral.consistency_steps=10"
        * plain
    )


def _cells(found: Mapping[str, float]) -> list[str]:
    """Of a `scores.Summary`, as a dictionary."""
    return [
        _psnr(found),
        f"{found['psnr_pooled']:.2f}",
        f"{found['rms']:.3f} ± {found['rms_error']:.3f}",
        f"{found['ssim']:.3f} ± {found['ssim_error']:.3f}",
    ]


def _psnr(found: Mapping[str, float]) -> str:
    return f"{found['psnr']:.2f} ± {found['psnr_error']:.2f}"
