"""Adds the sections of each kind to a study's report, with their figures."""

import datetime
import math
from pathlib import Path
from typing import NamedTuple

from jax_kdpr.core import json_files
from jax_kdpr.core.document import Document
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.data.pages.opening import read_stack
from jax_kdpr.evaluation import alone, pictures, plots
from jax_kdpr.evaluation.plots import Line, Point
from jax_kdpr.evaluation.scores import CONSTANT, MEAN_IMAGE, RECOVERED, REFINED, SPECTRAL
from jax_kdpr.evaluation.scoring import MASKS_FILE, read_samples
from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Section, Study
from jax_kdpr.studies.results import Results, SeedResult, gain, paired, quality
from jax_kdpr.studies.runner import COSTS, COSTS_FILE, FRAMES, FRAMES_FILE
from jax_kdpr.studies.statistics import Estimate, over_seeds

OPEN = "–"  # stands for what has not been measured


class Place(NamedTuple):
    """Where a section goes."""

    study: Study
    document: Document
    workdir: Path  # of the study
    stem: str  # of its figures

    def label(self, name: str) -> str:
        """Returns the label of an entry, for tables and legends."""
        return self.study.entries[name].label

    def picture(self, kind: str, caption: str) -> None:
        """Adds a figure that was drawn into `file(kind)`."""
        self.document.picture(self.file(kind).name, caption)

    def file(self, kind: str) -> Path:
        """Returns the file of a figure."""
        return self.document.folder / f"{self.stem}-{kind}.png"


def add_section(place: Place, section: Section, results: Results) -> None:
    """Adds what a section shows of the entries that have finished runs.

    Args:
        place: Where it goes.
        section: One of the study's.
        results: Results of the entries that the section reads; none of them is empty.
    """
    match section:
        case declaration.Table():
            _table(place, section, results)
        case declaration.Sweep():
            _sweep(place, section, results)
        case declaration.Samples():
            shown = {
                place.label(name): read_samples(runs[0].run.workdir).shown
                for name, runs in results.items()
            }
            scene = place.study.base.scene
            pictures.plot_comparison(shown, place.file("samples"), scene=scene)
            place.picture("samples", section.title)
        case declaration.Curves():
            _curves(place, results)
        case declaration.Masks():
            phases = {
                place.label(name): read_stack(runs[0].run.workdir / MASKS_FILE)
                for name, runs in results.items()
            }
            pictures.plot_masks(phases, place.file("masks"))
            place.picture("masks", section.title)
        case declaration.Robustness():
            _robustness(place, section, results)
        case declaration.Optics():
            _optics(place, section, results)
        case declaration.Costs():
            _costs(place, section, results)
        case declaration.Front():
            _front(place, results)


def _table(place: Place, section: declaration.Table, results: Results) -> None:
    baseline, refine = results.get(section.baseline), place.study.refine
    header = ["system", "seeds", "validation (dB)", *_scores_header(place.study)]
    header += ["network's input (dB)"] + [f"refined, {refine} steps (dB)"] * bool(refine)
    header += ["paper: PSNR / SSIM"] * bool(section.paper)
    header += [f"gain over {place.label(section.baseline)} (dB)", "images better (p)"]
    rows = []
    for name in section.entries:
        runs = results.get(name)
        if runs is None:
            continue
        validation = over_seeds([run.validation_psnr for run in runs])
        row = [place.label(name), len(runs), validation.text(), *_scores(runs)]
        row += [quality(runs, answer=a).text() for a in (SPECTRAL, REFINED)[: 1 + bool(refine)]]
        if section.paper:
            paper = section.paper.get(name)
            row.append(f"{paper[0]:.2f} / {paper[1]:.3f}" if paper else OPEN)
        compared = gain(runs, baseline) if baseline and name != section.baseline else None
        if compared is not None:
            share, p = compared.images
            said = "p < 1e-3" if p < 1e-3 else f"p = {p:.3f}"
            row += [compared.psnr.text("+.2f"), f"{100 * share:.0f} % ({said})"]
        rows.append(row)
    some = next(iter(results.values()))[:1]
    for label, answer in (("mean training image", MEAN_IMAGE), ("constant", CONSTANT)):
        rows.append([label, "", "", *_scores(some, answer)])
    place.document.table(header, [row + [""] * (len(header) - len(row)) for row in rows])
    if section.paper:
        place.document.paragraph(
            "The paper's numbers are of 96 x 96 pixels, 30,000 images and 120 epochs; at another "
            "scale only the order of the rows can be compared."
        )


def _scores_header(study: Study) -> list[str]:
    return ["PSNR (dB)", rms_header(study.base.scene.kind), "SSIM"]


def _scores(runs: list[SeedResult], answer: str = RECOVERED) -> list[str]:
    """Returns the cells of `_scores_header`."""
    return [
        quality(runs, answer=answer).text(),
        quality(runs, answer=answer, metric="rms").text(".3f"),
        quality(runs, answer=answer, metric="ssim").text(".3f"),
    ]


