"""Phase masks and networks that recover a phase object from one coded diffraction pattern.

    import jax_kdpr as kdpr

    run = kdpr.load("runs/mine")         # config, phases, camera, system; data when asked for
    found = run.reconstruct(frames)      # image, phase in radians, estimate, misfit
    scores = run.evaluate()              # PSNR, SSIM, rms on its test images
    history = kdpr.train(config, "runs/next")
    ready = kdpr.pretrained("bench-32")  # a system that came with the package
    bought = kdpr.bench("diffuser.npy")   # a mask that exists: measure, reconstruct by a solver
    solved = kdpr.solve(frames, phases, solver="raar")

The subpackages (docs/extend/code.md) hold the details and all the rest.
"""

import importlib as _importlib
import sys as _sys
import types as _types

# `python -m` imports this package when it looks for a command, whose own imports take seconds.
# Signals are taken over before these. In `orig_argv` the name of the command, alone or joined to
# "-m", stands before its arguments.
if _sys.argv[:1] == ["-m"] and (
    _sys.orig_argv[-len(_sys.argv)].removeprefix("-m").startswith("jax_kdpr.")
):
    from jax_kdpr.core import signals as _signals

    _signals.take_over()

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from jax_kdpr.config import Config, presets
    from jax_kdpr.core.errors import InputError, StoppedError
    from jax_kdpr.interface.api import bench, load, on_bench, pretrained, train
    from jax_kdpr.interface.run import Objects, Run
    from jax_kdpr.interface.solving import solve
    from jax_kdpr.recovery.refinement import Refinement

try:
    __version__ = _version("jax_kdpr")
except _PackageNotFoundError:  # on the path, but not installed
    __version__ = "not installed"

# Imported on first use, so that `import jax_kdpr` is quick and a command imports what it needs.
_PUBLIC = {
    **dict.fromkeys(("bench", "load", "on_bench", "pretrained", "train"), "jax_kdpr.interface.api"),
    **dict.fromkeys(("Objects", "Run"), "jax_kdpr.interface.run"),
    **dict.fromkeys(("InputError", "StoppedError"), "jax_kdpr.core.errors"),
    "solve": "jax_kdpr.interface.solving",
    "Config": "jax_kdpr.config.schema",
    "Refinement": "jax_kdpr.recovery.refinement",
}
_MODULES = {"presets": "jax_kdpr.config.presets"}
__all__ = [
    "Config",
    "InputError",
    "Objects",
    "Refinement",
    "Run",
    "StoppedError",
    "bench",
    "load",
    "on_bench",
    "presets",
    "pretrained",
    "solve",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _importlib.import_module(_MODULES[name])
    if name in _PUBLIC:
        return getattr(_importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(_types.ModuleType):
    """Keeps two functions here from being replaced by the commands (modules) of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, _types.ModuleType)):
            super().__setattr__(name, value)


_sys.modules[__name__].__class__ = _Package
