"""The report of a study, made from its run folders alone, whether it is finished or not.

Every number is a mean over seeds with half the width of its 95 % interval. The report names the
results that are not there yet, and leaves their places open.
"""

from pathlib import Path
from typing import Any

from jax_kdpr.core import json_files
from jax_kdpr.core.document import Document
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.evaluation.scores import RECOVERED
from jax_kdpr.studies.declaration import (
    Study,
    Sweep,
    Table,
    difference_from_base,
    options_of_base,
)
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.results import Results, read_results
from jax_kdpr.studies.runner import FAILURES, FAILURES_FILE
from jax_kdpr.studies.sections import Place, add_section

# Options that the preface gives in words.
SAID = (
    *("data.source", "data.size", "data.train_images", "data.validation_images"),
    *("data.test_images", "train.epochs", "train.batch_size", "scene.kind"),
    *("spectral.iterations", "net.widths"),
)

REPORT_FILE = "report.json"
FIGURES = "section-*-*.png"
REPORT = {"title": str, "entries": dict, "train_seconds": dict, "figures": Maybe([str])}


def write_report(
    study: Study, runs: list[PlannedRun], workdir: Path, output: Path, *, command: str
) -> None:
    """Writes report.md, report.html, report.json and the figures.

    Args:
        study: The study.
        runs: All its runs, from `plan.plan`.
        workdir: The study's folder.
        output: Where to write.
        command: The command that made the runs, which the report names.
    """
    output.mkdir(parents=True, exist_ok=True)
    results = read_results(runs)
    numbers, path = _numbers(study, results), output / REPORT_FILE
    # Reports of earlier versions do not list their figures.
    earlier = json_files.read_json(path, REPORT).get("figures", []) if path.exists() else []
    json_files.write_json(path, numbers | {"figures": earlier})
    document = Document(output, study.title)
    for line in _preface(study, runs, results, command):
        document.paragraph(line)
    for number, section in enumerate(study.sections, start=1):
        document.heading(section.title)
        document.paragraph(section.question)
        present = {name: results[name] for name in section.reads() if results.get(name)}
        missing = [name for name in section.reads() if name not in present]
        if missing:
            document.paragraph(f"Not finished yet: {', '.join(missing)}.")
        if present:
            add_section(Place(study, document, workdir, f"section-{number}"), section, present)
    _add_runs(document, study, runs, workdir)
    document.write()
    json_files.write_json(path, numbers | {"figures": sorted(document.figures)})
    for figure in output.glob(FIGURES):
        if figure.name in set(earlier).difference(document.figures):  # of former sections
            figure.unlink()


def _preface(study: Study, runs: list[PlannedRun], results: Results, command: str) -> list[str]:
    finished = [result for found in results.values() for result in found]
    sessions = [session for result in finished for session in result.sessions]
    hours = sum(row["seconds"] for result in finished for row in result.curve) / 3600
    base = study.base
    lines = [
        f"Made by `{command}`: {len(finished)} of {len(runs)} runs, seeds "
        f"{', '.join(map(str, study.seeds))}, {hours:.2g} hours of training and validation.",
        f"Data: {base.data.source}, {base.data.size} x {base.data.size} pixels, "
        f"{_image_counts(study, results)}; {base.train.epochs} epoch(s) in batches of "
        f"{base.train.batch_size}{_steps(study, results)}; {base.scene.kind} scenes; "
        f"T = {base.spectral.iterations}; {base.net.kind} {'-'.join(map(str, base.net.widths))}.",
        "Numbers are means over seeds ± half the width of their 95 % interval (Student's t), of "
        "the mean PSNR and SSIM over the test images. A gain is the mean difference from the "
        "baseline of the same seed. Images better: share of the test images whose PSNR, averaged "
        "over seeds, is higher, with the p value of a Wilcoxon signed-rank test; it speaks of "
        "these trained systems only, the interval over seeds of others like them. Validation is "
        "the best epoch's, whose checkpoint is scored: choices between entries belong to it. Seeds "
        "differ in masks, network, order of the images and noise, and share the images themselves. "
        f"Comparisons in this report: {_comparisons(study, results)}. Of many intervals of 95 %, "
        "about one in twenty misses by chance.",
    ]
    special = options_of_base(study, said=SAID)
    if special:
        lines.append(f"Options of all runs that are not the default: {special}.")
    if study.refine:
        lines.append(
            f"Refined: what {study.refine} steps of error reduction from the network's image make "
            "of it, its global phase kept."
        )
    if sessions:
        facts = {
            "Commit": {session["commit"] for session in sessions},
            "Device": {", ".join(sorted(set(session["devices"]))) for session in sessions},
            "Processor": {
                f"{session.get('cpu', 'unknown')}, {session['cpu_count']} cores"
                for session in sessions
            },
            "JAX": {session["versions"]["jax"] for session in sessions},
        }
        times = sorted(session["time"] for session in sessions)
        said = [f"{name}: {', '.join(sorted(values))}" for name, values in facts.items()]
        lines.append(f"{'; '.join(said)}; from {times[0]} to {times[-1]}.")
    return lines


