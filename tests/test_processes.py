"""One training by two processes of this machine: as by one with two devices; stopped as one."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import commands
import faults
import jax
import numpy as np
import pytest
from compiling import QUICKLY_COMPILED
from helpers import rejection

from jax_kdpr.core import processes, runtime
from jax_kdpr.runs import folder as run_folder

CONFIG = """
from jax_kdpr.config import Config

def get_config():
    config = Config()
    config.data.source = "scenes"
    config.data.size, config.net.widths, config.spectral.iterations = 16, (4, 8), 3
    config.data.train_images = config.data.validation_images = config.data.test_images = 32
    config.noise.kind = "poisson"
    config.train.batch_size, config.train.epochs, config.train.eval_batch_size = 8, 30, 32
    config.train.validate_every = 15
    return config
"""


# A program of two processes: the second ends, or the first has a bug of its own.
PROGRAM = """
import os
import sys
import time

from jax_kdpr.core import processes
from jax_kdpr.interface import cli

bug, address, number = sys.argv.pop() == "bug", sys.argv.pop(), int(sys.argv.pop())

def main(_):
    processes.agree_on_signals()
    if number == 1:
        time.sleep(100) if bug else os._exit(9)
    if bug:
        raise KeyError("a bug")
    for _ in range(1000):
        processes.agree_on_signals()

cli.run(main, first=lambda: processes.join(address, 2, number))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder, arguments: Callable[[str, int], list[str]]) -> list[subprocess.Popen[str]]:
    """Starts two processes with arguments(address of the first, number) for Python."""
    one_device = " --xla_force_host_platform_device_count=1"
    environment = commands.user_environment(XLA_FLAGS=QUICKLY_COMPILED + one_device)
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, *arguments(address, number)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def start_training(folder) -> list[subprocess.Popen[str]]:
    train = ["-m", "jax_kdpr.train", "--config=config.py", "--workdir=run", "--processes=2"]
    return start(
        folder, lambda address, number: [*train, f"--coordinator={address}", f"--process={number}"]
    )


def await_epoch(processes: list[subprocess.Popen[str]], run) -> None:
    until = time.monotonic() + 200
    while not run_folder.epochs_done(run):
        if time.monotonic() > until or any(one.poll() is not None for one in processes):
            pytest.fail(str([(one.kill(), one.communicate()) for one in processes]))
        time.sleep(0.2)


@pytest.mark.slow
def test_two_processes_are_stopped_as_one_and_are_as_two_devices(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    both = start_training(tmp_path)
    run = tmp_path / "run"
    await_epoch(both, run)
    both[1].send_signal(signal.SIGTERM)  # to the one that writes nothing
    said = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [128 + signal.SIGTERM] * 2, said
    assert "saved; run the same command again" in said[0][1] and not said[1][0], said

    # The other is killed: the first says so and ends.
    both = start_training(tmp_path)
    done = run_folder.epochs_done(run)
    while run_folder.epochs_done(run) == done and both[0].poll() is None:
        time.sleep(0.1)
    both[1].kill()
    _, errors = both[0].communicate(timeout=60)
    both[1].communicate()
    assert both[0].returncode == 1, errors
    assert "error: another process has ended" in errors, errors
    assert 0 < run_folder.epochs_done(run) < 30

    # One process goes on, with two devices; another makes the whole.
    for workdir in ("run", "whole"):
        alone = ("--config=config.py", "--config.train.devices=2", f"--workdir={workdir}")
        commands.run("train", *alone, cwd=tmp_path, check=True)
    rows, expected = faults.record(run), faults.record(tmp_path / "whole")
    assert len(rows) == len(expected) == 30
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("end", "error: another process has ended ("),
        ("bug", "Traceback (most recent call last):"),
    ],
)
def test_the_first_process_ends_at_once_without_the_other(tmp_path, what, said):
    """Not after minutes in which JAX waits for the other, nor by its abort."""
    (tmp_path / "program.py").write_text(PROGRAM)
    first, second = start(tmp_path, lambda *place: ["program.py", str(place[1]), place[0], what])
    _, errors = first.communicate(timeout=60)
    second.kill()
    second.communicate()
    assert first.returncode == 1 and errors.startswith(said), errors
    assert errors.endswith("to go on\n" if what == "end" else "KeyError: 'a bug'\n"), errors


@pytest.mark.parametrize(
    ("requested", "batches", "said"),
    [
        (0, (9, 8), "train.batch_size: expected a multiple of the 4 devices of the 2 processes"),
        (0, (8, 6), "train.eval_batch_size: expected a multiple of the 4 devices"),
        (2, (8, 8), "train.devices: expected 0, or all 4 devices of the 2 processes, got 2"),
    ],
)
def test_what_several_processes_cannot_share_out_is_refused(requested, batches, said):
    with mock.patch.object(jax, "process_count", lambda: 2):
        assert runtime.choose_devices(0, 8, 8) == jax.device_count() == 4
        assert said in rejection(runtime.choose_devices, requested, *batches)


def test_a_process_that_cannot_know_which_it_is_is_refused(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    for given, said in (
        (["--process=1"], "--process: is read only with --coordinator"),
        (["--coordinator=127.0.0.1:1"], "expected --processes N and --process 0 to N - 1"),
        (["--coordinator=auto", "--process=1"], "auto finds --processes and --process"),
        (["--coordinator=here", "--processes=2", "--process=1"], "expected HOST:PORT, got 'here'"),
        (["--coordinator=auto"], "nothing here tells which process"),
    ):
        train = ("train", "--config=config.py", "--workdir=run", *given)
        done = commands.run(*train, cwd=tmp_path)  # a process of its own: JAX has no devices yet
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"config": 1, "data": 2}, ""),
        ({"config": 1, "data": 3}, "the processes differ in: data; start the same command"),
    ],
)
def test_processes_of_other_data_are_refused(theirs, said):
    """What the second process would send is put beside what the first does."""
    sent = []

    def gather(ours):
        sent.append(ours)
        return np.stack(sent * 2 if len(sent) == 1 else sent)

    with (
        mock.patch.object(processes, "several", lambda: True),
        mock.patch.object(processes.multihost_utils, "process_allgather", gather),
    ):
        processes.require_same(**theirs)
        if said:
            assert said in rejection(processes.require_same, config=1, data=2)
        else:
            processes.require_same(config=1, data=2)