def _line(x: list[float], estimates: list[Estimate]) -> Line:
    return Line(x, [one.mean for one in estimates], [one.half_width for one in estimates])


def _sweep(place: Place, section: declaration.Sweep, results: Results) -> None:
    reference = results.get(section.reference)
    drawn, rows = {}, []
    for label, points in section.lines.items():
        found = {value: results[name] for value, name in points.items() if name in results}
        if found:
            drawn[label] = _line(list(found), [quality(runs) for runs in found.values()])
        for value, runs in found.items():
            is_other = reference and points[value] != section.reference
            compared = gain(runs, reference) if reference and is_other else None
            against = compared.psnr.text("+.2f") if compared else ""
            rows.append([label, f"{value:g}", len(runs), *_scores(runs), against])
    name = place.label(section.reference) if reference else ""
    line = (name, quality(reference).mean) if reference else None
    plots.plot_lines(drawn, place.file("sweep"), x_label=section.axis, reference=line)
    header = ["", section.axis, "seeds", *_scores_header(place.study)]
    place.document.table([*header, f"gain over {name} (dB)" if name else ""], rows)
    place.picture("sweep", section.title)
    if section.paper:
        place.document.paragraph(f"The paper: {section.paper}")


def _curves(place: Place, results: Results) -> None:
    drawn, rows = {}, []
    for name, runs in results.items():
        curves = [run.validated for run in runs]
        epochs = [epoch for epoch in curves[0] if all(epoch in curve for curve in curves)]
        means = [over_seeds([curve[epoch] for curve in curves]) for epoch in epochs]
        drawn[place.label(name)] = _line([float(epoch) for epoch in epochs], means)
        terms = [
            over_seeds([run.curve[-1][f"train_{term}"] for run in runs]).mean
            for term in ("task", "mask", "cdp", "feature")
        ]
        rows.append([place.label(name), *[f"{term:.3g}" for term in terms]])
    plots.plot_lines(
        drawn,
        place.file("curves"),
        x_label="epoch",
        y_label="validation PSNR (dB)",
        markers=False,
    )
    place.picture("curves", "Validation PSNR over the training")
    place.document.table(["loss terms in the last epoch", "task", "mask", "CDP", "feature"], rows)


def _robustness(place: Place, section: declaration.Robustness, results: Results) -> None:
    place.document.paragraph(
        f"PSNR in dB, and rms over the object, of the first {section.images:,} test images. "
        "Rows share seeds and images: two of them may differ by less than their intervals, and "
        "still be told apart."
    )
    for kind, axis, levels in (
        ("gaussian", "SNR of the CDP (dB)", section.snr_db),
        ("poisson", "photons a shot", section.photons),
    ):
        places = [*((kind, f"{level:g}") for level in levels), ("none", "0")]
        drawn, rows, errors = {}, [], []
        for name, runs in results.items():
            for answer in (RECOVERED, REFINED)[: 1 + bool(place.study.refine)]:
                label = place.label(name) + ", refined" * (answer == REFINED)
                psnr, rms = (
                    [
                        over_seeds([run.under_noise[table][answer][k][level] for run in runs])
                        for k, level in places
                    ]
                    for table in ("scores", "rms")
                )
                drawn[label] = _line(list(levels), psnr[:-1])
                rows.append([label, *(one.text(".1f") for one in psnr)])
                errors.append([label, *(one.text(".3f") for one in rms)])
        plots.plot_lines(drawn, place.file(kind), x_label=axis, log_x=kind == "poisson")
        header = [*(f"{level:g}" for level in levels), "no noise"]
        rms = f"{rms_header(place.study.base.scene.kind)}; {axis}"
        place.document.table([axis, *header], rows)
        place.document.table([rms, *header], errors)
        place.picture(kind, f"{section.title}: {axis}")


def _optics(place: Place, section: declaration.Optics, results: Results) -> None:
    rows = []
    baseline = results.get(section.baseline, [])
    for name, runs in results.items():
        cells = [place.label(name), len(runs)]
        for answer in (*alone.PSNR, *alone.BOUNDS):
            values = [run.optics[answer] for run in runs]
            known = [value for value in values if value is not None]
            cells.append(over_seeds(known).text() if len(known) == len(runs) else OPEN)
        pairs = paired(runs, baseline) if name != section.baseline else []
        gains = [one.optics["consistent"] - other.optics["consistent"] for one, other in pairs]
        cells.append(over_seeds(gains).text("+.2f") if gains else "")
        rows.append([*cells, *(_pull(runs, term) for term in ("cdp", "feature"))])
    label = place.label(section.baseline)
    place.document.table(
        [
            *("system", "seeds", "spectral estimate (dB)", "consistent (dB)"),
            *("Cramer-Rao (dB)", "van Trees (dB)", f"consistent, over {label} (dB)"),
            *("CDP loss: pull, cosine", "feature loss: pull, cosine"),
        ],
        rows,
    )
    place.document.paragraph(
        f"Without the network. Consistent: {alone.STEPS} steps of error reduction from the "
        f"spectral estimate; {alone.IMAGES} test images, global phase from the truth. Bounds: the "
        f"PSNR that no estimate exceeds at {alone.PHOTONS:g} photons a shot, without a prior and "
        f"with the training images as one; {alone.SCENES} test images. Pull: a loss's gradient on "
        "the masks over the task's, weighted, the mean of all epochs; cosine of the two."
    )


