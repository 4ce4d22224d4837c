"""Scores trained runs on their test images: `python -m jax_kdpr.evaluate --workdir RUN [RUN ...]`.

Writes metrics.json, scores.npz (image by image), samples.npz (a few scenes and their recovery),
figure.png and masks.npy (phases in [0, 2 pi) as [k h w]; mask l multiplies the field by
e^{-j phase}) into each run folder and prints one table.
--refine N also scores what N steps of error reduction make of the network's image: a great deal
without noise, and harm at an SNR of 20 dB; --refine_with names another solver, and --refine_tv the
weight of its total-variation prior, which noisy measurements want.
--solvers raar,hio adds what classical solvers make of the same CDPs without any network, started
from the spectral estimate (`python -m jax_kdpr.solve` does more with them).
Several runs of the same data and scene give one table, also written, with a figure of the same
scenes side by side, to --output.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.config.schema import Regime
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core import options as config_fields
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import ImageScores, rms_header
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import (
    CONSTANT,
    MEAN_IMAGE,
    RECOVERED,
    REFINED,
    SOLVED,
    SPECTRAL,
    summarise,
)
from jax_kdpr.evaluation.scoring import FILES, SCORES, SCORES_FILE, Evaluated, score_run
from jax_kdpr.interface import cli, refine_flags
from jax_kdpr.recovery import refinement as classical
from jax_kdpr.recovery.solvers import SOLVERS
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the table and figure of several runs, and for the files of runs that may not be "
    "written to; default: above the first run.",
)
SAMPLES = flags.DEFINE_integer(
    "samples", 4, "Test scenes in a figure.", lower_bound=1, upper_bound=100
)
flags.adopt_module_key_flags(refine_flags)
SOLVING = flags.DEFINE_list(
    "solvers", [], f"Solvers to score from the spectral estimate: {', '.join(SOLVERS)}."
)
SOLVER_STEPS = flags.DEFINE_integer(
    "solver_steps", 200, "Steps of --solvers.", lower_bound=1, upper_bound=1_000_000
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")


def main(positional: list[str]) -> int:
    """Evaluates every run folder given."""
    named = cli.run_folders(WORKDIR.value, positional)
    workdirs = list(named.values())
    solvers = classical.solver_names("--solvers", SOLVING.value)
    refinement = refine_flags.read_refinement()
    if SOLVER_STEPS.value != SOLVER_STEPS.default and not solvers:
        raise InputError("--solver_steps: nothing would read it; give --solvers too")
    _require_comparable(workdirs)
    output = Path(OUTPUT.value) if OUTPUT.value else workdirs[0].parent
    if len(workdirs) > 1 or OUTPUT.value:
        json_files.require_own(
            *("--output", output / "comparison.json", {str: SCORES}),
            command="evaluate",
            beside=("comparison.md", "comparison.png"),
        )
        cli.make_folder("--output", output)
    places = {
        name: _place(name, workdir, output if OUTPUT.value else None)
        for name, workdir in named.items()
    }

    runs = {
        name: score_run(
            workdir,
            output=places[name],
            samples=SAMPLES.value,
            refinement=refinement,
            solvers=solvers,
            solver_steps=SOLVER_STEPS.value,
            data_dir=DATA_DIR.value,
        )
        for name, workdir in named.items()
    }
    text = comparison_table(runs)
    if len(workdirs) > 1 or OUTPUT.value:
        results = {name: run.result for name, run in runs.items()}
        json_files.write_json(output / "comparison.json", results)
        whole_files.write_text(output / "comparison.md", text + "\n")
        first = next(iter(runs.values())).config
        pictures.plot_comparison(
            {name: run.samples for name, run in runs.items()},
            output / "comparison.png",
            scene=config_fields.shallow(first.scene),
            pitch=first.propagation.pitch,
        )
    print(text)
    for name, run in runs.items():
        if summarise(run.scores[RECOVERED]).psnr < summarise(run.scores[MEAN_IMAGE]).psnr:
            print(
                f"warning: {name} is worse than the mean training image: it needs more steps "
                "(train.epochs, or a smaller train.batch_size)",
                file=sys.stderr,
            )
        elif summarise(run.scores[RECOVERED]).psnr < summarise(run.scores[SPECTRAL]).psnr:
            steps = (
                ", or with spectral.consistency_steps=10"
                if not run.config.spectral.consistency_steps
                else ""
            )
            print(
                f"note: {name} is worse than its own input with the true global phase (and whole "
                f"turns, if any), which no measurement tells: train longer (train.epochs){steps}",
                file=sys.stderr,
            )
    if len(workdirs) > 1 or OUTPUT.value:
        print(f"written: {output}/comparison.md, .json, .png")
    for place in places.values():
        print(f"written: {place}/{', '.join(FILES)}")
    return 0


def _place(name: str, workdir: Path, output: Path | None) -> Path:
    """Returns where a run's files go: its folder or, if that may not be written, one in --output.

    Raises:
        InputError: If it may not be written, and there is no --output, or one with other files.
    """
    try:
        run_folder.require_writable("--workdir", workdir)
    except InputError as refused:
        if output is None:
            raise InputError(
                f"--workdir: {str(workdir)!r} cannot be written to; name a folder for the results "
                "by --output"
            ) from refused
        place = output / name
        json_files.require_own(
            "--output", place / SCORES_FILE, SCORES, command="evaluate", beside=FILES
        )
        cli.make_folder("--output", place)
        return place
    return workdir


def comparison_table(runs: dict[str, Evaluated]) -> str:
    """Lays out the scores of runs on the same test images, and the trivial answers below them.

    With an E2E run among several, every other one shows its gain over it, paired by image.
    """
    baseline = next((name for name, run in runs.items() if run.config.regime == Regime.E2E), None)
    compared = baseline if len(runs) > 1 else None
    rms = rms_header(next(iter(runs.values())).config.scene.kind)
    header = ["run", "L", "PSNR (dB)", "pooled", rms, "SSIM", "network's input alone (dB)"]
    steps = {run.result["refine"] for run in runs.values()} - {0}
    if steps:
        header.append(f"refined, {', '.join(map(str, sorted(steps)))} steps (dB)")
    rows, scored = [], []
    for name, run in runs.items():
        label = name
        if run.epochs < run.config.train.epochs:
            label += f" (after {run.epochs} of {run.config.train.epochs} epochs)"
        cells = _cells(run.scores[RECOVERED])
        rows.append([label, run.config.masks.snapshots, *cells, _psnr(run.scores[SPECTRAL])])
        if steps:
            rows[-1].append(_psnr(run.scores[REFINED]))
        scored.append(run.scores[RECOVERED])
    trivial = next(iter(runs.values())).scores
    others = [("mean training image", "", trivial[MEAN_IMAGE]), ("constant", "", trivial[CONSTANT])]
    solved = _solver_rows(runs)
    for label, shots, scores in (*others, *solved):
        rows.append([label, shots, *_cells(scores), *[""] * (1 + bool(steps))])
        scored.append(scores)
    if compared is not None:
        header.append(f"gain over {compared} (dB)")
        reference = runs[compared].scores[RECOVERED]
        for row, scores in zip(rows, scored, strict=True):
            gain = _plus_minus(*evaluation.paired_gain(scores, reference))
            row.append("" if scores is reference else gain)
    images = len(trivial[CONSTANT].mse)
    paired = "" if compared is None else "; gains are paired by image"
    note = (
        f"Mean ± standard error over {images:,} test images{paired}. Pooled: PSNR of the "
        "squared error averaged over all of them. rms: over the object, the mean error of each "
        "image taken away. The global phase of the network's input, and whole turns where the "
        "phase range leaves them open, are taken from the truth. The errors say nothing about "
        "another random seed."
    )
    refined = [run.result for run in runs.values() if run.result["refine"]]
    solvers = {result["refine_with"] for result in refined}
    if solvers - {"error_reduction"}:
        note += f" Refined with {', '.join(sorted(solvers))}, from the network's image."
    priors = {result["refine_tv"] for result in refined} - {0.0}
    if priors:
        note += f" Weight of the total variation: {', '.join(f'{tv:g}' for tv in sorted(priors))}."
    if solved:
        count = next(iter(runs.values())).result["solver_steps"]
        note += (
            f" Solvers have the CDPs of the run in brackets, no network, and {count} steps from "
            "its spectral estimate; their global phase is taken from the truth too."
        )
    return f"{markdown_table(header, rows)}\n\n{note}"


def _solver_rows(runs: dict[str, Evaluated]) -> list[tuple[str, int, ImageScores]]:
    """Returns label, number of shots and scores of each solver on each run's CDPs."""
    return [
        (f"{answer.removeprefix(SOLVED)} ({name})", run.config.masks.snapshots, scores)
        for name, run in runs.items()
        for answer, scores in run.scores.items()
        if answer.startswith(SOLVED)
    ]


def _require_comparable(workdirs: list[Path]) -> None:
    """Refuses runs that one table must not hold, before the first of them is scored."""
    first, *others = [run_folder.read_run(workdir) for workdir in workdirs]
    for workdir in workdirs:
        checkpoint.require_checkpoint(workdir)
    for workdir, other in zip(workdirs[1:], others, strict=True):
        differing = config_fields.differences(
            run_folder.read_config(workdirs[0]),
            run_folder.read_config(workdir),
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


def _cells(scores: ImageScores) -> list[str]:
    summary = summarise(scores)
    return [
        _psnr(scores),
        f"{summary.psnr_pooled:.2f}",
        f"{summary.rms:.3f} ± {summary.rms_error:.3f}",
        f"{summary.ssim:.3f} ± {summary.ssim_error:.3f}",
    ]


def _psnr(scores: ImageScores) -> str:
    summary = summarise(scores)
    return f"{summary.psnr:.2f} ± {summary.psnr_error:.2f}"


def _plus_minus(gain: float, error: float) -> str:
    return f"{gain:+.2f} ± {error:.2f}"


if __name__ == "__main__":
    cli.run(main)
