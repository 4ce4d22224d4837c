"""The report of a study: every section made from the run folders alone, finished or not.

Every number is a mean over seeds with half the width of its 95 % interval; what is not there yet is
left open, and said so.
"""

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from jax_kdpr import plots, run_folder
from jax_kdpr.evaluation import CONSTANT, MEAN_IMAGE
from jax_kdpr.plots import Line
from jax_kdpr.scoring import MASKS_FILE, read_samples
from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Study, difference_from_base, named_entries
from jax_kdpr.studies.document import Block, Grid, Heading, Paragraph, Picture, to_html, to_markdown
from jax_kdpr.studies.results import (
    Results,
    SeedResult,
    gain,
    network_input_psnr,
    quality,
    read_results,
)
from jax_kdpr.studies.runner import COSTS_FILE, FAILURES_FILE
from jax_kdpr.studies.runs import PlannedRun
from jax_kdpr.studies.statistics import Estimate, over_seeds

OPEN = "–"  # what has not been measured


def write_report(
    study: Study, runs: list[PlannedRun], workdir: Path, output: Path, *, command: str
) -> None:
    """Writes report.md, report.html, report.json and the figures.

    Args:
        study: The study.
        runs: All its runs, from `runs.plan`.
        workdir: Its folder.
        output: Where to write.
        command: What made the runs, for the report to name.
    """
    output.mkdir(parents=True, exist_ok=True)
    results = read_results(runs)
    blocks: list[Block] = [Heading(study.title, 1), *_preface(study, runs, results, command)]
    for number, section in enumerate(study.sections, start=1):
        blocks += [Heading(section.title), Paragraph(section.question)]
        finished = {name: results.get(name, []) for name in named_entries(section)}
        missing = [name for name, found in finished.items() if not found]
        present = {name: found for name, found in finished.items() if found}
        if missing:
            blocks.append(Paragraph(f"Not finished yet: {', '.join(missing)}."))
        if present:
            blocks += _section(study, section, present, workdir, output, f"section-{number}")
    blocks += _appendix(study, runs, results, workdir)
    run_folder.write_text(output / "report.md", to_markdown(blocks))
    run_folder.write_text(output / "report.html", to_html(blocks, output, title=study.title))
    run_folder.write_json(output / "report.json", _numbers(study, results))


def _section(
    study: Study,
    section: declaration.Section,
    results: Results,
    workdir: Path,
    output: Path,
    stem: str,
) -> list[Block]:
    labels = {name: study.entries[name].label for name in results}
    match section:
        case declaration.Table():
            return _table(section, results, labels)
        case declaration.Sweep():
            return _sweep(section, results, labels, output, f"{stem}-sweep.png")
        case declaration.Samples():
            shown = {
                labels[name]: read_samples(found[0].run.workdir) for name, found in results.items()
            }
            plots.plot_comparison(shown, output / f"{stem}-samples.png")
            return [Picture(f"{stem}-samples.png", section.title)]
        case declaration.Curves():
            return _curves(results, labels, output, f"{stem}-curves.png")
        case declaration.Masks():
            phases = {
                labels[name]: np.load(found[0].run.workdir / MASKS_FILE)
                for name, found in results.items()
            }
            plots.plot_masks(phases, output / f"{stem}-masks.png")
            return [Picture(f"{stem}-masks.png", section.title)]
        case declaration.Robustness():
            return _robustness(section, results, labels, output, stem)
        case declaration.Costs():
            return _costs(section, results, labels, workdir)


