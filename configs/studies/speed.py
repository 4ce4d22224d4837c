"""PSNR for the time of a frame: what a network, the power iteration and error reduction cost."""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Entry, Front, Study, Table

REFINE = "net.refine_steps"
CONSISTENCY = "spectral.consistency_steps"
ITERATIONS = "spectral.iterations"


def speed_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """PSNR for the time of a frame, from the base's own network down to a quarter of its width."""
    full = base.net.widths
    half, quarter = (tuple(width // by for width in full) for by in (2, 4))

    def entry(label: str, *, before: int = 0, after: int = 0, **others: Any) -> Entry:
        steps = {CONSISTENCY: before, REFINE: after}
        options = {name.replace("_", ".", 1): value for name, value in others.items()}
        return Entry(label=label, changes=steps | options)

    entries = {
        "full": entry("full width"),
        "full-T5": entry("full width, T = 5", spectral_iterations=5),
        "half": entry("half", net_widths=half),
        "full-10": entry("full, 10 before", before=10),
        "half-10": entry("half, 10 before", net_widths=half, before=10),
        "quarter-10": entry("quarter, 10 before", net_widths=quarter, before=10),
        "shallow-10": entry("a level less, 10 before", net_widths=full[:-1], before=10),
        "residual-10": entry(
            "half, residual, 10 before", net_kind="residual_unet", net_widths=half, before=10
        ),
        "half-10-T5": entry(
            "half, 10 before, T = 5", net_widths=half, before=10, spectral_iterations=5
        ),
        "half-20-T5": entry(
            "half, 20 before, T = 5", net_widths=half, before=20, spectral_iterations=5
        ),
        "full-10-10": entry("full, 10 before, 10 after", before=10, after=10),
        "half-10-10": entry("half, 10 before, 10 after", net_widths=half, before=10, after=10),
        "quarter-10-10": entry(
            "quarter, 10 before, 10 after", net_widths=quarter, before=10, after=10
        ),
        "half-20-20-T5": entry(
            "half, 20 before, 20 after, T = 5",
            **{"net_widths": half, "before": 20, "after": 20, "spectral_iterations": 5},
        ),
        "quarter-20-20-T5": entry(
            "quarter, 20 before, 20 after, T = 5",
            **{"net_widths": quarter, "before": 20, "after": 20, "spectral_iterations": 5},
        ),
        "full-20-20": entry("full, 20 before, 20 after", before=20, after=20),
    }
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
