"""The results in the run folders of a study, gathered by entry."""

from typing import Any, NamedTuple

import numpy as np

from jax_kdpr.evaluation.scores import RECOVERED
from jax_kdpr.evaluation.scoring import read_image_psnr
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.statistics import Estimate, PairedTest, over_images, over_seeds


class SeedResult(NamedTuple):
    """One finished run."""

    run: PlannedRun
    scores: dict[str, dict[str, float]]  # of metrics.json
    curve: list[dict[str, Any]]  # rows of metrics.jsonl
    under_noise: dict[str, Any]  # "scores" (dB) and "rms"
    optics: dict[str, Any]  # scores without the network; empty if no section needs them
    sessions: list[dict[str, Any]]  # of run.json: what it was trained with, and when

    @property
    def validated(self) -> dict[int, float]:
        """Mean validation PSNR of the epochs that were validated, dB."""
        return {row["epoch"]: row[SCORE] for row in self.curve if SCORE in row}

    @property
    def validation_psnr(self) -> float:
        """Validation PSNR of the epoch whose checkpoint is scored, dB."""
        return max(self.validated.values())

    @property
    def train_seconds(self) -> float:
        """Seconds of the training alone, without validation."""
        return training_seconds(self.curve, timed="train_seconds")


Results = dict[str, list[SeedResult]]  # by entry; only finished runs


class Gain(NamedTuple):
    """An entry compared with a baseline, on the same seeds and the same images."""

    psnr: Estimate  # dB, over seeds
    images: PairedTest


def read_results(runs: list[PlannedRun]) -> Results:
    """Reads the finished runs."""
    results: Results = {}
    for run in runs:
        found = results.setdefault(run.entry, [])
        if run.is_done and run.scores is not None:
            found.append(
                SeedResult(
                    run=run,
                    scores=run.scores["scores"],
                    curve=run_folder.read_metrics(run.workdir),
                    under_noise=run.noisy_scores or {},
                    optics=run.optics_scores or {},
                    sessions=run_folder.read_run(run.workdir)["sessions"],
                )
            )
    return results


def quality(
    results: list[SeedResult], *, answer: str = RECOVERED, metric: str = "psnr"
) -> Estimate:
    """Returns a test metric over the seeds; `answer` is as in `evaluation.scores`."""
    return over_seeds([result.scores[answer][metric] for result in results])


def paired(
    results: list[SeedResult], baseline: list[SeedResult]
) -> list[tuple[SeedResult, SeedResult]]:
    """Returns pairs of runs, of an entry and of a baseline, for the seeds that both have."""
    theirs = {result.run.seed: result for result in baseline}
    return [(result, theirs[result.run.seed]) for result in results if result.run.seed in theirs]


def gain(results: list[SeedResult], baseline: list[SeedResult]) -> Gain | None:
    """Compares an entry with a baseline over the seeds that both have; None if they share none."""
    pairs = paired(results, baseline)
    if not pairs:
        return None
    psnr = [a.scores[RECOVERED]["psnr"] - b.scores[RECOVERED]["psnr"] for a, b in pairs]
    images = [read_image_psnr(a.run.workdir) - read_image_psnr(b.run.workdir) for a, b in pairs]
    return Gain(over_seeds(psnr), over_images(np.stack(images)))


def training_seconds(rows: list[dict[str, Any]], *, timed: str = "seconds") -> float:
    """Returns how many seconds a training took, from its rows of metrics.

    The row of an interrupted epoch has only the time of its rest, or of its validation. So every
    epoch below the median counts as the median epoch.

    Args:
        rows: One row for each epoch.
        timed: "seconds", or "train_seconds" to leave validation out.
    """
    seconds = [row[timed] for row in rows]
    if not seconds:
        return 0.0
    # Of two epochs the shorter one counts, because the first may have compiled.
    median = np.quantile(seconds, 0.5, method="lower")
    return float(np.sum(np.maximum(seconds, median)))