def _pull(runs: list[SeedResult], term: str) -> str:
    """Returns a loss's pull on the masks and its cosine, if it has a weight and was logged."""
    size, task = f"gradient_{term}_phases", "gradient_task_phases"
    rows = [row for run in runs for row in run.curve if row.get(size) and row.get(task)]
    if not rows:
        return ""
    pull = sum(row[size] / row[task] for row in rows) / len(rows)
    cosine = sum(row[f"cosine_{term}_phases"] for row in rows) / len(rows)
    return f"{pull:.2f}, {cosine:+.2f}"


def _costs(place: Place, section: declaration.Costs, results: Results) -> None:
    path = place.workdir / COSTS_FILE
    measured = json_files.read_json(path, COSTS) if path.exists() else {}
    rows = []
    for name, runs in results.items():
        row = [OPEN] * 7
        seconds = over_seeds([run.train_seconds for run in runs])
        row[:2] = place.label(name), f"{seconds.text('.0f')} s"
        if name in section.paper:
            training, memory, inference = section.paper[name]
            clock = datetime.timedelta(seconds=round(training))
            row[2::2] = str(clock), f"{memory:,.0f} MB", f"{inference:.0f} ms"
        if name in measured:
            cost = measured[name]
            low, high = cost["inference_quartiles_ms"]
            row[3] = f"{cost['step_bytes'] / 2**20:,.0f} MB"
            row[5] = f"{cost['inference_ms']:.1f} ({low:.1f} to {high:.1f}) ms"
        rows.append(row)
    header = [
        *("system", "training", "paper", "memory of a training step", "paper"),
        *("inference of a batch", "paper"),
    ]
    place.document.table(header, rows)
    devices = {f"{cost['device']}, batches of {cost['batch']}" for cost in measured.values()}
    place.document.paragraph(
        f"Measured on: {'; '.join(sorted(devices)) or OPEN}. Training: all steps, compilation "
        "included, validation, scores and a teacher's targets not; an interrupted epoch counts as "
        "the median one. Memory: what the compiled step needs on one device, images and targets of "
        "the whole data set aside. Inference: from CDPs to image, median of 20 synchronised calls, "
        "quartiles in brackets. "
        "The paper: an RTX 4090, 96 x 96 pixels, batches of 64."
    )


def _front(place: Place, results: Results) -> None:
    path = place.workdir / FRAMES_FILE
    measured = json_files.read_json(path, FRAMES) if path.exists() else {}
    timed = sorted((n for n in results if n in measured), key=lambda n: measured[n]["alone"]["ms"])
    psnr = {name: quality(results[name]) for name in timed}
    front, best = [], -math.inf
    for name in timed:
        if psnr[name].mean > best:
            front.append(name)
            best = psnr[name].mean
    rows = []
    for name in timed:
        times = []
        for how in ("alone", "in_batch"):
            one = measured[name][how]
            low, high = one["quartiles_ms"]
            times += [f"{one['ms']:.2f} ({low:.2f} to {high:.2f})", f"{1e3 / one['ms']:,.0f}"]
        is_on_it = "yes" if name in front else ""
        rows.append([place.label(name), len(results[name]), psnr[name].text(), *times, is_on_it])
    if not rows:
        place.document.paragraph("No time of a frame has been measured yet.")
        return
    batches = ", ".join(sorted({str(one["batch"]) for one in measured.values()}))
    place.document.table(
        [
            *("system", "seeds", "PSNR (dB)", "a frame alone (ms)", "frames a second"),
            *(f"one of a batch of {batches} (ms)", "frames a second", "on the front"),
        ],
        rows,
    )
    points = {
        place.label(n): Point(measured[n]["alone"]["ms"], psnr[n].mean, psnr[n].half_width)
        for n in timed
    }
    plots.plot_front(points, [place.label(name) for name in front], place.file("front"))
    place.picture("front", "PSNR against the time of a frame alone; the line is the front")
    place.document.paragraph(
        f"Measured on: {', '.join(sorted({one['device'] for one in measured.values()}))}. From CDP "
        "to image, all systems called in turn, 20 times each, synchronised: median and quartiles. "
        "A frame alone runs on one device (of a CPU: on one core), a batch on all."
    )