def _preface(study: Study, runs: list[PlannedRun], results: Results, command: str) -> list[Block]:
    sessions = [
        session
        for found in results.values()
        for result in found
        for session in run_folder.read_run(result.run.workdir)["sessions"]
    ]
    done = sum(len(found) for found in results.values())
    hours = (
        sum(row["seconds"] for found in results.values() for r in found for row in r.curve) / 3600
    )
    base = study.base
    lines = [
        f"Made by `{command}`: {done} of {len(runs)} runs, seeds "
        f"{', '.join(map(str, study.seeds))}, {hours:.1f} hours of training and validation.",
        f"Data: {base.data.source}, {base.data.size} x {base.data.size} pixels; "
        f"{base.train.epochs} epochs in batches of {base.train.batch_size}; {base.scene.kind} "
        f"scenes; T = {base.spectral.iterations}; U-Net {'-'.join(map(str, base.net.widths))}.",
        "Numbers are means over seeds ± half the width of their 95 % interval (Student's t), of "
        "the mean PSNR and SSIM over the test images. A gain is the mean difference from the "
        "baseline of the same seed. Images better: share of the test images whose PSNR, averaged "
        "over seeds, is higher, with the p value of a Wilcoxon signed-rank test; it speaks of "
        "these trained systems only, the interval over seeds of others like them.",
    ]
    if sessions:
        facts = {
            "Commit": {session["commit"] for session in sessions},
            "Device": {", ".join(sorted(set(session["devices"]))) for session in sessions},
            "JAX": {session["versions"]["jax"] for session in sessions},
        }
        times = sorted(session["time"] for session in sessions)
        said = [f"{name}: {', '.join(sorted(values))}" for name, values in facts.items()]
        lines.append(f"{'; '.join(said)}; from {times[0]} to {times[-1]}.")
    return [Paragraph(line) for line in lines]


def _table(section: declaration.Table, results: Results, labels: dict[str, str]) -> list[Block]:
    baseline = results.get(section.baseline)
    header = ["system", "seeds", "PSNR (dB)", "SSIM", "network's input (dB)"]
    if section.paper:
        header += ["paper: PSNR / SSIM", "ours - paper (dB)"]
    against = labels.get(section.baseline, section.baseline)
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
            psnr.text(),
            quality(found, metric="ssim").text(".3f"),
            network_input_psnr(found).text(),
        ]
        if section.paper:
            paper = section.paper.get(name)
            row += [f"{paper[0]:.2f} / {paper[1]:.3f}" if paper else OPEN]
            row += [f"{psnr.mean - paper[0]:+.2f}" if paper else OPEN]
        compared = gain(found, baseline) if baseline and name != section.baseline else None
        if compared is None:
            row += ["", ""]
        else:
            images = compared.images
            row += [compared.psnr.text("+.2f")]
            row += [f"{100 * images.share_better:.0f} % ({_p_value(images.p_value)})"]
            gains[labels[name]] = compared.psnr
        rows.append(row)
    some = next(iter(results.values()))
    for label, answer in (("mean training image", MEAN_IMAGE), ("constant", CONSTANT)):
        cells = [quality(some[:1], answer=answer), quality(some[:1], answer=answer, metric="ssim")]
        rows.append([label, "", cells[0].text(), cells[1].text(".3f")] + [""] * (len(header) - 4))
    blocks: list[Block] = [Grid(header, rows)]
    if gains:
        blocks.append(Paragraph(_verdict(gains, against)))
    return blocks


def _verdict(gains: dict[str, Estimate], baseline: str) -> str:
    """Says which gains are told from zero by their interval."""
    kinds = {"Better": 1, "Worse": -1, "Not told from it": 0}
    said = []
    for kind, sign in kinds.items():
        named = [f"{label} ({g.text('+.2f')} dB)" for label, g in gains.items() if g.sign == sign]
        if named:
            said.append(f"{kind}: {', '.join(named)}.")
    return f"Against {baseline}, by the 95 % interval of the gain. {' '.join(said)}"


