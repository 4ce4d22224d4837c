"""How finely should a camera sample the pattern? Error reduction before the network, camera noise.

    python -m jax_kdpr.study --config configs/bench/sampling.py --workdir runs/bench-sampling

A camera of docs/bench.md has some 15 pixels in the finest fringe; the model keeps one sample of it,
or more: `sensor.step` is the distance of two. What a sample of a finer grid costs depends on how it
is read. Where the same light is shared out, a sample of half the step adds up half as many camera
pixels each way: half the read noise, a quarter of the full well. Where as many pixels are read for
each sample as before (`reconstruct` with one `--bin`), more samples take in more of the light.
"""

from typing import Any

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Entry, Study, Table

STEPS = {"1.5": 2 / 3, "2": 1 / 2}  # by samples a cycle of the object's side


def get_config() -> Study:
    """Returns the study."""
    base = presets.bench(presets.quickstart())
    base.spectral.consistency_steps = presets.CONSISTENCY_STEPS
    noise = base.noise
    entries = {"1": Entry(label="1 sample a cycle")}
    for name, step in STEPS.items():
        shared: dict[str, Any] = {
            "sensor.step": step,
            "noise.read_noise": noise.read_noise * step,
            "noise.full_well": noise.full_well * step**2,
        }
        more = {"sensor.step": step, "noise.photons": noise.photons / step**2}
        entries[f"{name}-shared"] = Entry(label=f"{name}, the same light", changes=shared)
        entries[f"{name}-more"] = Entry(label=f"{name}, the same pixels a sample", changes=more)
    return Study(
        title="Samples of the pattern on a bench: camera noise and errors of alignment",
        base=base,  # 1e6 photons a frame
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
