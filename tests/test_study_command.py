"""`python -m jax_kdpr.study` as a process: what it prints, writes and returns."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import run, user_environment
from places import Place

from jax_kdpr.core import json_files
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.folder import METRICS_FILE

STUDY = """
from jax_kdpr.config.schema import Config, Source
from jax_kdpr.studies.declaration import Costs, Entry, Study, Table

def get_config():
    base = Config()
    base.data.source = Source.IMAGES
    base.data.dir = {stack!r}
    base.data.size = 16
    base.spectral.iterations = 2
    base.net.widths = (8, 16)
    base.train.epochs = 2
    base.train.batch_size = base.train.eval_batch_size = 16
    entries = {{
        "e2e": Entry(label="E2E"),
        "random": Entry(label="random", changes={{"regime": "random"}}),
        "quick": Entry(label="fast masks", changes={{"optim.mask_lr": 0.1}}),
    }}
    table = Table(title="All", question="?", entries=tuple(entries), baseline="e2e")
    return Study(title="Three", base=base, entries=entries, sections=(table,), seeds=(0,))
"""


# A study that the signal meets outside every training, where no loop is there to note it.
BETWEEN = """
import signal, time
from jax_kdpr import study
from jax_kdpr.interface import cli
study.run_study = lambda *_: (signal.raise_signal(signal.{name}), time.sleep(2.0), {{}})[-1]
cli.run(study.main, prefix="base.", others=("seeds",))
"""


class StudyPlace:
    """A place with a study of three entries, and the config of a run."""

    def __init__(self, folder: Path):
        self.folder = folder
        place = Place(folder)
        place.config(name="run.py")
        (folder / "study.py").write_text(STUDY.format(stack=str(place.stack)))

    def start(
        self,
        *options: str,
        workdir: str = "out",
        program: tuple[str, str] = ("-m", "jax_kdpr.study"),
    ) -> subprocess.Popen:
        command = [sys.executable, *program, "--config", "study.py"]
        return subprocess.Popen(
            [*command, *([f"--workdir={workdir}"] if workdir else []), *options],
            cwd=self.folder,
            env=user_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, workdir: str = "out") -> tuple[int, str, str]:
        given = ("--config=study.py", *([f"--workdir={workdir}"] if workdir else []), *options)
        done = run("study", *given, cwd=self.folder)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> StudyPlace:
    return StudyPlace(tmp_path_factory.mktemp("study"))


@pytest.mark.slow
def test_a_dry_run_lists_and_compiles_and_writes_nothing(place):
    code, output, errors = place.run("--dry_run", "--compile", workdir="dry")
    assert code == 0, errors
    for name in ("e2e", "random", "quick"):
        assert f"| {name} " in output
    assert "3 runs, 0 done; about" in output and "rough guess" in output
    assert "quick: the step of" not in output and "3 distinct steps compiled" in output
    assert not (place.folder / "dry").exists()


@pytest.mark.slow
def test_an_interrupted_study_leaves_a_report_and_goes_on(place):
    process = place.start()
    finished = place.folder / "out" / "e2e" / "seed-0" / "metrics.json"
    second = place.folder / "out" / "random" / "seed-0" / METRICS_FILE
    until = time.monotonic() + 240
    while not (finished.exists() and second.parent.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "run the same command again" in errors and "Traceback" not in errors
    text = (place.folder / "out" / "report" / "report.md").read_text()
    assert "Not finished yet: random, quick" in text

    scored = finished.read_text()
    code, output, errors = place.run("--only", "random")
    assert code == 0, errors
    assert "== 1 of 1: random, seed 0" in output
    assert finished.read_text() == scored  # what is done is left alone
    code, output, errors = place.run("--report_only")
    assert code == 0, errors
    report = json.loads((place.folder / "out" / "report" / "report.json").read_text())
    assert {name for name, entry in report["entries"].items() if entry["seeds"]} == {
        "e2e",
        "random",
    }
    assert [row["epoch"] for row in run_folder.read_metrics(second.parent)] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_between_trainings_is_answered_too(place, name):
    process = place.start(workdir="between", program=("-c", BETWEEN.format(name=name)))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.Signals[name], errors
    assert errors.splitlines()[-1] == "interrupted; run the same command again to go on"


@pytest.mark.slow
def test_a_failed_run_gives_exit_code_1_and_its_reason(place):
    overrides = ("--config.base.optim.net_lr=1e30", "--only", "e2e", "--config.seeds=(3,)")
    code, _, errors = place.run(*overrides, workdir="failing")
    assert code == 1
    assert "failed: e2e, seed 3: NonFiniteLossError" in errors
    failures = json_files.read_json(place.folder / "failing" / "failures.json")
    assert list(failures) == ["e2e, seed 3"]


BAD = {
    "no folder": ([], "", ["--workdir", "runs/study"]),
    "positional": (["extra"], "new", ["'extra'"]),
    "unknown entry": (["--only=nobody"], "new", ["--only", "'nobody'", "e2e, random, quick"]),
    "unknown option": (["--config.base.data.siez=3"], "new", ["data.siez", "base.data.size"]),
    "option without base": (["--config.train.epochs=3"], "new", ["base.train.epochs"]),
    "wrong type": (["--config.base.data.size=big"], "new", ["base.data.size", "integer", "big"]),
    "bad value": (["--config.base.masks.oversample=3"], "new", ["masks.oversample", "3"]),
    "no study": (["--config", "run.py"], "new", ["--config", "Study", "jax_kdpr.train"]),
    "no file": (["--config", "nothing.py"], "new", ["nothing.py"]),
    "compile alone": (["--compile"], "new", ["--compile", "--dry_run"]),
    "nothing to report": (["--report_only"], "new", ["no finished run"]),
    "no data": (["--config.base.data.dir=nowhere"], "new", ["nowhere"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name, place):
    options, workdir, words = BAD[name]
    code, _, errors = place.run(*options, workdir=workdir)
    lines = errors.strip().splitlines()
    assert code == 2 and len(lines) == 1, errors
    assert all(word in lines[0] for word in words), lines[0]
    assert not (place.folder / "new").exists()
