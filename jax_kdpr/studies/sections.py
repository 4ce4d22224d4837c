"""The blocks of each kind of section of a study's report, with their figures."""

import datetime
from pathlib import Path
from typing import Any

from jax_kdpr.core import json_files
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.data.pages.opening import read_stack
from jax_kdpr.evaluation import pictures, plots
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.scores import CONSTANT, MEAN_IMAGE, RECOVERED, REFINED
from jax_kdpr.evaluation.scoring import MASKS_FILE, UnderNoise, read_samples
from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.document import Block, Grid, Paragraph, Picture
from jax_kdpr.studies.results import (
    Results,
    SeedResult,
    gain,
    network_input_psnr,
    quality,
    refined_psnr,
)
from jax_kdpr.studies.runner import COSTS, COSTS_FILE
from jax_kdpr.studies.statistics import Estimate, over_seeds

OPEN = "–"  # what has not been measured
DISTURBED = 0.2  # relative interval of a training's time above which a machine was not quiet


def section_blocks(
    study: Study,
    section: declaration.Section,
    results: Results,
    workdir: Path,
    output: Path,
    stem: str,
) -> list[Block]:
    """Returns what a section shows of the entries that have finished runs.

    Args:
        study: The study.
        section: One of its sections.
        results: Of the entries that the section reads; none of them empty.
        workdir: The study's folder.
        output: Where figures go.
        stem: What their names begin with.
    """
    labels = {name: study.entries[name].label for name in results}
    match section:
        case declaration.Table():
            return _table(study, section, results, labels)
        case declaration.Sweep():
            return _sweep(study, section, results, labels, output, f"{stem}-sweep.png")
        case declaration.Samples():
            shown = {
                labels[name]: read_samples(found[0].run.workdir) for name, found in results.items()
            }
            scene = study.base.scene
            pictures.plot_comparison(shown, output / f"{stem}-samples.png", scene=scene)
            return [Picture(f"{stem}-samples.png", section.title)]
        case declaration.Curves():
            return _curves(results, labels, output, f"{stem}-curves.png")
        case declaration.Masks():
            phases = {
                labels[name]: read_stack(found[0].run.workdir / MASKS_FILE)
                for name, found in results.items()
            }
            pictures.plot_masks(phases, output / f"{stem}-masks.png")
            return [Picture(f"{stem}-masks.png", section.title)]
        case declaration.Robustness():
            return _robustness(study, section, results, labels, output, stem)
        case declaration.Costs():
            return _costs(section, results, labels, workdir)


def _table(
    study: Study, section: declaration.Table, results: Results, labels: dict[str, str]
) -> list[Block]:
    baseline = results.get(section.baseline)
    against = labels.get(section.baseline, section.baseline)
    papers_scale = _is_papers_scale(study)
    rms = rms_header(study.base.scene.kind)
    header = ["system", "seeds", "validation (dB)", "PSNR (dB)", rms, "SSIM"]
    header.append("network's input (dB)")
    if study.refine:
        header.append(f"refined, {study.refine} steps (dB)")
    if section.paper:
        header += ["paper: PSNR / SSIM"] + ["ours - paper (dB)"] * papers_scale
    header += [f"gain over {against} (dB)", "images better (p)"]
    rows: list[list[Any]] = []
    gains: dict[str, Estimate] = {}
    for name in section.entries:
        if name not in results:
            continue
        found = results[name]
        psnr = quality(found)
        row = [
            labels[name],
            len(found),
            over_seeds([result.validation_psnr for result in found]).text(),
            psnr.text(),
            _rms(found),
            quality(found, metric="ssim").text(".3f"),
            network_input_psnr(found).text(),
        ]
        if study.refine:
            row.append(refined_psnr(found).text())
        if section.paper:
            paper = section.paper.get(name)
            row += [f"{paper[0]:.2f} / {paper[1]:.3f}" if paper else OPEN]
            row += [f"{psnr.mean - paper[0]:+.2f}" if paper else OPEN] * papers_scale
        compared = gain(found, baseline) if baseline and name != section.baseline else None
        if compared is None:
            row += ["", ""]
        else:
            images = compared.images
            row += [compared.psnr.text("+.2f")]
            row += [f"{100 * images.share_better:.0f} % ({_p_value(images.p_value)})"]
            gains[labels[name]] = compared.psnr
        rows.append(row)
    some = next(iter(results.values()))[:1]
    for label, answer in (("mean training image", MEAN_IMAGE), ("constant", CONSTANT)):
        psnr, ssim = (quality(some, answer=answer, metric=metric) for metric in ("psnr", "ssim"))
        cells = [label, "", "", psnr.text(), _rms(some, answer), ssim.text(".3f")]
        rows.append(cells + [""] * (len(header) - len(cells)))
    blocks: list[Block] = [Grid(header, rows)]
    if gains:
        blocks.append(Paragraph(_verdict(gains, against)))
    if section.paper and not papers_scale:
        blocks.append(
            Paragraph(
                "The paper's numbers are of 96 x 96 pixels, 30,000 images and 120 epochs: another "
                "problem than this one, so only the order of the rows can be compared."
            )
        )
    return blocks


