"""Studies whose trainings are those of `golden.py`, with other scores for each seed."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import golden
import numpy as np
import pytest

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files
from jax_kdpr.evaluation import scoring
from jax_kdpr.evaluation.speed.timing import Timing
from jax_kdpr.studies import declaration, rehearsal, report, runner
from jax_kdpr.studies.declaration import Entry, Study, Table
from jax_kdpr.studies.plan import plan

STUDENT = {"regime": "student", "loss.alpha": 0.6, "loss.beta": 0.2}
TEACHER = {"distill.draws": "shared", "regime": "teacher", "masks.snapshots": 3}


def tiny_study(**changes) -> Study:
    entries = {
        "student": Entry(label="a <student>", changes=STUDENT, teacher="teacher"),
        "e2e": Entry(label="E2E"),
        "teacher": Entry(label="three shots", changes=TEACHER),
    }
    shown = {"question": "Why?", "entries": ("e2e", "student")}
    table = {"entries": tuple(entries), "baseline": "e2e", "paper": {"e2e": (26.41, 0.910)}}
    levels = {"snr_db": (0.0, 60.0), "photons": (1e2, 1e9), "images": 10}
    lines = {"teacher": {1.0: "e2e", 3.0: "teacher"}}
    sections = (
        Table(title="Gains", question="Does it help?", **table),
        declaration.Sweep(title="Shots", question="How many?", axis="snapshots", lines=lines),
        declaration.Samples(title="Samples", **shown),
        declaration.Curves(title="Curves", **shown),
        declaration.Masks(title="Masks", **shown),
        declaration.Robustness(title="Noise", **shown | {"entries": ("student",)}, **levels),
        declaration.Costs(title="Costs", **shown, paper={"e2e": (3661.0, 5577.0, 76.0)}),
        declaration.Front(title="Front", question="How fast?", entries=tuple(entries)),
        declaration.Optics(title="Alone", **shown, baseline="e2e"),
    )
    fields = {"title": "Tiny", "base": golden.config_of("e2e"), "entries": entries}
    return Study(**fields | {"sections": sections, "seeds": (0, 1), "refine": 4} | changes)


class Recorded:
    """What a study calls, in place of trainings and scorings that take seconds each."""

    def __init__(self, folder: Path):
        self.folder, self.called = folder, []

    def train(self, config: Config, workdir: Path) -> None:
        self.called.append(f"{workdir.parent.name}, seed {config.seed}")
        shutil.copytree(self.folder / workdir.parent.name, workdir)
        record = json_files.read_json(workdir / "run.json")
        record["config"]["seed"] = config.seed
        record["config"]["distill"]["teacher"] = config.distill.teacher
        json_files.write_json(workdir / "run.json", record)

    def load_run(self, workdir: Path) -> Path:
        """Stands for the run of which nothing but its folder is read."""
        return workdir

    def score_run(self, workdir: Path, *, refinement) -> None:
        """Scores that differ from seed to seed and from entry to entry."""
        rng = np.random.default_rng(list(bytes(workdir)))
        arrays = dict(np.load(workdir / "scores.npz"))
        arrays["recovered_mse"] *= rng.uniform(0.2, 0.9, 32).astype(np.float32)
        np.savez(workdir / "scores.npz", **arrays)
        record = json_files.read_json(workdir / "metrics.json")
        psnr = float(np.mean(-10 * np.log10(arrays["recovered_mse"])))
        record["scores"]["recovered"]["psnr"] = psnr
        record["scores"]["refined"] = record["scores"]["recovered"] | {"psnr": psnr + 3}
        json_files.write_json(workdir / "metrics.json", record | {"refine": refinement.steps})

    def score_under_noise(self, workdir, *, snr_db, photons, images, refinement) -> dict:
        levels = scoring.noise_levels(snr_db, photons)
        one = {kind: {f"{level:g}": 12.5 for level in found} for kind, found in levels.items()}
        return {name: {"recovered": one, "refined": one} for name in ("psnr", "rms")}

    def judge_optics(self, workdir: Path) -> dict:
        run = json_files.read_json(workdir / "metrics.json")["checkpoint_digest"]
        own = 2.0 * ("student" in str(workdir)) + int(str(workdir)[-1])
        return {"checkpoint": run, "estimate": 20.0, "consistent": 30.0 + own} | {
            **{"cramer_rao": None, "bayesian": 35.0}
        }

    def trace_step(self, *_):
        return self

    def compile_bytes(self) -> int:
        return 3 << 20

    def time_inference(self, configs, *, batch) -> list[Timing]:
        """The second takes most, the first least."""
        slower = (1, 3, 2)[: len(configs)]
        return [Timing(factor * batch * np.array([0.01, 0.02, 0.03])) for factor in slower]


@contextmanager
def taken_over(recorded):
    """The calls of a study that `Recorded` answers meanwhile."""
    calls = Recorded(recorded)
    with pytest.MonkeyPatch.context() as patch:
        own = ("judge_optics", "trace_step", "time_inference")
        for name in ("load_run", "score_run", "score_under_noise", *own):
            patch.setattr(runner, name, getattr(calls, name))
        patch.setattr(runner.loop, "train", calls.train)
        patch.setattr(rehearsal, "expected_rate", lambda: 1e9)
        yield calls


@pytest.fixture
def quick(recorded):
    """Those calls, for one test."""
    with taken_over(recorded) as calls:
        yield calls


@pytest.fixture(scope="module")
def finished(recorded, tmp_path_factory):
    """(study, its folder) with everything done in one go."""
    study, workdir = tiny_study(), tmp_path_factory.mktemp("study")
    with taken_over(recorded):
        assert runner.run_study(study, plan(study, workdir), workdir) == {}
    return study, workdir


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """(folder of its report, the text)."""
    output = tmp_path_factory.mktemp("report")
    return output, write(*finished, output)


def write(study: Study, workdir: Path, output: Path) -> str:
    report.write_report(study, plan(study, workdir), workdir, output, command="the command")
    return (output / "report.md").read_text()
