"""One training by several processes, on one machine or many, with JAX's distributed runtime.

All processes run the same program over all devices, so they must do the same in the same order.
Only the first process writes files and prints. What only one process knows, such as a signal or the
contents of its folder, is sent to all before anything depends on it.
"""

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from jax_kdpr.core import signals
from jax_kdpr.core.errors import InputError, reason
from jax_kdpr.core.types import PyTree

AUTO = "auto"  # in place of an address
CONNECTING = 300  # seconds that the processes may take to find each other
# Statuses of a computation that another process has left.
LOST = ("UNKNOWN", "UNAVAILABLE", "INTERNAL", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED")
SILENT = 30  # seconds without a heartbeat after which a process counts as dead


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Makes this process one of several; must run before JAX's first computation.

    Args:
        coordinator: HOST:PORT of the first process; "auto" takes all three arguments from the
            environment variables of SLURM, Kubernetes or Open MPI.
        processes: Number of processes.
        process: Index of this process, from 0.

    Raises:
        InputError: If the processes do not find each other, or their number or indices are unknown.
    """
    given: dict[str, Any] = {"num_processes": processes, "process_id": process}
    if coordinator == AUTO:
        if given != dict.fromkeys(given):
            raise InputError("--coordinator: auto finds --processes and --process; leave them out")
    elif processes is None or process is None or process >= processes:
        raise InputError(
            f"--coordinator: expected --processes N and --process 0 to N - 1 beside it, got "
            f"{processes} and {process}; or give --coordinator auto under SLURM or Kubernetes"
        )
    else:
        if process > 0:
            _require_answer(coordinator)
        given |= {"coordinator_address": coordinator, "cluster_detection_method": "deactivate"}
    jax.config.update("jax_enable_preemption_service", False)  # it takes over SIGTERM
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=CONNECTING, heartbeat_timeout_seconds=SILENT
        )
    except Exception as failure:  # of many kinds
        hint = "the processes do not find each other"
        if coordinator == AUTO:
            hint = "nothing here tells which process of how many this is"
        raise InputError(
            f"--coordinator: {hint} ({reason(failure)}); give the same HOST:PORT of the first one, "
            "--processes and --process to each"
        ) from failure
    signals.share()
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _require_answer(address: str) -> None:
    """Waits until the first process answers; JAX would end this one without a message."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise InputError(f"--coordinator: expected HOST:PORT, got {address!r}")
    until = time.monotonic() + CONNECTING
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECTING).close()
            return
        except OSError as refused:
            if time.monotonic() > until:
                raise InputError(
                    f"--coordinator: no process 0 at {address!r} in {CONNECTING} s "
                    f"({refused.strerror or refused}); start all of them together"
                ) from refused
        time.sleep(0.5)


def several() -> bool:
    """Returns whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return not several() or jax.process_index() == 0


def require_same(**what: Any) -> None:
    """Waits for all processes, and checks that they have the same values.

    Raises:
        InputError: If values differ; gives their names.
    """
    if not several():
        return
    digests = [hashlib.sha256(repr(value).encode()).digest()[:8] for value in what.values()]
    ours = np.frombuffer(b"".join(digests), np.uint8).reshape(len(what), 8)
    differ = (np.asarray(multihost_utils.process_allgather(ours)) != ours).any(axis=(0, 2))
    if differ.any():
        names = ", ".join(name for name, one in zip(what, differ, strict=True) if one)
        raise InputError(
            f"--coordinator: the processes differ in: {names}; start the same command on the same "
            "data, packages and kind of device everywhere"
        )


def from_first(make: Callable[[], PyTree], like: PyTree) -> PyTree:
    """Returns in every process what make() returns in the first: arrays shaped like `like`.

    An `InputError` in the first process ends all of them; only the first one says why.
    """
    if not several():
        return make()
    made, failed = like, None
    try:
        made = make() if is_first() else like
    except InputError as failure:
        failed = failure
    if multihost_utils.broadcast_one_to_all(np.asarray(failed is not None)):
        if failed is not None:
            raise failed
        leave(2)  # as an input error does
    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, made))


def agree_on_signals() -> None:
    """Notes in every process a signal that reached any of them."""
    if several():
        numbers = multihost_utils.process_allgather(np.int32(signals.pending()))
        signals.note(int(np.max(numbers)))


def is_without_another(failure: Exception) -> bool:
    """Returns whether a computation failed because another of several processes has ended.

    JAX raises a JaxRuntimeError, or a ValueError that begins with one of `LOST` if the other had
    ended before the computation began.
    """
    said = str(failure)
    broken = isinstance(failure, ValueError) and said.partition(":")[0] in LOST
    if not (several() and (broken or isinstance(failure, JaxRuntimeError))):
        return False
    return "RESOURCE_EXHAUSTED" not in said  # this process's own memory


def leave(code: int) -> None:
    """Ends this process at once if it is one of several; a normal exit waits for the others."""
    if several():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        time.sleep(2.0 if is_first() else 0.0)  # once the first is gone, the others are ended too
        os._exit(code)