def _sweep(
    section: declaration.Sweep,
    results: Results,
    labels: dict[str, str],
    output: Path,
    file: str,
) -> list[Block]:
    drawn, rows = {}, []
    for label, points in section.lines.items():
        found = {value: quality(results[name]) for value, name in points.items() if name in results}
        if not found:
            continue
        estimates = list(found.values())
        drawn[label] = Line(
            list(found), [e.mean for e in estimates], [e.half_width for e in estimates]
        )
        for value, estimate in found.items():
            reference = results.get(section.reference)
            compared = gain(results[points[value]], reference) if reference else None
            is_it = points[value] == section.reference
            rows.append(
                [
                    label,
                    f"{value:g}",
                    estimate.count,
                    estimate.text(),
                    quality(results[points[value]], metric="ssim").text(".3f"),
                    "" if compared is None or is_it else compared.psnr.text("+.2f"),
                ]
            )
    reference = results.get(section.reference)
    line = (labels[section.reference], quality(reference).mean) if reference else None
    plots.plot_lines(drawn, output / file, x_label=section.axis, reference=line)
    against = f"gain over {labels.get(section.reference, section.reference)} (dB)"
    header = ["", section.axis, "seeds", "PSNR (dB)", "SSIM", against if reference else ""]
    blocks: list[Block] = [Grid(header, rows), Picture(file, section.title)]
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
    section: declaration.Robustness,
    results: Results,
    labels: dict[str, str],
    output: Path,
    stem: str,
) -> list[Block]:
    blocks: list[Block] = []
    axes = {
        "gaussian": ("SNR of the CDP (dB)", section.snr_db),
        "poisson": ("photons a shot", section.photons),
    }
    for kind, (axis, levels) in axes.items():
        drawn, rows = {}, []
        for name, found in results.items():
            estimates = [_robust_psnr(found, kind, f"{level:g}") for level in levels]
            drawn[labels[name]] = Line(
                list(levels), [e.mean for e in estimates], [e.half_width for e in estimates]
            )
            quiet = _robust_psnr(found, "none", "0")
            rows.append([labels[name], *[e.text(".1f") for e in estimates], quiet.text(".1f")])
        file = f"{stem}-{kind}.png"
        plots.plot_lines(drawn, output / file, x_label=axis, log_x=kind == "poisson")
        header = [axis, *[f"{level:g}" for level in levels], "no noise"]
        blocks += [Grid(header, rows), Picture(file, f"{section.title}: {axis}")]
    return blocks


def _robust_psnr(found: list[SeedResult], kind: str, level: str) -> Estimate:
    return over_seeds([(result.robustness or {})[kind][level] for result in found])


def _costs(
    section: declaration.Costs, results: Results, labels: dict[str, str], workdir: Path
) -> list[Block]:
    path = workdir / COSTS_FILE
    measured: dict[str, Any] = run_folder.read_json(path) if path.exists() else {}
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
                f"{cost['inference_ms']:.1f} ms" if cost else OPEN,
                f"{paper[2]:.0f} ms" if paper else OPEN,
            ]
        )
    header = [
        *("system", "training", "paper", "memory of a training step", "paper"),
        *("inference of a batch", "paper"),
    ]
    batch = next((cost["batch"] for cost in measured.values()), 0)
    note = (
        f"Batches of {batch}; inference is the median of 20 synchronised calls from CDPs to image. "
        "Memory is what the compiled step needs on one device, images and targets of the whole "
        "data set aside. The paper: an RTX 4090, 96 x 96 pixels, batches of 64."
    )
    return [Grid(header, rows), Paragraph(note)]


def _appendix(study: Study, runs: list[PlannedRun], results: Results, workdir: Path) -> list[Block]:
    rows = []
    for name, entry in study.entries.items():
        planned = [run for run in runs if run.entry == name]
        if planned:
            states = [f"{run.seed}: {run.state}" for run in planned]
            rows.append(
                [
                    name,
                    entry.label,
                    difference_from_base(study, name),
                    entry.teacher,
                    "; ".join(states),
                ]
            )
    header = ["entry", "label", "what it changes", "teacher", "seeds"]
    blocks: list[Block] = [Heading("All runs"), Grid(header, rows)]
    path = workdir / FAILURES_FILE
    failures: dict[str, str] = run_folder.read_json(path) if path.exists() else {}
    if failures:
        blocks += [Heading("Failed"), Grid(["run", "why"], [list(f) for f in failures.items()])]
    return blocks


def _numbers(study: Study, results: Results) -> dict[str, Any]:
    """What the report is made of, seed by seed; times are apart, as they differ from run to run."""
    entries = {
        name: {
            "label": study.entries[name].label,
            "changes": difference_from_base(study, name),
            "teacher": study.entries[name].teacher,
            "seeds": {
                str(result.run.seed): {
                    "scores": result.scores,
                    "validation_psnr": [row["validation_psnr"] for row in result.curve],
                    "robustness": result.robustness,
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


def _p_value(value: float) -> str:
    return "p < 1e-3" if value < 1e-3 else f"p = {value:.3f}"


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
