"""One self-contained page about runs: their options, training, recoveries and scores.

`write_page` reads the files that `train`, `evaluate` and `tolerance` left in the run folders, and
says what is missing. `list_runs` makes a table of all runs below a folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files
from jax_kdpr.core.document import Document
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.options import flatten
from jax_kdpr.data.batches import take_batch
from jax_kdpr.data.pages.stacks import read_arrays
from jax_kdpr.evaluation import pictures, plots
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.scores import RECOVERED, Samples, sample_outputs
from jax_kdpr.evaluation.scoring import (
    IMAGE_SCORES_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
    read_image_psnr,
    read_samples,
)
from jax_kdpr.evaluation.tolerance import UNITS
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_camera
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.runs.run import load_run, run_keys

READ = (SCORES_FILE, IMAGE_SCORES_FILE, SAMPLES_FILE)  # files of `evaluate` that are read
TOLERANCE_FILE = "tolerance.json"
TOLERANCE = {"spreads": dict, "runs": {str: {"design_psnr": float, "curves": dict}}}
NOT_TERMS = ("train_total", "train_seconds")  # fields of a row that are not loss terms
RMS = f"{RECOVERED}_rms"  # in scores.npz
OF_SCORES = {"psnr": float, "psnr_error": float, "rms": float}
FIGURES = "report-*.png"
DIGEST = "checkpoint_digest"
SCORED = {DIGEST: str, "scores": {RECOVERED: OF_SCORES}}  # what is read from metrics.json


class Known(NamedTuple):
    """What the files of one run folder say."""

    workdir: Path
    config: Config
    rows: list[dict[str, Any]]  # of metrics.jsonl
    sessions: list[dict[str, Any]]  # of run.json
    scores: dict[str, float]  # of the recovered test images; empty before `evaluate`
    scored: str  # digest of the checkpoint with these scores

    @property
    def best(self) -> float | None:
        """Best validation PSNR, dB."""
        return max((row[SCORE] for row in self.validated), default=None)

    @property
    def validated(self) -> list[dict[str, Any]]:
        """Rows of epochs with a validation PSNR; `adapt` to single shots has only a misfit."""
        return [row for row in self.rows if SCORE in row and "validation_misfit" not in row]

    @property
    def cells(self) -> list[Any]:
        """Its row of the table, without its name."""
        seconds = sum(row["seconds"] for row in self.rows)
        epochs = self.rows[-1]["epoch"] if self.rows else 0
        tested, rms = "", ""
        if self.scores:
            tested = f"{self.scores['psnr']:.2f} ± {self.scores['psnr_error']:.2f}"
            rms = f"{self.scores['rms']:.3f}"
        return [
            self.config.regime,
            self.config.masks.snapshots,
            self.config.data.size,
            f"{epochs} of {self.config.train.epochs}",
            "" if self.best is None else f"{self.best:.2f}",
            tested,
            rms,
            f"{seconds / 60:.1f}",
            self.sessions[-1]["time"][:16].replace("T", " "),
        ]


HEADER = ["run", "regime", "L", "pixels", "epochs", "best validation (dB)", "test (dB)"]
HEADER += ["test, rms", "minutes", "last session"]


def read_known(workdir: Path) -> Known:
    """Reads what is known of a run.

    Raises:
        InputError: If it is no run, or a file of it is damaged.
    """
    config = run_folder.read_config(workdir)
    sessions = run_folder.read_run(workdir)["sessions"]
    file, found = workdir / SCORES_FILE, {}
    if file.exists():
        found = json_files.read_json(file, SCORED, remedy="run evaluate again")
    scores, digest = found.get("scores", {}).get(RECOVERED, {}), found.get(DIGEST, "")
    return Known(workdir, config, run_folder.read_metrics(workdir), sessions, scores, digest)


def find_runs(folder: Path) -> Iterator[Path]:
    """Yields the run folders below a folder, or the folder if it is one itself, sorted by name."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        if run_folder.RUN_FILE in files:
            folders.clear()  # no run lies in another
            yield Path(place)


