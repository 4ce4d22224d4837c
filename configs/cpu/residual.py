"""Does the recipe gain from a residual U-Net? It is trained once, twice, and with noise."""

from typing import Any

from jax_kdpr.config import presets
from jax_kdpr.studies.declaration import Entry, Study, Table

GATED = {
    "spectral.consistency_steps": presets.CONSISTENCY_STEPS,
    "net.refine_steps": presets.REFINE_STEPS,
}
CAMERA = {"noise.kind": "camera", "noise.photons": 1e5, "noise.full_well": 3e3}
AGAIN = {"regime": "student", "loss.alpha": 1.0, "distill.start": "all"}


def _entries(prefix: str, label: str, network: dict[str, Any]) -> dict[str, Entry]:
    once = GATED | network
    return {
        prefix: Entry(label=label, changes=once),
        f"{prefix}-again": Entry(label=f"{label}, restarted", changes=once | AGAIN, teacher=prefix),
        f"{prefix}-camera": Entry(label=f"{label}, camera", changes=once | CAMERA),
    }


def get_config() -> Study:
    """Returns the study: `python -m jax_kdpr.study --config configs/cpu/residual.py`."""
    base = presets.cpu()
    base.train.epochs = 3  # 375 steps, as in configs/cpu/speed.py
    base.data.test_images = 2000
    unet = _entries("unet", "U-Net", {})
    residual = _entries("residual", "residual U-Net", {"net.kind": "residual_unet"})
    asked = {"": "trained once", "-again": "trained twice", "-camera": "seen by a 12-bit camera"}
    return Study(
        title="The recipe's network, Fashion-MNIST at 32 x 32",
        base=base,
        seeds=(0, 1, 2),
        entries=unet | residual,
        sections=tuple(
            Table(
                title=f"Gated, {words}",
                question="One shot, error reduction before and after: which U-Net?",
                entries=(f"unet{name}", f"residual{name}"),
                baseline=f"unet{name}",
            )
            for name, words in asked.items()
        ),
    )
