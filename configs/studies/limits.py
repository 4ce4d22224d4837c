"""What the limits of devices cost a mask that was trained with them, each alone."""

from typing import Any

from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Entry, Masks, Study, Table


def bench_study(base: Config, *, title: str, seeds: tuple[int, ...]) -> Study:
    """Returns the study: E2E with one limit of the devices at a time, in training and test."""
    limits: dict[str, tuple[str, dict[str, Any]]] = {
        "levels-4": ("4 levels (2 bit)", {"device.levels": 4}),
        "levels-2": ("2 levels (1 bit)", {"device.levels": 2}),
        "range": ("phases up to 1.6 pi", {"device.phase_range": 5.026548245743669}),
        "superpixel-2": ("features of 2 x 2 pixels", {"device.superpixel": 2}),
        "crosstalk": ("crosstalk of 0.5 pixels", {"device.crosstalk": 0.5}),
        "zero-order": ("5 % of the light not modulated", {"device.zero_order": 0.05}),
        "camera": (
            "12-bit camera, 1e5 photons",
            {"noise.kind": "camera", "noise.photons": 1e5, "noise.full_well": 3e3},
        ),
    }
    entries = {
        "e2e": Entry(label="ideal device, no errors"),
        **{name: Entry(label=label, changes=changes) for name, (label, changes) in limits.items()},
    }
    return Study(
        title=title,
        base=base,
        seeds=seeds,
        entries=entries,
        sections=(
            Table(
                title="Limits of the devices",
                question="What is lost when masks and network are trained with the limit?",
                entries=tuple(entries),
                baseline="e2e",
            ),
            Masks(
                title="Masks",
                question="How do the masks use what the device can do?",
                entries=("e2e", "levels-4", "range", "superpixel-2", "crosstalk"),
            ),
        ),
    )