def _image_counts(study: Study, results: Results) -> str:
    """Returns the numbers of images in words; for the test images, how many were scored."""
    data = study.base.data
    scored = {
        int(result.scores[RECOVERED]["images"]) for found in results.values() for result in found
    }
    counts = {"training": data.train_images, "validation": data.validation_images}
    said = [f"{f'{count:,}' if count else 'all'} {name}" for name, count in counts.items()]
    test = " or ".join(f"{count:,}" for count in sorted(scored)) or "no"
    return f"{', '.join(said)} images, {test} test images scored"


def _steps(study: Study, results: Results) -> str:
    """Returns the steps of entries with the base's epochs, in words; "" if none has finished."""
    steps = {
        result.curve[-1]["step"]
        for name, found in results.items()
        for result in found
        if study.entries[name].longer == 1
    }
    return f" ({' or '.join(f'{count:,}' for count in sorted(steps))} steps)" if steps else ""


def _comparisons(study: Study, results: Results) -> int:
    """Counts the pairs of an entry and its baseline; a pair in two sections counts once."""
    pairs = set()
    for section in study.sections:
        if isinstance(section, Table | Sweep):
            against = section.baseline if isinstance(section, Table) else section.reference
            pairs |= {(name, against) for name in section.reads() if name != against}
    return sum(bool(results.get(name) and results.get(against)) for name, against in pairs)


def _add_runs(document: Document, study: Study, runs: list[PlannedRun], workdir: Path) -> None:
    rows = []
    for name, entry in study.entries.items():
        states = "; ".join(f"{run.seed}: {run.state}" for run in runs if run.entry == name)
        if states:
            changes = difference_from_base(study, name)
            rows.append([name, entry.label, changes, entry.teacher, states])
    document.heading("All runs")
    document.table(["entry", "label", "what it changes", "teacher", "seeds"], rows)
    path = workdir / FAILURES_FILE
    failures = json_files.read_json(path, FAILURES) if path.exists() else {}
    if failures:
        document.heading("Failed")
        document.table(["run", "why"], [list(failure) for failure in failures.items()])


def _numbers(study: Study, results: Results) -> dict[str, Any]:
    """Returns the report's numbers, seed by seed; times are apart, as they are never the same."""
    entries = {
        name: {
            "label": study.entries[name].label,
            "changes": difference_from_base(study, name),
            "teacher": study.entries[name].teacher,
            "seeds": {
                str(result.run.seed): {
                    "scores": result.scores,
                    "validation_psnr": [result.validated.get(row["epoch"]) for row in result.curve],
                    "commits": sorted({session["commit"] for session in result.sessions}),
                    "robustness": result.under_noise.get("scores"),
                    "robustness_rms": result.under_noise.get("rms"),
                    **({"optics": result.optics} if result.optics else {}),
                }
                for result in found
            },
        }
        for name, found in results.items()
    }
    times = {
        name: {str(result.run.seed): result.train_seconds for result in found}
        for name, found in results.items()
    }
    return {"title": study.title, "entries": entries, "train_seconds": times}
