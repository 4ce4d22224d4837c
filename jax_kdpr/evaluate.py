"""Scores trained runs on their test images: `python -m jax_kdpr.evaluate --workdir RUN [RUN ...]`.

Writes metrics.json, scores.npz (image by image), figure.png and masks.npy (phases in [0, 2 pi) as
[k h w]; mask l multiplies the field by e^{-j phase}) into each run folder and prints one table.
Several runs of the same data and scene give one table, also written, with a figure of the same
scenes side by side, to --output.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jax_kdpr import (
    checkpoint,
    cli,
    config,
    config_fields,
    evaluation,
    plots,
    run_folder,
    runtime,
)
from jax_kdpr.config import Config, Regime
from jax_kdpr.data import sources
from jax_kdpr.errors import InputError
from jax_kdpr.evaluation import CONSTANT, MEAN_IMAGE, RECOVERED, SPECTRAL, Samples, summarise
from jax_kdpr.metrics import ImageScores
from jax_kdpr.physics.masks import wrap_phases
from jax_kdpr.sharding import make_mesh
from jax_kdpr.systems import make_system
from jax_kdpr.tables import markdown_table
from jax_kdpr.trained import load_trained, run_keys

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for the table and figure of several runs; default: above the first run."
)
SAMPLES = flags.DEFINE_integer("samples", 4, "Test scenes in a figure.", lower_bound=1)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")


class Evaluated(NamedTuple):
    """One run and its results."""

    config: Config
    epochs: int  # finished
    scores: dict[str, ImageScores]
    samples: Samples
    result: dict[str, Any]  # as written to metrics.json


def main(positional: list[str]) -> int:
    """Evaluates every run folder given."""
    if not WORKDIR.value:
        raise InputError("--workdir: at least one run folder is needed, such as runs/e2e")
    workdirs = [Path(folder) for folder in (WORKDIR.value, *positional)]
    _require_comparable(workdirs)

    runs = {
        name: evaluate_run(workdir, samples=SAMPLES.value, data_dir=DATA_DIR.value)
        for name, workdir in zip(_names(workdirs), workdirs, strict=True)
    }
    text = comparison_table(runs)
    print(text)
    if len(workdirs) > 1 or OUTPUT.value:
        output = Path(OUTPUT.value) if OUTPUT.value else workdirs[0].parent
        output.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(output / "comparison.md", text + "\n")
        results = {name: run.result for name, run in runs.items()}
        run_folder.write_json(output / "comparison.json", results)
        plots.plot_comparison(
            {name: run.samples for name, run in runs.items()}, output / "comparison.png"
        )
        print(f"written: {output}/comparison.md, .json, .png; metrics.json, figure.png per run")
    else:
        print(f"written: {workdirs[0]}/metrics.json, scores.npz, masks.npy and figure.png")
    return 0


def evaluate_run(workdir: Path, *, samples: int = 4, data_dir: str = "") -> Evaluated:
    """Scores one run on its test images and writes its metrics.json, scores.npz and figure.png.

    Args:
        workdir: Its run folder.
        samples: Number of test scenes in the figure.
        data_dir: Where its data lie now; empty for where they were when it was trained.

    Raises:
        InputError: If it is no run, has no readable checkpoint, or its data have changed.
    """
    record = run_folder.read_run(workdir)
    run = config.from_dict(record["config"])
    run.data.dir = data_dir or run.data.dir
    dataset = sources.load(**config.data_arguments(run))
    recorded = record["digests"]["data"]
    if dataset.digest != recorded:
        raise InputError(
            f"{workdir}: its data have changed (digest {dataset.digest[:12]}, trained on "
            f"{recorded[:12]}); give --data_dir with the data it was trained on"
        )
    batch_size = runtime.choose_eval_batch(
        run.train.eval_batch_size, size=run.data.size, features=run.net.widths[0]
    )
    mesh = make_mesh(runtime.choose_devices(0, batch_size))
    trained = load_trained(workdir, run, mesh=mesh)
    key = run_keys(run.seed).evaluation
    scores = evaluation.score_test_images(
        trained,
        dataset,
        size=run.data.size,
        scene=config.scene_arguments(run),
        batch_size=batch_size,
        key=key,
        mesh=mesh,
    )
    shown = evaluation.sample_outputs(
        # On one device, which takes any number of samples.
        trained._replace(system=make_system(**config.system_arguments(run))),
        dataset,
        size=run.data.size,
        scene=config.scene_arguments(run),
        count=min(samples, len(dataset.test)),
        key=key,
    )
    epochs = run_folder.epochs_done(workdir)
    result = {
        "regime": run.regime,
        "snapshots": run.masks.snapshots,
        "epochs": epochs,
        "checkpoint_step": trained.step,
        "checkpoint_digest": trained.digest,
        "scores": {name: summarise(score)._asdict() for name, score in scores.items()},
        "provenance": run_folder.provenance(),
    }
    run_folder.write_json(workdir / "metrics.json", result)
    per_image: dict[str, Any] = {
        f"{name}_{metric}": np.asarray(values)
        for name, score in scores.items()
        for metric, values in score._asdict().items()
    }
    np.savez(workdir / "scores.npz", **per_image)
    np.save(workdir / "masks.npy", np.asarray(wrap_phases(shown.phases)))
    title = f"{run.regime}, {run.masks.snapshots} snapshot(s): {_psnr(scores[RECOVERED])} dB"
    plots.plot_run(shown, workdir / "figure.png", title=title)
    return Evaluated(run, epochs, scores, shown, result)


def comparison_table(runs: dict[str, Evaluated]) -> str:
    """Lays out the scores of runs on the same test images, and the trivial answers below them.

    With an E2E run among several, every other one shows its gain over it, paired by image.
    """
    baseline = next((name for name, run in runs.items() if run.config.regime == Regime.E2E), None)
    compared = baseline if len(runs) > 1 else None
    header = ["run", "L", "PSNR (dB)", "pooled", "SSIM", "spectral estimate alone (dB)"]
    rows = []
    for name, run in runs.items():
        label = name
        if run.epochs < run.config.train.epochs:
            label += f" (after {run.epochs} of {run.config.train.epochs} epochs)"
        cells = _cells(run.scores[RECOVERED])
        rows.append([label, run.config.masks.snapshots, *cells, _psnr(run.scores[SPECTRAL])])
    trivial = next(iter(runs.values())).scores
    for label, kind in (("mean training image", MEAN_IMAGE), ("constant", CONSTANT)):
        rows.append([label, "", *_cells(trivial[kind]), ""])
    if compared is not None:
        header.append(f"gain over {compared} (dB)")
        reference = runs[compared].scores[RECOVERED]
        gains = [
            "" if name == compared else _plus_minus(*evaluation.paired_gain(score, reference))
            for name, score in [
                *((name, run.scores[RECOVERED]) for name, run in runs.items()),
                ("", trivial[MEAN_IMAGE]),
                ("", trivial[CONSTANT]),
            ]
        ]
        rows = [[*row, gain] for row, gain in zip(rows, gains, strict=True)]
    images = len(trivial[CONSTANT].mse)
    paired = "" if compared is None else "; gains are paired by image"
    note = (
        f"Mean ± standard error over {images:,} test images{paired}. Pooled: PSNR of the "
        "squared error averaged over all of them. The spectral estimate's global phase "
        "is taken from the truth. The errors say nothing about another random seed."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def _require_comparable(workdirs: list[Path]) -> None:
    """Refuses runs that one table must not hold, before the first of them is scored."""
    first, *others = [run_folder.read_run(workdir) for workdir in workdirs]
    for workdir in workdirs:
        checkpoint.require_checkpoint(workdir)
    for workdir, other in zip(workdirs[1:], others, strict=True):
        differing = config_fields.differences(
            config.from_dict(first["config"]),
            config.from_dict(other["config"]),
            only=("data.size", "scene."),
        )
        if first["digests"]["data"] != other["digests"]["data"]:
            digests = [record["digests"]["data"][:8] for record in (first, other)]
            differing.append(f"data or split: digest {digests[0]} against {digests[1]}")
        if differing:
            raise InputError(
                f"--workdir: one table holds runs of the same data and scene; {workdirs[0]} "
                f"against {workdir}: {'; '.join(differing)}; evaluate them apart"
            )


def _names(workdirs: list[Path]) -> list[str]:
    """Names runs by their folder, or by their whole path where two folders share a name."""
    short = [folder.resolve().name for folder in workdirs]
    return short if len(set(short)) == len(short) else [str(folder) for folder in workdirs]


def _cells(scores: ImageScores) -> list[str]:
    summary = summarise(scores)
    return [
        _psnr(scores),
        f"{summary.psnr_pooled:.2f}",
        f"{summary.ssim:.3f} ± {summary.ssim_error:.3f}",
    ]


def _psnr(scores: ImageScores) -> str:
    summary = summarise(scores)
    return f"{summary.psnr:.2f} ± {summary.psnr_error:.2f}"


def _plus_minus(gain: float, error: float) -> str:
    return f"{gain:+.2f} ± {error:.2f}"


if __name__ == "__main__":
    cli.run(main)