def list_runs(folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Returns header and rows of a table of all runs below a folder, best validation PSNR first.

    A run that cannot be read has a row that says why.
    """
    found, damaged = [], []
    for workdir in find_runs(folder):
        name = str(workdir.relative_to(folder))
        try:
            known = read_known(workdir)
        except InputError as failure:
            damaged.append([name, f"cannot be read: {failure}", *[""] * (len(HEADER) - 2)])
        else:
            found.append((known.best, [name, *known.cells]))
    found.sort(key=lambda one: -np.inf if one[0] is None else one[0], reverse=True)
    return HEADER, [row for _, row in found] + damaged


def write_page(
    runs: dict[str, Known], output: Path, *, scenes: int = 3, data_dir: str = ""
) -> list[str]:
    """Writes report.html and report.md, with their figures, into an existing folder.

    Args:
        runs: The runs by name.
        output: The folder.
        scenes: How many of the best scenes, and of the worst, are recovered again and shown.
        data_dir: Where the data of the runs are now, if they have moved.

    Returns:
        What could not be shown, and why.
    """
    document = Document(output, f"Run {next(iter(runs))}" if len(runs) == 1 else "Runs")
    document.table(HEADER, [[name, *known.cells] for name, known in runs.items()])
    document.paragraph(
        "PSNR is that of the image in [0, 1], mean over images ± standard error; rms that of the "
        "object, of phases in radians, the mean error of each image taken away."
    )
    _add_options(document, runs)
    _add_curves(document, runs)
    scored = {
        name: known
        for name, known in runs.items()
        if all((known.workdir / file).exists() for file in READ)
    }
    missing = [
        f"{name}: not evaluated; python -m jax_kdpr.evaluate --workdir {known.workdir}"
        for name, known in runs.items()
        if name not in scored
    ]
    if scored:
        _add_masks_and_samples(document, scored)
        psnr = {name: read_image_psnr(known.workdir) for name, known in scored.items()}
        _add_errors(document, scored, psnr)
        missing += _add_extremes(document, scored, psnr, scenes, data_dir)
    _add_tolerances(document, runs)
    document.heading("How it was made")
    session = ["run", "session", "commit", "jax", "devices"]
    made = [
        [name, s["time"], s["commit"], s["versions"]["jax"], ", ".join(s["devices"])]
        for name, known in runs.items()
        for s in known.sessions
    ]
    document.table(session, made)
    for line in missing:
        document.paragraph(line)
    document.write()
    return missing


def _add_options(document: Document, runs: dict[str, Known]) -> None:
    """Adds the options that are not at their defaults, those in which the runs differ first."""
    default = flatten(Config())
    given = {name: flatten(known.config) for name, known in runs.items()}
    rows = []
    for path, value in default.items():
        values = [one.get(path) for one in given.values()]
        if any(one != value for one in values):
            differ = any(one != values[0] for one in values)
            rows.append((not differ, [path, *map(_shown, values), _shown(value)]))
    document.heading("Options that are not at their defaults")
    document.table(
        ["option", *runs, "default"], [row for _, row in sorted(rows, key=lambda one: one[0])]
    )


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _add_curves(document: Document, runs: dict[str, Known]) -> None:
    document.heading("Training")
    psnr = {name: _line(known.validated, SCORE) for name, known in runs.items() if known.validated}
    label = {"x_label": "epoch", "markers": False}
    if psnr:
        plots.plot_lines(psnr, document.folder / "report-validation.png", **label)
        document.picture("report-validation.png", "PSNR of the validation images, by epoch")
    if not any(known.rows for known in runs.values()):
        document.paragraph("No epoch has ended yet.")
        return
    terms = {}
    for name, known in runs.items():
        for term in known.rows[-1] if known.rows else ():
            if term.startswith("train_") and term not in NOT_TERMS:
                words = term.removeprefix("train_") if len(runs) == 1 else f"{name}, {term[6:]}"
                terms[words] = _line(known.rows, term)
    kept = {name: line for name, line in terms.items() if any(value > 0 for value in line.y)}
    file = document.folder / "report-losses.png"
    plots.plot_lines(kept, file, y_label="loss term, unweighted", log_y=True, **label)
    document.picture("report-losses.png", "Loss terms, epoch by epoch")


def _line(rows: list[dict[str, Any]], name: str) -> Line:
    having = [row for row in rows if row.get(name) is not None]
    return Line([row["epoch"] for row in having], [row[name] for row in having])


def _add_masks_and_samples(document: Document, runs: dict[str, Known]) -> None:
    samples = {name: read_samples(known.workdir) for name, known in runs.items()}
    document.heading("Masks")
    masks = {name: np.asarray(one.phases) for name, one in samples.items()}
    pictures.plot_masks(masks, document.folder / "report-masks.png")
    document.picture("report-masks.png", "First mask, its spectrum, and the phases of all masks")
    document.heading("First test scenes")
    for number, (name, one) in enumerate(samples.items()):
        _draw(document, f"report-samples-{number}.png", name, one, runs[name].config)


def _draw(document: Document, file: str, title: str, samples: Samples, config: Config) -> None:
    pictures.plot_run(
        samples,
        document.folder / file,
        scene=config.scene,
        axis=build_camera(config).axis,
        title=title,
        pitch=config.propagation.pitch,
        masks=False,
    )
    document.picture(file, f"{title}: pattern, estimate, scene, recovery and error")


def _add_errors(document: Document, runs: dict[str, Known], psnr: dict[str, np.ndarray]) -> None:
    document.heading("Errors, image by image")
    rms = {
        name: read_arrays(known.workdir / IMAGE_SCORES_FILE, [RMS])[RMS]
        for name, known in runs.items()
    }
    header = ["run", "images", "PSNR (dB): 5 %", "median", "95 %", "rms: 5 %", "median", "95 %"]
    rows = []
    for name in runs:
        low = [f"{value:.2f}" for value in np.percentile(psnr[name], (5, 50, 95))]
        rows.append([name, len(psnr[name]), *low])
        rows[-1] += [f"{value:.3f}" for value in np.percentile(rms[name], (5, 50, 95))]
    document.table(header, rows)
    words = rms_header(next(iter(runs.values())).config.scene.kind)
    panels = {"PSNR (dB)": psnr, words: rms}
    plots.plot_histograms(panels, document.folder / "report-errors.png", y_label="test images")
    document.picture("report-errors.png", "Histograms over the test images")


def _add_extremes(
    document: Document,
    runs: dict[str, Known],
    psnr: dict[str, np.ndarray],
    scenes: int,
    data_dir: str,
) -> list[str]:
    """Adds the best and worst test scenes of each run, recovered again; returns what is missing."""
    document.heading("Best and worst scenes")
    missing = []
    for number, (name, known) in enumerate(runs.items()):
        try:
            run = load_run(known.workdir, data_dir=data_dir)
            test, camera = run.dataset.test, run.camera
        except InputError as failure:
            missing.append(f"{name}: its best and worst scenes are not shown: {failure}")
            document.paragraph(missing[-1])
            continue
        if known.scored != run.digest:
            missing.append(f"{name}: trained on since it was evaluated; run evaluate again")
        order = np.argsort(psnr[name])[::-1]
        count = min(scenes, -(-len(order) // 2))
        chosen = order[np.unique(np.r_[:count, len(order) - count : len(order)])]
        shape = {"size": camera.size, "channels": camera.channels}
        images = take_batch(test, jnp.asarray(chosen), **shape)
        samples = sample_outputs(run, images, key=run_keys(run.config.seed).evaluation)
        is_same = run.config.noise.kind == "none" and run.config.jitter.is_none
        noisy = "" if is_same else "; noise and errors of the bench drawn anew"
        title = f"{name}: the {count} best of {len(order):,} test images, then the {count} worst"
        _draw(document, f"report-extremes-{number}.png", f"{title}{noisy}", samples, run.config)
    return missing


def _add_tolerances(document: Document, runs: dict[str, Known]) -> None:
    """Adds the results of `tolerance`, where it has been run."""
    found: dict[str, dict[str, Any]] = {}
    for name, known in runs.items():
        file = known.workdir / TOLERANCE_FILE
        if file.exists():
            of_file = json_files.read_json(file, TOLERANCE, remedy="run tolerance again")["runs"]
            for other, one in of_file.items():  # of this run, or of several
                found[name if len(of_file) == 1 else f"{name}: {other}"] = one
    if not found:
        return
    document.heading("Errors of the bench")
    kinds = list(dict.fromkeys(kind for one in found.values() for kind in one["curves"]))
    panels = {}
    for kind in kinds:
        panels[f"{kind} ({UNITS[kind]})"] = {
            name: Line([float(x) for x in one["curves"][kind]], list(one["curves"][kind].values()))
            for name, one in found.items()
            if kind in one["curves"]
        }
    if panels:
        plots.plot_panels(panels, document.folder / "report-tolerance.png")
        document.picture("report-tolerance.png", "PSNR under one error of the bench at a time")
    rows = []
    for name, one in found.items():
        share = one.get("yield")
        good = "" if not share else f"{share['share']:.0%} of {share['benches']}"
        least = "" if not share else f"{share['threshold']:.2f}"
        rows.append([name, f"{one['design_psnr']:.2f}", good, least])
    document.table(["run", "as designed (dB)", "random benches good enough", "from (dB)"], rows)
