"""One training by several processes, on one machine or many: JAX's distributed runtime.

All processes run the same program for all their devices together, so all do the same in the same
order; the first one alone writes and speaks. What one of them knows and the others do not, a signal
or what its folder holds, is told to all before anything depends on it.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_kdpr.core import signals
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import PyTree

AUTO = "auto"  # in the place of an address
CONNECTING = 300  # seconds that the processes may take to find each other
SILENT = 30  # seconds after which a process that says nothing is taken for dead


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Makes this process one of several; before JAX's first computation.

    Args:
        coordinator: HOST:PORT of the first process; "auto" takes all three from the variables of
            SLURM, Kubernetes or Open MPI.
        processes: How many there are.
        process: Which this one is, from 0.

    Raises:
        InputError: If they do not find each other, or nothing tells who they are.
    """
    found = coordinator == AUTO
    if not found and (processes is None or process is None or not 0 <= process < processes):
        raise InputError(
            f"--coordinator: expected --processes N and --process 0 to N - 1 beside it, got "
            f"{processes} and {process}; or give --coordinator auto under SLURM or Kubernetes"
        )
    jax.config.update("jax_enable_preemption_service", False)  # it takes over SIGTERM
    try:
        jax.distributed.initialize(
            **{} if found else _named(coordinator, processes, process),
            initialization_timeout=CONNECTING,
            heartbeat_timeout_seconds=SILENT,
            shutdown_timeout_seconds=SILENT,
        )
    except Exception as failure:  # of many kinds
        said = " ".join(str(failure).split())[:200]
        raise InputError(
            f"--coordinator: the processes do not find each other by {coordinator!r} ({said}); "
            "start all of them within five minutes, with the same address of the first one"
        ) from failure
    signals.share()
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named(coordinator: str, processes: int | None, process: int | None) -> dict[str, Any]:
    names = ("coordinator_address", "num_processes", "process_id")
    return dict(zip(names, (coordinator, processes, process), strict=True))


def several() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not several() or jax.process_index() == 0


def wait(place: str) -> None:
    """Returns when all processes have come to a place of the program."""
    if several():
        multihost_utils.sync_global_devices(place)


def from_first(make: Callable[[], PyTree], like: PyTree) -> PyTree:
    """Returns in every process what make() returns in the first: arrays as those of `like`."""
    if not several():
        return make()
    return multihost_utils.broadcast_one_to_all(
        jax.tree.map(np.asarray, make() if is_first() else like)
    )


def agree_on_signals() -> None:
    """Notes in every process a signal that came to any of them."""
    if several():
        numbers = multihost_utils.process_allgather(np.int32(signals.pending()))
        signals.note(int(np.max(numbers)))


def leave(code: int) -> None:
    """Ends this process, as one of several, at once: at its end it would wait for the others."""
    if several():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
