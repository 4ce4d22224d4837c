"""`python -m jax_kdpr.study` as a process: what it prints, writes and returns."""

import signal
import subprocess
import sys
import time

import pytest
from commands import user_environment
from places import Place

from jax_kdpr.core import json_files
from jax_kdpr.runs.folder import METRICS_FILE

pytestmark = pytest.mark.slow

# A study that the signal meets outside every training, where no loop is there to note it.
BETWEEN = """
import signal, time
from jax_kdpr import study
from jax_kdpr.interface import cli
study.run_study = lambda *_: (signal.raise_signal(signal.SIGINT), time.sleep(2.0), {})[-1]
cli.run(study.main, prefix="base.")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("study"))


def study(place: Place, workdir: str, *options: str):
    return place.run("study", "--config", "study.py", "--workdir", workdir, *options)


def start(place: Place, *program: str, workdir: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, "--config", "study.py", "--workdir", workdir],
        cwd=place.folder,
        env=user_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_dry_run_lists_and_compiles_and_writes_nothing(place):
    code, output, errors = study(place, "dry", "--dry_run", "--compile", "--only=e2e,bound")
    assert code == 0, errors
    assert "| e2e " in output and "| random " not in output
    assert "2 runs, 0 done" in output
    assert "bound: the step of e2e" in output and "1 distinct steps compiled" in output
    assert not (place.folder / "dry").exists()


def test_an_interrupted_study_leaves_a_report(place):
    process = start(place, "-m", "jax_kdpr.study", workdir="out")
    out = place.folder / "out"
    finished = out / "e2e" / "seed-0" / "metrics.json"
    second = out / "random" / "seed-0" / METRICS_FILE
    until = time.monotonic() + 240
    while not (finished.exists() and second.parent.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "run the same command again" in errors and "Traceback" not in errors
    text = (out / "report" / "report.md").read_text()
    assert "random, bound" in text  # which are not finished

    (out / "report" / "report.md").unlink()
    code, _, errors = study(place, "out", "--report_only")
    assert code == 0, errors
    assert (out / "report" / "report.md").read_text().splitlines()[:2] == text.splitlines()[:2]
    report = json_files.read_json(out / "report" / "report.json")
    assert {name for name, entry in report["entries"].items() if entry["seeds"]} == {"e2e"}


def test_a_signal_between_trainings_is_answered_too(place):
    process = start(place, "-c", BETWEEN, workdir="between")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert errors.splitlines()[-1].startswith("interrupted; ")


def test_a_failed_run_gives_exit_code_1_and_its_reason(place):
    options = ("--config.base.optim.net_lr=1e30", "--only=e2e", "--config.seeds=(3,)")
    code, _, errors = study(place, "failing", *options)
    assert code == 1
    assert any("e2e, seed 3: NonFiniteLossError" in line for line in errors)
    assert list(json_files.read_json(place.folder / "failing" / "failures.json")) == ["e2e, seed 3"]
