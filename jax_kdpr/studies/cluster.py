"""Does the runs of a study side by side, on the machines of a Ray cluster.

Ray decides when and where each run starts. A run is a task with CPUs and GPUs of its own. A
student's task waits for its teacher's, and a task whose worker died is given to another worker. A
task does the same as a job of a job array: `python -m jax_kdpr.study ... --array_index N` in a
process of its own, whose output goes to WORKDIR/logs. So a run that is started again goes on from
its last checkpoint.
"""

import fcntl
import logging
import math
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core import signals
from jax_kdpr.core.errors import InputError, StoppedError, reason
from jax_kdpr.core.provenance import versions
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.declaration import LOGS
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.runner import Minutes
from jax_kdpr.studies.worker import GRACE, NOT_RUN, Node, answer, running_on, work

EVERY = 30.0  # seconds between two tables; each reads the files of all unfinished runs
CONNECTING = 10.0  # seconds that an address may take to answer
ANSWERING = 120.0  # seconds that a node may take to answer
LOCKS = "without locks two jobs may train one run: mount it with flock, or take another folder"
# Environment variables that begin so are passed on to the runs.
PASSED_ON = ("KDPR_", "JAX_", "XLA_", "PYTHON", "OPENBLAS_", "OMP_")


class Share(NamedTuple):
    """What each run gets."""

    cpus: float
    gpus: float
    retries: int  # how often a run is started again if its worker died


def run_on_cluster(
    runs: list[PlannedRun],
    commands: dict[str, list[str]],
    workdir: Path,
    address: str,
    share: Share,
    minutes: Minutes,
) -> dict[str, str]:
    """Does the remaining runs of a study; returns {name of a run that failed: why}.

    Args:
        runs: From `plan.plan`: teachers first.
        commands: The command that does each run, by the run's name.
        workdir: The study's folder: an absolute path, the same on every machine.
        address: "local" to make a cluster of this machine; "auto" for the cluster that this machine
            belongs to; otherwise the address of a cluster.
        share: Share of the cluster for each run. A negative number of GPUs means one GPU, or none
            if the cluster has none.
        minutes: Estimates the minutes that each run still takes.

    Raises:
        InputError: If there is no Ray, no such cluster, or a machine of it cannot do the runs.
        Interrupted: If a signal was noted, after all runs have saved.
    """
    ray = _start(address)
    try:
        if share.gpus < 0:
            share = share._replace(gpus=min(1.0, ray.cluster_resources().get("GPU", 0.0)))
        (workdir / LOGS).mkdir(parents=True, exist_ok=True)
        _require_nodes(ray, workdir, share)
        return _Board(ray, runs, commands, workdir, share, minutes).carry_out()
    finally:
        ray.shutdown()  # only leaves a cluster that was not made here


def _start(address: str) -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError(
            "--cluster: Ray is missing; pip install -e '.[cluster]', here and on every machine"
        ) from missing
    _require_answer(address)
    passed = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "address": "local"}
    else:
        options |= {"address": address, "runtime_env": {"env_vars": passed}}
    handlers = {number: signal.getsignal(number) for number in signals.ENDING}
    try:
        with warnings.catch_warnings():  # Ray forks a process that has threads
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(**options)
    except Exception as failure:  # of many kinds
        raise InputError(
            f"--cluster: no cluster answers at {address!r} ({reason(failure)}); start one with "
            "ray start --head, set RAY_AUTH_TOKEN if it wants one, or give local"
        ) from failure
    for number, handler in handlers.items():  # Ray's own would end at once, and save nothing
        signal.signal(number, handler)
    return ray


def _require_answer(address: str) -> None:
    """Refuses an address where nothing listens, because Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not (host and port.isdigit()):
        return  # local, auto, or a name that Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=CONNECTING).close()
    except OSError as refused:
        raise InputError(
            f"--cluster: no cluster answers at {address!r} ({refused.strerror or refused}); start "
            "one with ray start --head, or give local"
        ) from refused


def _require_nodes(ray: Any, workdir: Path, share: Share) -> None:
    """Refuses a cluster if one of its machines cannot do a run, before any run is started.

    Raises:
        InputError: With the machine and the reason.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    able = [n for n in nodes if _has(n, "CPU", share.cpus) and _has(n, "GPU", share.gpus)]
    if not able:
        most = {kind: max(n["Resources"].get(kind, 0) for n in nodes) for kind in ("CPU", "GPU")}
        raise InputError(
            f"--cpus_per_run, --gpus_per_run: no machine has {share.cpus:g} CPUs and "
            f"{share.gpus:g} GPUs for a run; the largest have {most['CPU']:g} and {most['GPU']:g}"
        )
    token = workdir / f".of-{socket.gethostname()}-{os.getpid()}"
    try:
        with token.open("wb") as locked:
            try:
                fcntl.flock(locked, fcntl.LOCK_EX)
            except OSError as refused:  # as Lustre and NFS may
                raise InputError(
                    f"--workdir: {str(workdir)!r} cannot be locked ({refused.strerror}); {LOCKS}"
                ) from refused
            for node in _answers(ray, able, token, share):
                require_able(node, share)
    finally:
        token.unlink(missing_ok=True)


