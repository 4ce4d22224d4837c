"""Timing of calls that return once their work is done."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds of each call, in order."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        """Median, s."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile, s."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)

    def per(self, units: int) -> "Timing":
        """Returns the times of one of a call's units, such as the steps of a scan."""
        return Timing(self.seconds / units)


def clock(call: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def time_alternating(
    clocks: list[Callable[[], float]], *, calls: int, warm_up: int = 2
) -> list[Timing]:
    """Times several things in turn, A B A B ..., so that a drift of the machine affects all alike.

    Args:
        clocks: Each does its work once and returns the seconds it took.
        calls: Timed calls of each.
        warm_up: Earlier calls of each, which are not timed.
    """
    for one in clocks:
        for _ in range(warm_up):
            one()
    seconds = [[one() for one in clocks] for _ in range(calls)]
    return [Timing(np.array(column)) for column in zip(*seconds, strict=True)]


def ratio_of(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """Returns median and quartiles of the ratio slow / fast, call by call."""
    low, middle, high = np.quantile(slow.seconds / fast.seconds, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)
