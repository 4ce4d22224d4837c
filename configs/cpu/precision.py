"""What half precision costs: the network's products in bfloat16, with three seeds."""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Entry, Study, Table


def get_config() -> Study:
    """Returns the study: `python -m jax_kdpr.study --config configs/cpu/precision.py`."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps, as in configs/cpu/speed.py
    base.data.test_images = 2000
    return Study(
        title="The network in bfloat16, Fashion-MNIST at 32 x 32",
        base=base,
        seeds=(0, 1, 2),
        entries={
            "full": Entry(label="float32"),
            "bfloat16": Entry(label="bfloat16", changes={"net.precision": "bfloat16"}),
        },
        sections=(
            Table(
                title="Half precision",
                question="One shot, E2E: does a network in bfloat16 recover as well?",
                entries=("full", "bfloat16"),
                baseline="full",
            ),
        ),
    )
