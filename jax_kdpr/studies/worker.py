"""What a machine of a cluster does for a study. It knows of processes alone, and starts at once."""

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

from jax_kdpr.core.versions import versions

GRACE = 120.0  # seconds that a run may take to save when the study is interrupted
NOT_RUN = -1  # no process's exit code
STARTED, ENDED = "== started on ", "== ended with code "  # begin a line of a log
POLL = 0.2  # seconds from one look at a run to the next
PR_SET_PDEATHSIG = 1  # of prctl(2)
# Looked up here: after a fork nothing may be loaded.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Node(NamedTuple):
    """What one machine of a cluster answered."""

    host: str
    lacks: str  # of the study's folders; empty if all are there
    keeps_locks: bool  # whether it saw that a file of the study's is locked elsewhere
    versions: dict[str, str]
    sees_gpu: bool


def answer(folders: list[str], locked: str, wants_gpu: bool) -> Node:
    """Says whether this machine sees some folders, and that a file is `locked`; also what it has
    installed, and its GPU."""
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
        command: That does it.
        log: File that its output is added to.
        folder: To do it in.
        cpus: Cores that it may take.
        teacher: What this function returned for its teacher's run, if it waited for one.

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
                time.sleep(POLL)  # Ray's cancel is an exception between two instructions
        except BaseException:  # cancelled
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            raise
        file.write(f"{ENDED}{code}\n".encode())
    return code


def running_on(log: Path) -> str:
    """Returns where a run is, "HOST, pid PID", by its log; "" if it has not begun, or has ended."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.startswith((STARTED, ENDED))), "")
        return last.removeprefix(STARTED) if last.startswith(STARTED) else ""
    return ""


def _end_with(parent: int) -> None:
    """Lets the kernel kill this process when its parent dies, so that no run is trained twice."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