def _answers(ray: Any, nodes: list[dict[str, Any]], token: Path, share: Share) -> Iterator[Node]:
    """Asks all machines about themselves; yields what each says."""
    asked = {}
    for node in nodes:
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node["NodeID"], soft=False
        )
        task = ray.remote(answer).options(
            num_cpus=0, num_gpus=share.gpus, scheduling_strategy=pinned
        )
        needed = [str(token), str(Path.cwd()), sys.executable]
        asked[task.remote(needed, str(token), share.gpus > 0)] = node
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERING)
    if silent:
        host = asked[silent[0]]["NodeManagerHostname"]
        raise InputError(
            f"--cluster: {host} gives no answer in {ANSWERING:g} s: it is busy or dead; wait, "
            "or take it out of the cluster"
        )
    for ref in answered:
        try:
            yield ray.get(ref)
        except Exception as failure:  # for example, the package is missing
            host = asked[ref]["NodeManagerHostname"]
            said = " ".join(str(failure).split())[-200:]
            raise InputError(
                f"--cluster: {host} cannot run jax_kdpr ({said}); install there what is here"
            ) from failure


def _has(node: dict[str, Any], kind: str, wanted: float) -> bool:
    return node["Resources"].get(kind, 0) >= wanted


def require_able(node: Node, share: Share) -> None:
    """Raises `InputError` if a machine lacks the folder, its locks, these versions, or a GPU."""
    if node.lacks:
        raise InputError(
            f"--workdir: {node.host} does not see {node.lacks!r}; a study on several machines "
            "wants a folder that all share, by the same name"
        )
    if not node.keeps_locks:
        raise InputError(
            f"--workdir: {node.host} does not see that a file there is locked here; {LOCKS}"
        )
    ours = versions()
    for package, version in ours.items():
        if node.versions.get(package) != version:
            raise InputError(
                f"--cluster: {node.host} has {package} {node.versions.get(package)}, expected "
                f"{version} as here; install the same everywhere"
            )
    if share.gpus and not node.sees_gpu:
        raise InputError(
            f"--gpus_per_run: JAX on {node.host} finds no GPU; install jax_kdpr[cuda12] or "
            "[cuda13] there, or give 0"
        )


class _Board:
    """The tasks of a study: those that wait, those that run, and those that are done."""

    def __init__(
        self,
        ray: Any,
        runs: list[PlannedRun],
        commands: dict[str, list[str]],
        workdir: Path,
        share: Share,
        minutes: Minutes,
    ):
        self._ray, self._runs, self._share, self._minutes = ray, runs, share, minutes
        self._failures: dict[str, str] = {}
        self._workers = 0
        self._logs = {run.name: workdir / LOGS / f"{run.entry}-{run.seed}.txt" for run in runs}
        task = ray.remote(work).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_retries=share.retries
        )
        self._tasks: dict[Any, PlannedRun] = {}
        refs: dict[str, Any] = {}
        for run in runs:
            if run.is_done:
                continue
            teacher = refs.get(run.teacher.name) if run.teacher else None
            log = str(self._logs[run.name])
            given = (commands[run.name], log, str(Path.cwd()), share.cpus, teacher)
            refs[run.name] = task.remote(*given)
            self._tasks[refs[run.name]] = run

    def carry_out(self) -> dict[str, str]:
        """Waits for all tasks; returns the failures."""
        waiting, shown = list(self._tasks), 0.0
        self._tell(waiting)
        while waiting:
            if signals.received():
                self._stop(waiting)
                signals.check()
            done, waiting = self._ray.wait(waiting, timeout=1.0)
            for ref in done:
                self._note(ref)
            if not waiting or time.monotonic() - shown > EVERY:
                self._tell(waiting)
                shown = time.monotonic()
        return self._failures

    def _note(self, ref: Any) -> None:
        run = self._tasks[ref]
        try:
            code = self._ray.get(ref)
        except Exception as failure:  # the worker died too often, or its machine is gone
            self._failures[run.name] = f"its worker died ({reason(failure)})"
            return
        if code == NOT_RUN:
            teacher = run.teacher and run.teacher.name
            self._failures[run.name] = f"not run: its teacher ({teacher}) failed"
        elif code:
            self._failures[run.name] = _why(run.name, self._logs[run.name], code)
        if run.name in self._failures:
            print(f"failed: {run.name}: {self._failures[run.name]}", flush=True)

    def _tell(self, waiting: Iterable[Any]) -> None:
        """Prints how far the study is, and what runs where."""
        left = [self._tasks[ref] for ref in waiting]
        running = [(run, host) for run in left if (host := running_on(self._logs[run.name]))]
        done = len(self._runs) - len(left) - len(self._failures)
        self._workers = max(self._workers, len(running), 1)
        minutes = sum(self._minutes().values()) / self._workers if left else 0.0
        print(
            f"{done} of {len(self._runs)} runs done, {len(self._failures)} failed, {len(running)} "
            f"running; about {timedelta(minutes=math.ceil(minutes))} h left",
            flush=True,
        )
        for run, host in running:
            epoch = f"epoch {run_folder.epochs_done(run.workdir)} of {run.config.train.epochs}"
            print(f"  {run.name:<32} {epoch:<18} {host}", flush=True)

    def _stop(self, waiting: list[Any]) -> None:
        """Ends the tasks of this study: those that run save, those that wait do not begin.

        Raises:
            StoppedError: If a run does not end.
        """
        print("interrupted: the runs save and leave", file=sys.stderr, flush=True)
        for ref in reversed(waiting):  # students first, or they would begin now
            self._ray.cancel(ref, force=False)
        _, still = self._ray.wait(waiting, num_returns=len(waiting), timeout=GRACE)
        if still:
            names = ", ".join(self._tasks[ref].name for ref in still)
            raise StoppedError(f"not ended after {GRACE:g} s: {names}; the cluster ends them")


def _why(name: str, log: Path, code: int) -> str:
    """Returns why a run failed, by the last line of its log that says so."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = [line for line in lines if line.startswith(("failed: ", "error: "))]
    why = said[-1].partition(": ")[2] if said else f"exit code {code}"
    return f"{why.removeprefix(f'{name}: ')} ({log})"
