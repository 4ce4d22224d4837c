"""Studies on a Ray cluster of this machine, and the runs of a job array: equal to those in turn."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import faults
import numpy as np
import pytest
from helpers import ROOT

from jax_kdpr.core.provenance import versions
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies import cluster
from jax_kdpr.studies.worker import STARTED, Node, answer, running_on

if not os.environ.get("KDPR_REQUIRE_RAY"):  # set by .ci/run, where a skip must not pass
    pytest.importorskip("ray")

pytestmark = pytest.mark.slow
STUDY = """
from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Entry, Study, Table, student_entry, teacher_entry

def get_config():
    base = Config()
    base.data.source = "scenes"
    base.data.size, base.net.widths, base.spectral.iterations = 16, (4, 8), 5
    base.data.train_images = base.data.validation_images = base.data.test_images = 32
    base.train.batch_size, base.train.epochs, base.train.devices = 8, 3, 1
    guided = {"loss.alpha": 0.9, "loss.beta": 0.05}
    entries = {
        "teacher-2": teacher_entry(2),
        "student": student_entry("student", guided, teacher="teacher-2"),
        "fails": Entry(label="fails", changes={"optim.net_lr": 1e30}),
    }
    table = Table(title="t", question="q", entries=("teacher-2", "student"), baseline="student")
    return Study(title="t", base=base, seeds=(0,), entries=entries, sections=(table,))
"""


def environment() -> dict[str, str]:
    """Of a shell in which this Python is the one that `python` means."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return commands.user_environment(PATH=path, PYTHONPATH=str(ROOT))


def start(folder: Path, workdir: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jax_kdpr.study", "--config=study.py", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=commands.user_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=400)
    return process.returncode, output, errors


def running(workdir: Path) -> list[int]:
    """The workers that have a run now."""
    found = [running_on(log) for log in (workdir / "logs").glob("*.txt")]
    return [int(where.rpartition("pid ")[2]) for where in found if where]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study, and its runs done in turn."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "study.py").write_text(STUDY)
    done = commands.run("study", "--config=study.py", "--workdir=in-turn", cwd=folder)
    assert done.returncode == 1 and "failed: fails, seed 0" in done.stderr, done
    return folder


def await_worker(process: subprocess.Popen[str], workdir: Path, *, other_than: int = 0) -> int:
    """Waits until a run is under way; returns its worker."""
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        for worker in set(running(workdir)) - {other_than}:
            return worker
        time.sleep(0.1)
    pytest.fail(str(finish(process)))


def test_killed_interrupted_and_gone_on_with_the_runs_are_those_done_in_turn(folder):
    workdir = folder / "runs"
    process = start(folder, "runs", "--cluster=local", "--max_retries=5", "--only=student")
    killed = await_worker(process, workdir)
    time.sleep(4.0)
    os.kill(killed, signal.SIGKILL)
    taken_again = await_worker(process, workdir, other_than=killed)
    time.sleep(4.0)
    process.send_signal(signal.SIGTERM)
    code, _, errors = finish(process)
    assert code == 128 + signal.SIGTERM and "run the same command again" in errors, errors
    assert run_folder.epochs_done(workdir / "teacher-2" / "seed-0") < 3
    assert not any(Path(f"/proc/{worker}").exists() for worker in (killed, taken_again))
    (log,) = (workdir / "logs").glob("*.txt")  # the student never began
    assert log.read_text().count(STARTED) == 2

    # A job of an array goes on where the cluster was; the student's does its teacher first.
    array = ("--config=study.py", "--workdir=runs", "--only=student", "--array_index=1")
    done = commands.run("study", *array, cwd=folder)
    assert done.returncode == 0, done
    # The cluster again: nothing is left but what fails.
    code, output, errors = finish(start(folder, "runs", "--cluster=local"))
    assert code == 1 and "2 of 3 runs done, 1 failed, 0 running" in output, output
    assert "failed: fails, seed 0" in errors and "non-finite" in errors, errors
    assert (workdir / "report" / "report.json").exists()
    for run in ("teacher-2/seed-0", "student/seed-0"):
        assert faults.record(workdir / run) == faults.record(folder / "in-turn" / run)
        one, two = (np.load(folder / name / run / "scores.npz") for name in ("in-turn", "runs"))
        for name in one.files:  # on one core in place of two
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-5)


