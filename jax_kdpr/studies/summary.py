"""What a reader wants first of a study: of each table its best entry and what that gains."""

from typing import Any

from jax_kdpr.studies import declaration
from jax_kdpr.studies.declaration import Study
from jax_kdpr.studies.document import Block, Grid, Heading, Paragraph
from jax_kdpr.studies.results import Results, gain, quality
from jax_kdpr.studies.statistics import over_seeds


def summary_blocks(study: Study, results: Results) -> list[Block]:
    """Returns one table, a row for each `declaration.Table` of which something has finished."""
    rows: list[list[Any]] = []
    for section in study.sections:
        if not isinstance(section, declaration.Table):
            continue
        found = {name: results[name] for name in section.entries if results.get(name)}
        if not found:
            continue
        validation = {
            name: over_seeds([one.validation_psnr for one in several]).mean
            for name, several in found.items()
        }
        best = max(validation, key=lambda name: validation[name])
        baseline = results.get(section.baseline)
        compared = gain(found[best], baseline) if baseline and best != section.baseline else None
        against = study.entries[section.baseline].label if section.baseline else ""
        rows.append(
            [
                section.title,
                study.entries[best].label,
                quality(found[best]).text(),
                f"{compared.psnr.text('+.2f')} over {against}" if compared else "",
                f"{len(found)} of {len(section.entries)}",
            ]
        )
    if not rows:
        return []
    header = ["section", "best by validation", "PSNR (dB)", "gain (dB)", "entries finished"]
    note = (
        "The best entry of each table, chosen by its mean validation PSNR; scores are of the test."
    )
    return [Heading("Summary"), Grid(header, rows), Paragraph(note)]
