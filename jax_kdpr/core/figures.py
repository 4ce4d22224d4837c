"""Matplotlib as figures are drawn with here: only this module imports it.

A user's settings have no say: neither a matplotlibrc that wants LaTeX, nor the backend that a
notebook names to the processes it starts, and that they may lack.
"""
# ruff: noqa: E402

import os
from contextlib import suppress

_backend = os.environ.pop("MPLBACKEND", "")  # with one that is missing, importing fails

import matplotlib
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

if _backend:  # of whoever imports this to go on with figures of their own
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

own_style = style.context("default")  # decorates what draws