def _rms(found: list[SeedResult], answer: str = RECOVERED) -> str:
    """Runs that an earlier version scored have none."""
    if not all("rms" in result.scores[answer] for result in found):
        return OPEN
    return quality(found, answer=answer, metric="rms").text(".3f")


def _is_papers_scale(study: Study) -> bool:
    base = study.base
    return base.data.size == 96 and base.train.epochs == 120 and base.data.train_images == 0


def _verdict(gains: dict[str, Estimate], baseline: str) -> str:
    """Says which gains are told from zero by their interval."""
    kinds = {"Better": 1, "Worse": -1, "Not told from it": 0}
    said = []
    for kind, sign in kinds.items():
        named = [
            f"{label} ({gain.text('+.2f')} dB)"
            for label, gain in gains.items()
            if gain.count > 1 and gain.sign == sign
        ]
        if named:
            said.append(f"{kind}: {', '.join(named)}.")
    single = [label for label, gain in gains.items() if gain.count == 1]
    if single:
        said.append(f"Of one seed, which gives no interval: {', '.join(single)}.")
    by = ", each by its own 95 % interval" if len(single) < len(gains) else ""
    return f"Against {baseline}{by}. {' '.join(said)}"


def _sweep(
    study: Study,
    section: declaration.Sweep,
    results: Results,
    labels: dict[str, str],
    output: Path,
    file: str,
) -> list[Block]:
    reference = results.get(section.reference)
    drawn, rows = {}, []
    gains: dict[str, Estimate] = {}
    for label, points in section.lines.items():
        found = {value: quality(results[name]) for value, name in points.items() if name in results}
        if not found:
            continue
        estimates = list(found.values())
        drawn[label] = Line(
            list(found), [e.mean for e in estimates], [e.half_width for e in estimates]
        )
        for value, estimate in found.items():
            name = points[value]
            is_it = name == section.reference
            compared = gain(results[name], reference) if reference and not is_it else None
            if compared:
                gains[labels[name]] = compared.psnr
            rows.append(
                [
                    label,
                    f"{value:g}",
                    estimate.count,
                    estimate.text(),
                    _rms(results[name]),
                    quality(results[name], metric="ssim").text(".3f"),
                    compared.psnr.text("+.2f") if compared else "",
                ]
            )
    line = (labels[section.reference], quality(reference).mean) if reference else None
    plots.plot_lines(drawn, output / file, x_label=section.axis, reference=line)
    against = f"gain over {labels.get(section.reference, section.reference)} (dB)"
    rms = rms_header(study.base.scene.kind)
    header = ["", section.axis, "seeds", "PSNR (dB)", rms, "SSIM", against if reference else ""]
    blocks: list[Block] = [Grid(header, rows), Picture(file, section.title)]
    if gains:
        blocks.append(Paragraph(_verdict(gains, labels[section.reference])))
    if section.paper:
        blocks.append(Paragraph(f"The paper: {section.paper}"))
    return blocks


def _curves(results: Results, labels: dict[str, str], output: Path, file: str) -> list[Block]:
    drawn, rows = {}, []
    for name, found in results.items():
        epochs = min(len(result.curve) for result in found)
        points = [
            over_seeds([result.curve[epoch]["validation_psnr"] for result in found])
            for epoch in range(epochs)
        ]
        drawn[labels[name]] = Line(
            [float(epoch + 1) for epoch in range(epochs)],
            [point.mean for point in points],
            [point.half_width for point in points],
        )
        terms = [
            over_seeds([result.curve[-1][f"train_{term}"] for result in found]).mean
            for term in ("task", "mask", "cdp", "feature")
        ]
        rows.append([labels[name], *[f"{term:.3g}" for term in terms]])
    plots.plot_lines(
        drawn,
        output / file,
        x_label="epoch",
        y_label="validation PSNR (dB)",
        markers=False,
    )
    header = ["loss terms in the last epoch", "task", "mask", "CDP", "feature"]
    return [Picture(file, "Validation PSNR over the training"), Grid(header, rows)]