def test_the_commands_of_the_page_for_this_machine(tmp_path):
    (tmp_path / "configs" / "cpu").mkdir(parents=True)
    quick = STUDY.replace("epochs, base.train.devices = 8, 3, 1", "epochs = 8, 1")
    (tmp_path / "configs" / "cpu" / "e2e.py").write_text(
        quick.replace("return Study", "return base #")
    )
    shown = (
        quick[: quick.index("    entries = {")]
        + """
    table = Table(title="t", question="q", entries=("e2e",), baseline="e2e")
    entries = {"e2e": Entry(label="E2E")}
    return Study(title="t", base=base, seeds=(0,), entries=entries, sections=(table,))
"""
    )
    (tmp_path / "configs" / "cpu" / "study.py").write_text(shown)
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    page = (ROOT / "docs" / "guides" / "scale.md").read_text()
    commands_of_page = re.findall(r"^```sh\n(.*?)\n```", page, re.DOTALL | re.MULTILINE)
    assert len(commands_of_page) == 3
    for command in commands_of_page:
        ran = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert ran.returncode == 0, ran
    for run in ("study/e2e/seed-0", "two"):
        assert len(faults.record(tmp_path / "runs" / run)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cluster=127.0.0.1:1",), "no cluster answers at '127.0.0.1:1'"),
        (("--cluster=local", "--gpus_per_run=1"), "no machine has 1 CPUs and 1 GPUs"),
        (("--gpus_per_run=1",), "--gpus_per_run: is read only with --cluster"),
        (("--array_index=6",), "--array_index: expected 0 to 2, got 6"),
        (("--array_index=0", "--cluster=local"), "--array_index: does one run and nothing else"),
        (("--cluster=local", "--report_only"), "--cluster: does runs; leave out --dry_run"),
        (("--cluster=local", "--gpus_per_run=1.5"), "expected a share of one GPU, a whole number"),
    ],
)
def test_what_no_cluster_can_do_is_one_line(folder, options, said):
    done = commands.run("study", "--config=study.py", "--workdir=refused", *options, cwd=folder)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done
    assert not any((folder / "refused").glob("*/seed-*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lacks": "/scratch/mine"}, "--workdir: node-7 does not see '/scratch/mine'"),
        ({"keeps_locks": False}, "--workdir: node-7 does not see that a file there is locked"),
        ({"versions": versions() | {"jax": "0.1"}}, "node-7 has jax 0.1, expected"),
        ({"versions": {}}, "node-7 has jax_kdpr None, expected"),
        ({"sees_gpu": False}, "JAX on node-7 finds no GPU"),
    ],
)
def test_a_machine_that_cannot_do_the_runs_is_named(changes, said):
    node = Node("node-7", lacks="", keeps_locks=True, versions=versions(), sees_gpu=True)
    share = cluster.Share(cpus=1, gpus=1, retries=0)
    cluster.require_able(node, share)
    with pytest.raises(cluster.InputError, match=re.escape(said)):
        cluster.require_able(node._replace(**changes), share)


def test_a_machine_says_whether_it_sees_a_lock(tmp_path):
    with (tmp_path / "token").open("wb") as file:
        given = [str(tmp_path)], str(tmp_path / "token"), False
        assert not answer(*given).keeps_locks
        fcntl.flock(file, fcntl.LOCK_EX)
        assert answer(*given).keeps_locks
        assert not answer([str(tmp_path / "gone")], str(tmp_path / "gone"), False).keeps_locks
