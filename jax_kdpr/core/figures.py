"""Matplotlib as the figures of this package use it: only this module imports it.

The user's settings are ignored. A matplotlibrc may ask for LaTeX, and a notebook may pass on a
backend that the processes it starts do not have.
"""
# ruff: noqa: E402

import os
from contextlib import suppress

_backend = os.environ.pop("MPLBACKEND", "")  # the import fails if it is missing

import matplotlib
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

if _backend:  # for programs that import this and draw figures of their own
    os.environ["MPLBACKEND"] = _backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend

__all__ = [
    "Axes",
    "Figure",
    "Normalize",
    "ScalarMappable",
    "SubFigure",
    "colormaps",
    "own_style",
]

own_style = style.context("default")  # decorates functions that draw