def _robustness(
    study: Study,
    section: declaration.Robustness,
    results: Results,
    labels: dict[str, str],
    output: Path,
    stem: str,
) -> list[Block]:
    blocks: list[Block] = [
        Paragraph(
            f"PSNR in dB, and rms over the object, of the first {section.images:,} test images. "
            "Rows share seeds and images: two of them may differ by less than their intervals, and "
            "still be told apart."
        )
    ]
    axes = {
        "gaussian": ("SNR of the CDP (dB)", section.snr_db),
        "poisson": ("photons a shot", section.photons),
    }
    for kind, (axis, levels) in axes.items():
        drawn, rows, errors = {}, [], []
        for name, found in results.items():
            for answer in (RECOVERED, REFINED)[: 1 + bool(study.refine)]:
                label = labels[name] + ", refined" * (answer == REFINED)
                places = [(answer, kind, f"{level:g}") for level in levels]
                places.append((answer, "none", "0"))
                tables = [result.robustness or {} for result in found]
                *estimates, quiet = [_under_noise(tables, *place) for place in places]
                rows.append([label, *[e.text(".1f") for e in estimates], quiet.text(".1f")])
                of_rms = [result.robustness_rms for result in found if result.robustness_rms]
                known = len(of_rms) == len(found)
                errors.append(
                    [
                        label,
                        *(
                            _under_noise(of_rms, *place).text(".3f") if known else OPEN
                            for place in places
                        ),
                    ]
                )
                drawn[label] = Line(
                    list(levels), [e.mean for e in estimates], [e.half_width for e in estimates]
                )
        file = f"{stem}-{kind}.png"
        plots.plot_lines(drawn, output / file, x_label=axis, log_x=kind == "poisson")
        header = [*[f"{level:g}" for level in levels], "no noise"]
        rms = f"{rms_header(study.base.scene.kind)}; {axis}"
        blocks += [Grid([axis, *header], rows), Grid([rms, *header], errors)]
        blocks += [Picture(file, f"{section.title}: {axis}")]
    return blocks


def _under_noise(tables: list[UnderNoise], answer: str, kind: str, level: str) -> Estimate:
    return over_seeds([table[answer][kind][level] for table in tables])


def _costs(
    section: declaration.Costs, results: Results, labels: dict[str, str], workdir: Path
) -> list[Block]:
    path = workdir / COSTS_FILE
    measured = json_files.read_json(path, COSTS) if path.exists() else {}
    rows = []
    for name, found in results.items():
        cost = measured.get(name)
        paper = section.paper.get(name)
        seconds = over_seeds([result.train_seconds for result in found])
        rows.append(
            [
                labels[name],
                f"{seconds.text('.0f')} s",
                _clock(paper[0]) if paper else OPEN,
                f"{cost['step_bytes'] / 2**20:,.0f} MB" if cost else OPEN,
                f"{paper[1]:,.0f} MB" if paper else OPEN,
                _inference(cost) if cost else OPEN,
                f"{paper[2]:.0f} ms" if paper else OPEN,
            ]
        )
    header = [
        *("system", "training", "paper", "memory of a training step", "paper"),
        *("inference of a batch", "paper"),
    ]
    devices = {f"{cost['device']}, batches of {cost['batch']}" for cost in measured.values()}
    note = (
        f"Measured on: {'; '.join(sorted(devices)) or OPEN}. Training: all steps, compilation "
        "included, validation, scores and a teacher's targets not; an interrupted epoch counts as "
        "the median one. Memory: what the compiled step needs on one device, images and targets of "
        "the whole data set aside. Inference: from CDPs to image, median of 20 synchronised calls, "
        "quartiles in brackets. "
        "The paper: an RTX 4090, 96 x 96 pixels, batches of 64."
    )
    blocks: list[Block] = [Grid(header, rows), Paragraph(note)]
    training = [over_seeds([one.train_seconds for one in found]) for found in results.values()]
    if any(one.half_width > DISTURBED * one.mean for one in training):
        blocks.append(
            Paragraph(
                f"Seeds of one entry differ by more than {100 * DISTURBED:.0f} % in time: the "
                "machine did other work too, so that times of different entries say little."
            )
        )
    return blocks


def _inference(cost: dict[str, Any]) -> str:
    low, high = cost["inference_quartiles_ms"]
    return f"{cost['inference_ms']:.1f} ({low:.1f} to {high:.1f}) ms"


def _p_value(value: float) -> str:
    return "p < 1e-3" if value < 1e-3 else f"p = {value:.3f}"


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
