"""Options and choices of earlier versions that have gone, as they stand in old run folders.

docs/what-did-not-help.md says why. A folder that left them as they were by default still opens.
"""

from typing import Any

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import shown

# The values that mean what every run does now; others are read by no later commit than this.
LAST_COMMIT = "43d84cf"
OPTIONS: dict[str, tuple[Any, ...]] = {
    "ensemble": (1,),
    "masks.levels": (256,),
    "spectral.gradient": ("segments", "unrolled"),
    "net.inputs": ("re_im",),
    "loss.alphas": ([],),
    "loss.betas": ([],),
    "loss.rhos": ([],),
    "loss.cdp": ("paper",),
    "loss.feature": ("paper",),
    "loss.balance": ("none",),
    "loss.anneal": ("constant",),
    "distill.target_type": ("float32",),
}
CHOICES = {"spectral.weights": "optimal", "masks.regulariser": "levels"}


class RemovedOptionError(InputError):
    """A config asks for what has gone; the message names a commit that has it."""


def without_removed(values: Any) -> Any:
    """Returns the nested values of a config without the options that have gone.

    Raises:
        RemovedOptionError: If one of them means something else than what every run does now.
    """
    return _without_removed(values, "") if isinstance(values, dict) else values


def removed(path: str) -> str:
    """Returns the line that says that an option has gone; "" for one that never was, or is."""
    return f"config: {path} {_WHERE}; leave it out" if path in OPTIONS else ""


_WHERE = (
    f"has been taken out (docs/what-did-not-help.md): commit {LAST_COMMIT} of jax_kdpr still has it"
)


def _without_removed(values: dict, prefix: str) -> dict[str, Any]:
    kept = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            kept[name] = _without_removed(value, f"{path}.")
        elif (path, value) in CHOICES.items() or value not in OPTIONS.get(path, (value,)):
            raise RemovedOptionError(f"{path}={shown(value)} {_WHERE}")
        elif path not in OPTIONS:
            kept[name] = value
    return kept
