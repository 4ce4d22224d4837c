"""How finely should a camera sample the pattern? Error reduction before the network, camera noise.

    python -m jax_kdpr.study --config configs/bench/sampling.py --workdir runs/bench-sampling

A camera of docs/guides/devices.md has some 15 pixels in the finest fringe. The model keeps one
sample of this fringe, or more; `sensor.step` is the distance between two samples. They share the
light of a frame: at half the step, a sample adds up half as many camera pixels each way, and so has
half the read noise and a quarter of the full well.
"""

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Entry, Study, Table

STEPS = {"1": 1.0, "1.5": 2 / 3, "2": 0.5}  # by samples a cycle of the object's side


def get_config() -> Study:
    """Returns the study."""
    base = presets.bench(presets.quickstart(), samples=1)
    base.spectral.consistency_steps = presets.CONSISTENCY_STEPS
    noise = base.noise  # 1e6 photons a frame
    entries = {
        name: Entry(
            label=f"{name} a cycle",
            changes={
                "sensor.step": step if step < 1 else 0.0,
                "noise.read_noise": noise.read_noise * step,
                "noise.full_well": noise.full_well * step**2,
            },
        )
        for name, step in STEPS.items()
    }
    return Study(
        title="Samples of the pattern on a bench: camera noise and errors of alignment",
        base=base,
        seeds=(0, 1, 2),
        entries=entries,
        sections=(
            Table(
                title="Against one sample a cycle",
                question="Trained and tested with the noise and with errors of alignment.",
                entries=tuple(entries),
                baseline="1",
            ),
        ),
    )
