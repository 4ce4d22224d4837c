"""Scores trained runs on their test images: `python -m jax_kdpr.evaluate --workdir RUN [RUN ...]`.

Writes metrics.json and figure.png into each run folder and prints one table. Several runs of the
same data give one table, also written, with a figure of the same scenes side by side, to --output.
"""

from pathlib import Path
from typing import Any

from absl import flags

from jax_kdpr import checkpoint, cli, config, evaluation, plots, run_folder
from jax_kdpr.data import sources
from jax_kdpr.errors import InputError
from jax_kdpr.evaluation import CONSTANT, MEAN_IMAGE, RECOVERED, SPECTRAL, Samples, Score
from jax_kdpr.physics.scenes import scene_channels
from jax_kdpr.trained import load_trained, run_keys

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for the table and figure of several runs; default: above the first run."
)
SAMPLES = flags.DEFINE_integer("samples", 4, "Test scenes in a figure.", lower_bound=1)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")


def main(positional: list[str]) -> int:
    """Evaluates every run folder given."""
    if not WORKDIR.value:
        raise InputError("--workdir: at least one run folder is needed, such as runs/e2e")
    workdirs = [Path(folder) for folder in (WORKDIR.value, *positional)]
    _require_same_data(workdirs)
    for workdir in workdirs:  # before the first of them is scored
        checkpoint.require_checkpoint(workdir)

    names = _names(workdirs)
    results: dict[str, dict[str, Any]] = {}
    samples: dict[str, Samples] = {}
    for name, workdir in zip(names, workdirs, strict=True):
        results[name], samples[name] = evaluate_run(workdir)
    text = _table(results)
    print(text)
    if len(workdirs) > 1:
        output = Path(OUTPUT.value) if OUTPUT.value else workdirs[0].parent
        output.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(output / "comparison.md", text + "\n")
        run_folder.write_json(output / "comparison.json", results)
        plots.plot_comparison(samples, output / "comparison.png")
        print(f"written: {output}/comparison.md, .json and .png; metrics.json, figure.png per run")
    else:
        print(f"written: {workdirs[0]}/metrics.json and figure.png")
    return 0


def evaluate_run(workdir: Path) -> tuple[dict[str, Any], Samples]:
    """Scores one run on its test images and writes its metrics.json and figure.png."""
    run = config.from_dict(run_folder.read_run(workdir)["config"])
    if DATA_DIR.value:
        run.data.dir = DATA_DIR.value
    dataset = sources.load(**config.data_arguments(run))
    recorded = run_folder.read_run(workdir)["digests"]["data"]
    if dataset.digest != recorded:
        raise InputError(
            f"{workdir}: its data have changed (digest {dataset.digest[:12]}, trained on "
            f"{recorded[:12]}); give --data_dir with the data it was trained on"
        )
    system, variables, digest, step = load_trained(workdir, run)
    channels = scene_channels(run.scene.kind)
    key = run_keys(run.seed).evaluation
    scores = evaluation.score_system(
        system,
        variables,
        dataset,
        size=run.data.size,
        scene={
            "kind": run.scene.kind,
            "phase_range": run.scene.phase_range,
            "min_amplitude": run.scene.min_amplitude,
            "channels": channels,
        },
        batch_size=run.train.eval_batch_size,
        key=key,
    )
    samples = evaluation.sample_outputs(
        system,
        variables,
        dataset,
        size=run.data.size,
        channels=channels,
        count=min(SAMPLES.value, len(dataset.test)),
        key=key,
    )
    result = {
        "regime": run.regime,
        "snapshots": run.masks.snapshots,
        "checkpoint_step": step,
        "checkpoint_digest": digest,
        "scores": {name: score._asdict() for name, score in scores.items()},
        "provenance": run_folder.provenance(),
    }
    run_folder.write_json(workdir / "metrics.json", result)
    title = f"{run.regime}, {run.masks.snapshots} snapshot(s): {_psnr(scores[RECOVERED])} dB"
    plots.plot_run(samples, workdir / "figure.png", title=title)
    return result, samples


def _require_same_data(workdirs: list[Path]) -> None:
    digests = {str(folder): run_folder.read_run(folder)["digests"]["data"] for folder in workdirs}
    if len(set(digests.values())) > 1:
        raise InputError(
            "--workdir: one table compares runs of the same data, split and image size, got "
            + ", ".join(f"{folder} ({digest[:8]})" for folder, digest in digests.items())
            + "; evaluate them apart"
        )


def _names(workdirs: list[Path]) -> list[str]:
    """Names runs by their folder, or by their whole path where two folders share a name."""
    short = [folder.resolve().name for folder in workdirs]
    return short if len(set(short)) == len(short) else [str(folder) for folder in workdirs]


def _table(results: dict[str, dict[str, Any]]) -> str:
    header = ["run", "L", "PSNR (dB)", "pooled PSNR", "SSIM", "its spectral estimate alone (dB)"]
    rows = []
    for name, result in results.items():
        scores = {kind: Score(**score) for kind, score in result["scores"].items()}
        rows.append(
            [name, result["snapshots"], *_cells(scores[RECOVERED]), _psnr(scores[SPECTRAL])]
        )
    trivial = next(iter(results.values()))["scores"]
    for name, kind in (("mean image of the data", MEAN_IMAGE), ("constant", CONSTANT)):
        rows.append([name, "", *_cells(Score(**trivial[kind])), ""])
    images = trivial[RECOVERED]["images"]
    return cli.table(header, rows) + f"\n\nMean ± standard error over {images:,} test images."


def _cells(score: Score) -> list[str]:
    return [
        _psnr(score),
        f"{score.psnr_pooled:.2f}",
        f"{score.ssim:.3f} ± {score.ssim_error:.3f}",
    ]


def _psnr(score: Score) -> str:
    return f"{score.psnr:.2f} ± {score.psnr_error:.2f}"


if __name__ == "__main__":
    cli.run(main)
