"""Which recovery suits a bench with how much light? A study that is written out, to copy from.

    python -m jax_kdpr.study --config configs/bench/study.py --workdir runs/bench-study

Every entry changes options of the base config. A table compares entries with one of them, seed by
seed. `studies.declaration` lists what else a report can show.
"""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Entry, Study, Table

BEFORE = {"spectral.consistency_steps": 10}
AFTER = BEFORE | {"net.refine_steps": 10}
DIM = {"noise.photons": 1e4}


def get_config() -> Study:
    """Returns the study."""
    return Study(
        title="Recoveries on a bench: camera noise and errors of alignment",
        base=presets.bench(presets.quickstart(), samples=1),  # 1e6 photons a frame
        seeds=(0, 1, 2),
        entries={
            "network": Entry(label="network alone"),
            "before": Entry(label="10 steps of error reduction before it", changes=BEFORE),
            "after": Entry(label="10 before it, 10 gated ones after it", changes=AFTER),
            "dim-network": Entry(label="1e4 photons: network alone", changes=DIM),
            "dim-before": Entry(label="1e4 photons: 10 steps before it", changes=DIM | BEFORE),
            "dim-after": Entry(label="1e4 photons: 10 before, 10 after", changes=DIM | AFTER),
        },
        sections=(
            Table(
                title="1e6 photons a frame",
                question="Trained and tested with the noise and with errors of alignment.",
                entries=("network", "before", "after"),
                baseline="network",
            ),
            Table(
                title="1e6 photons: do gated steps add to those before?",
                question="The same, against steps before the network alone.",
                entries=("before", "after"),
                baseline="before",
            ),
            Table(
                title="1e4 photons a frame",
                question="The same with a hundredth of the light.",
                entries=("dim-network", "dim-before", "dim-after"),
                baseline="dim-network",
            ),
            Table(
                title="1e4 photons: do gated steps add to those before?",
                question="The same, against steps before the network alone.",
                entries=("dim-before", "dim-after"),
                baseline="dim-before",
            ),
        ),
    )
