"""Phase masks and networks that recover a phase object from one coded diffraction pattern.

    import jax_kdpr as kdpr

    run = kdpr.load("runs/mine")         # config, phases, camera, system; data when asked for
    found = run.reconstruct(frames)      # image, phase in radians, estimate, misfit
    scores = run.evaluate()              # PSNR, SSIM, rms on its test images
    history = kdpr.train(config, "runs/next")
    solved = kdpr.solve(frames, phases, solver="raar")

What these do in detail, and what else there is, stands in the rooms (README.md, How it works).
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
