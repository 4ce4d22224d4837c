"""Phase masks and networks that recover a phase object from one coded diffraction pattern.

The flow, and the module that holds each step:

    image -> field -> CDP y -> noise -> spectral estimate z -> U-Net -> image, bottleneck -> losses
             (optics.objects, .cdp, .noise, .spectral)        (networks.unet)                 (losses)

`systems` joins them into one pair of pure functions, `training` trains it, `evaluate` scores it.
"""

import sys as _sys

# While `python -m` looks for a command of ours, whose imports take seconds; before any of them.
# Before the command's own arguments stands its name, or "-m" and its name in one.
if _sys.argv[:1] == ["-m"] and (
    _sys.orig_argv[-len(_sys.argv)].removeprefix("-m").startswith("jax_kdpr.")
):
    from jax_kdpr.core import signals as _signals

    _signals.take_over()

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

try:
    __version__ = _version("jax_kdpr")
except _PackageNotFoundError:  # only on the path
    __version__ = "not installed"
