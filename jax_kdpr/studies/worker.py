"""What a machine of a cluster does for a study.

This module deals with processes only, so that it starts quickly.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jax_kdpr.core.provenance import versions

GRACE = 120.0  # seconds that a run may take to save when the study is interrupted
NOT_RUN = -1  # not the exit code of any process
STARTED, ENDED = "== started on ", "== ended with code "  # beginnings of lines in a log
POLL = 0.2  # seconds between two looks at a run
PR_SET_PDEATHSIG = 1  # of prctl(2)
# Looked up here, because nothing may be loaded after a fork.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Node(NamedTuple):
    """What one machine of a cluster answered."""

    host: str
    lacks: str  # the first path of the study that it does not see; empty if it sees all
    keeps_locks: bool  # whether it saw that a file of the study is locked elsewhere
    versions: dict[str, str]
    sees_gpu: bool


def answer(folders: list[str], locked: str, wants_gpu: bool) -> Node:
    """Reports on this machine, as a `Node`.

    It says whether the machine sees some folders, and that the file `locked` is locked; which
    versions it has installed; and, if `wants_gpu`, whether JAX finds a GPU.
    """
    lacks = next((folder for folder in folders if not os.path.exists(folder)), "")
    keeps_locks = False
    with suppress(OSError), open(locked, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            keeps_locks = True
    ask = "import jax, sys; sys.exit(jax.default_backend() == 'cpu')"
    sees_gpu = wants_gpu and not subprocess.run([sys.executable, "-c", ask], check=False).returncode
    return Node(socket.gethostname(), lacks, keeps_locks, versions(), sees_gpu)


def work(command: list[str], log: str, folder: str, cpus: float, teacher: int | None = None) -> int:
    """Does one run in a process that ends with this one.

    Args:
        command: The command that does the run.
        log: File to which its output is added.
        folder: Its working folder.
        cpus: Cores that it may use.
        teacher: What this function returned for the run of its teacher, if it has one.

    Returns:
        The exit code; `NOT_RUN` where the teacher's was not 0.
    """
    if teacher:
        return NOT_RUN
    cores = max(1, int(cpus))
    environment = dict(os.environ)
    if "xla_force_host_platform_device_count" not in environment.get("XLA_FLAGS", ""):
        flags = f"--xla_force_host_platform_device_count={cores}"
        one_thread = "--xla_cpu_multi_thread_eigen=false"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags} {one_thread}"
    environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = str(cores)
    with open(log, "ab") as file:
        file.write(f"{STARTED}{socket.gethostname()}, pid {os.getpid()}\n".encode())
        file.flush()
        parent = os.getpid()
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=environment,
            preexec_fn=lambda: _end_with(parent),
        )
        try:
            while (code := process.poll()) is None:
                time.sleep(POLL)  # Ray cancels by an exception between two Python instructions
        except BaseException:  # cancelled
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            raise
        file.write(f"{ENDED}{code}\n".encode())
    return code


def running_on(log: Path) -> str:
    """Returns where a run is now, "HOST, pid PID", by its log; "" if it is not running."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.startswith((STARTED, ENDED))), "")
        return last.removeprefix(STARTED) if last.startswith(STARTED) else ""
    return ""


def _end_with(parent: int) -> None:
    """Lets the kernel kill this process when its parent dies, so that no run is trained twice."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has died already
        os._exit(1)
