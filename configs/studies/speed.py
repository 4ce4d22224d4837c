"""PSNR against the time of a frame: what network, power iteration and error reduction cost."""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Entry, Front, Study, Table

REFINE = "net.refine_steps"
CONSISTENCY = "spectral.consistency_steps"


def speed_study(
    base: Config, *, title: str, seeds: tuple[int, ...], only: tuple[str, ...] = ()
) -> Study:
    """Returns the study, from the base's own network down to a quarter of its width.

    Args:
        base: Base config; its network has full width.
        title: Title of the report.
        seeds: Seeds of each entry.
        only: The entries to keep; empty for all.
    """
    full = base.net.widths
    half, quarter = (tuple(width // by for width in full) for by in (2, 4))

    def entry(label: str, *, before: int = 0, after: int = 0, **others: Any) -> Entry:
        steps = {CONSISTENCY: before, REFINE: after}
        options = {name.replace("_", ".", 1): value for name, value in others.items()}
        return Entry(label=label, changes=steps | options)

    residual: dict[str, Any] = {"net_kind": "residual_unet"}
    entries = {
        "full": entry("full width"),
        "full-T5": entry("full, T = 5", spectral_iterations=5),
        "half": entry("half", net_widths=half),
        "full-10": entry("full, 10 before", before=10),
        "half-10": entry("half, 10 before", net_widths=half, before=10),
        "shallow-10": entry("full, a level less, 10 before", net_widths=full[:-1], before=10),
        "full-10-10": entry("full, 10 before, 10 after", before=10, after=10),
        "half-10-10": entry("half, 10 before, 10 after", net_widths=half, before=10, after=10),
        "residual-10": entry("residual half, 10 before", net_widths=half, before=10, **residual),
        "residual-quarter-10": entry(
            "residual quarter, 10 before", net_widths=quarter, before=10, **residual
        ),
        "residual-full-10": entry("residual full, 10 before", before=10, **residual),
        "residual-shallow-10": entry(
            "residual half, a level less, 10 before", net_widths=half[:-1], before=10, **residual
        ),
        "residual-10-10": entry(
            "residual half, 10 before, 10 after",
            **residual | {"net_widths": half, "before": 10, "after": 10},
        ),
        "residual-full-10-10": entry(
            "residual full, 10 before, 10 after", before=10, after=10, **residual
        ),
    }
    entries = {name: entries[name] for name in only or entries}
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        entries=entries,
        sections=(
            Front(
                title="PSNR for time",
                question=(
                    "Which recovery for how many frames a second? Widths of the network, steps of "
                    "error reduction before and after it, power iterations T (25 where not said)."
                ),
                entries=tuple(entries),
            ),
            Table(
                title="Quality",
                question="One shot, E2E, against the plain system of full width.",
                entries=tuple(entries),
                baseline="full",
            ),
        ),
    )
