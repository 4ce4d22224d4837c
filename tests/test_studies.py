"""Studies: plans, reports, and what interrupts or fails.

The trainings of a study are those of `golden.py`, taken over, with other scores for each seed.
"""

import copy
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import golden
import numpy as np
import pytest
from helpers import rejection

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, signals
from jax_kdpr.core.errors import InUseError
from jax_kdpr.evaluation import alone, plots, scoring
from jax_kdpr.evaluation.speed.timing import Timing
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies import declaration, programs, rehearsal, report, runner
from jax_kdpr.studies.declaration import Entry, Study, Table
from jax_kdpr.studies.document import Document
from jax_kdpr.studies.plan import only_these, plan
from jax_kdpr.studies.results import gain, read_results
from jax_kdpr.studies.sections import Place, add_section
from jax_kdpr.studies.statistics import over_seeds

pytestmark = pytest.mark.usefixtures("undrawn")
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
        for name in ("score_run", "score_under_noise", *own):
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


# Plans


def test_teachers_come_before_their_students_and_seeds_one_after_the_other(tmp_path):
    runs = plan(tiny_study(), tmp_path)
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1]
    assert [run.entry for run in runs[:3]] == ["teacher", "student", "e2e"]
    (student,) = (run for run in runs[3:] if run.entry == "student")
    assert student.teacher in runs[3 : runs.index(student)] and student.config.seed == 1
    assert student.config.distill.teacher == str(tmp_path / "teacher" / "seed-1")
    assert student.config.loss.alpha == 0.6 and student.state == "new"


def test_only_takes_the_teachers_that_are_needed(tmp_path):
    runs = plan(tiny_study(seeds=(0,)), tmp_path)
    for only, taken in ((["student"], {"teacher", "student"}), (["e2e"], {"e2e"})):
        assert {run.entry for run in only_these(runs, only)} == taken
    assert only_these(runs, []) == runs
    assert "'random'" in rejection(only_these, runs, ["random"])


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"changes": {"loss.alpa": 1}}, ("loss.alpa", "loss.alpha?")),
        ({"changes": STUDENT, "teacher": "master"}, ("'master'",)),
        ({"teacher": "teacher"}, ("distill.teacher",)),
        ({"changes": STUDENT}, ("distill.teacher",)),
        ({"changes": {"masks.oversample": 3}}, ("masks.oversample", "got 3")),
        ({"changes": {"optim.net_lr": "fast"}}, ("optim.net_lr", "'fast'")),
        ({}, ("'e2e'", "same run")),
    ],
)
def test_a_bad_entry_is_named(entry, names):
    study = tiny_study()
    study.entries["odd"] = Entry(label="odd", **entry)
    message = rejection(declaration.check, study)
    assert all(name in message for name in ("'odd'", *names)), message


def test_bad_seeds_sections_and_circles_are_named():
    assert "(1, 1)" in rejection(declaration.check, tiny_study(seeds=(1, 1)))
    table = Table(title="T", question="", entries=("nobody",), baseline="e2e")
    message = rejection(declaration.check, tiny_study(sections=(table,)))
    assert "'T'" in message and "'nobody'" in message
    study = tiny_study()
    study.entries["teacher"].teacher = "student"
    assert "student" in rejection(declaration.training_order, study)


# Running


def test_the_next_call_has_nothing_to_do(finished, monkeypatch):
    study, workdir = finished
    runs = plan(study, workdir)
    assert all(run.is_done and run.state == "done" for run in runs)
    forbidden = lambda *_, **__: pytest.fail("did something again")  # noqa: E731
    for name in ("score_run", "score_under_noise", "trace_step", "time_inference"):
        monkeypatch.setattr(runner, name, forbidden)
    monkeypatch.setattr(runner.loop, "train", forbidden)
    assert runner.run_study(study, runs, workdir) == {}


def test_an_interrupted_study_goes_on_where_it_was(quick, tmp_path, monkeypatch):
    study, train, called = tiny_study(seeds=(0,)), quick.train, quick.called

    def interrupted(config, workdir):
        train(config, workdir)
        if len(called) == 2:
            raise signals.Interrupted(signal.SIGTERM, "")

    monkeypatch.setattr(runner.loop, "train", interrupted)
    with pytest.raises(signals.Interrupted):
        runner.run_study(study, plan(study, tmp_path), tmp_path)
    assert runner.run_study(study, plan(study, tmp_path), tmp_path) == {}
    assert sorted(called) == ["e2e, seed 0", "student, seed 0", "teacher, seed 0"]


@pytest.mark.parametrize("failure", [InUseError("another process"), ValueError("NaN")])
def test_a_run_that_fails_or_is_in_use_stops_only_its_students(
    quick, tmp_path, monkeypatch, failure
):
    study, train = tiny_study(seeds=(0,)), quick.train
    study.sections = study.sections[:1]

    def failing(config, workdir):
        if workdir.parent.name == "teacher":
            raise failure
        train(config, workdir)

    monkeypatch.setattr(runner.loop, "train", failing)
    failures = runner.run_study(study, plan(study, tmp_path), tmp_path)
    done = {run.entry: run.is_done for run in plan(study, tmp_path)}
    assert done == {"teacher": False, "student": False, "e2e": True}
    if isinstance(failure, InUseError):
        assert failures == {}
        return
    assert set(failures) == {"teacher, seed 0", "student, seed 0"}
    assert "ValueError: NaN" in failures["teacher, seed 0"]
    text = write(study, tmp_path, tmp_path / "report")
    assert "student, teacher" in text and "ValueError" in text
    monkeypatch.setattr(runner.loop, "train", train)
    assert runner.run_study(study, plan(study, tmp_path), tmp_path) == {}
    assert not (tmp_path / "failures.json").exists()


def test_a_folder_of_another_study_is_refused(finished):
    other = tiny_study()
    other.base.optim.mask_lr = 0.5
    message = rejection(plan, other, finished[1])
    assert "optim.mask_lr: 0.5 against 0.02" in message and "--workdir" in message


@pytest.mark.slow
def test_a_student_that_is_interrupted_goes_on_and_is_scored(recorded, tmp_path, monkeypatch):
    study, workdir = tiny_study(seeds=(0,), refine=2), tmp_path / "study"
    del study.entries["e2e"]
    costs = declaration.Costs(title="", question="", entries=("student",), paper={})
    front = declaration.Front(title="", question="", entries=("student", "teacher"))
    study.sections = (*study.sections[5:6], costs, front)
    teacher, student = (workdir / name / "seed-0" for name in ("teacher", "student"))
    shutil.copytree(recorded / "teacher", teacher)

    def received():
        return signal.SIGTERM if run_folder.epochs_done(student) == 1 else 0

    with monkeypatch.context() as patch, pytest.raises(signals.Interrupted):
        patch.setattr(signals, "received", received)
        runner.run_study(study, plan(study, workdir), workdir)
    assert runner.run_study(study, plan(study, workdir), workdir) == {}
    assert [row["epoch"] for row in run_folder.read_metrics(student)] == [1, 2]
    digest = run_folder.read_run(student)["digests"]["teacher"]
    assert digest == json_files.read_json(teacher / "metrics.json")["checkpoint_digest"]
    assert json_files.read_json(workdir / "costs.json")["student"]["inference_ms"] > 0
    frames = json_files.read_json(workdir / "frames.json", runner.FRAMES)
    assert frames.keys() == {"student", "teacher"}
    # A frame costs less where many are recovered together: a call alone costs something itself.
    assert all(0 < one["in_batch"]["ms"] < one["alone"]["ms"] for one in frames.values())

    # Little noise hardly changes the scores, and much of it does.
    record = json_files.read_json(student / "robustness.json")
    assert record["images"] == 10
    for answer, change in {"recovered": 0.01, "refined": 0.1}.items():
        psnr, rms = (record[name][answer] for name in ("scores", "rms"))
        for kind, (most, least) in {"gaussian": ("0", "60"), "poisson": ("100", "1e+09")}.items():
            assert abs(psnr[kind][least] - psnr["none"]["0"]) < 0.05, (answer, kind)
            assert abs(psnr[kind][most] - psnr["none"]["0"]) > change, (answer, kind)
            assert abs(rms[kind][least] - rms["none"]["0"]) < 0.02, (answer, kind)
            assert rms[kind][most] != rms["none"]["0"]


# Report


def test_the_report_says_what_the_folders_say(finished, written):
    (study, workdir), (output, text) = finished, written
    results = read_results(plan(study, workdir))
    scores = [
        json_files.read_json(workdir / "student" / f"seed-{seed}" / "metrics.json")["scores"]
        for seed in (0, 1)
    ]
    (row,) = [line for line in text.splitlines() if line.startswith("| a <stu") and "%" in line]
    assert over_seeds([score["recovered"]["psnr"] for score in scores]).text() in row
    found = gain(results["student"], results["e2e"])
    assert found is not None and found.psnr.text("+.2f") in row
    by_hand = [
        np.mean(np.subtract(*[scoring.read_image_psnr(workdir / e / f"seed-{seed}") for e in pair]))
        for pair in [("student", "e2e")]
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(found.psnr.mean, np.mean(by_hand), atol=1e-4)
    assert any(line.startswith("| E2E ") and "26.41 / 0.910" in line for line in text.splitlines())
    assert "`the command`: 6 of 6 runs, seeds 0, 1" in text
    assert "Comparisons in this report: 2." in text  # teacher and student with e2e
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(pictures) >= 5
    assert all((output / picture).stat().st_size > 1000 for picture in pictures)


def test_optics_alone_are_those_of_the_run_and_compared_seed_by_seed(finished, written, recorded):
    workdir, text = finished[1], written[1]
    found = json_files.read_json(workdir / "student" / "seed-1" / "optics.json", alone.OPTICS)
    assert found["consistent"] == 33.0
    (row,) = [one for one in text.splitlines() if "student" in one and "+2.00 ± 0.00" in one]
    assert "32.50" in row and "35.00" in row
    # Not by the stand-in: of all its test images, the spectral estimate that `evaluate` scored.
    judged = alone.judge_optics(recorded / "e2e")
    scored = json_files.read_json(recorded / "e2e" / "metrics.json")["scores"]["spectral_estimate"]
    assert judged["estimate"] == pytest.approx(scored["psnr"], abs=0.05)
    assert judged["consistent"] > judged["estimate"] and judged["bayesian"] > judged["cramer_rao"]


def test_the_front_is_what_no_other_beats_in_both(finished, written):
    study, workdir = finished
    results = read_results(plan(study, workdir))
    frames = json_files.read_json(workdir / "frames.json", runner.FRAMES)
    assert {round(one["alone"]["ms"] / one["in_batch"]["ms"], 9) for one in frames.values()} == {1}
    psnr = {
        name: np.mean([run.scores["recovered"]["psnr"] for run in runs])
        for name, runs in results.items()
    }
    for name, entry in study.entries.items():
        beaten = any(
            frames[other]["alone"]["ms"] < frames[name]["alone"]["ms"] and psnr[other] >= psnr[name]
            for other in study.entries
        )
        (row,) = (
            line
            for line in written[1].splitlines()
            if line.startswith(f"| {entry.label} ") and " to " in line and "MB" not in line
        )
        assert row.split("|")[-2].strip() == ("" if beaten else "yes"), row
        assert f"{frames[name]['alone']['ms']:.2f} (" in row


def test_the_page_needs_no_other_file_and_escapes_what_it_shows(written):
    output, _ = written
    page = (output / "report.html").read_text()
    assert "a &lt;student&gt;" in page and "<student>" not in page
    assert page.count("data:image/png;base64,") == len(list(output.glob("*.png")))
    assert 'src="section' not in page and "http" not in page


def test_figures_of_an_earlier_declaration_go_and_those_of_others_stay(finished, tmp_path):
    study, workdir = finished
    short = tiny_study(sections=study.sections[:1])
    write(short, workdir, tmp_path)
    record = json_files.read_json(tmp_path / "report.json")
    earlier, foreign = (tmp_path / f"section-{number}-masks.png" for number in (98, 99))
    for path in (earlier, foreign):
        path.write_bytes(b"PNG")
    json_files.write_json(tmp_path / "report.json", record | {"figures": [earlier.name]})
    write(short, workdir, tmp_path)
    assert json_files.read_json(tmp_path / "report.json") == record
    assert not earlier.exists() and foreign.exists()


def test_a_report_of_runs_without_rms_under_noise_leaves_it_open(finished, written, tmp_path):
    (study, workdir), heading = finished, "rms (rad); SNR of the CDP (dB)"
    assert heading in written[1]
    document, section = Document(tmp_path, "T"), study.sections[5]
    found = read_results(plan(study, workdir))["student"]
    earlier = [run._replace(under_noise={"scores": run.under_noise["scores"]}) for run in found]
    add_section(Place(study, document, workdir, "s"), section, {"student": earlier})
    (table,) = (block for block in document.markdown if heading in block)
    assert [row.count("–") for row in table.splitlines()[2:]] == [3, 3]


def test_epochs_that_were_not_validated_are_left_out_of_a_report(finished, tmp_path):
    study, workdir = finished
    found = read_results(plan(study, workdir))["student"]
    first = {k: v for k, v in found[0].curve[0].items() if not k.startswith("validation")}
    found = [run._replace(curve=[first, run.curve[1]]) for run in found]
    last = [run.curve[1]["validation_psnr"] for run in found]
    assert [run.validation_psnr for run in found] == last
    place = Place(study, Document(tmp_path, "T"), workdir, "s")
    with mock.patch.object(plots, "plot_lines", wraps=plots.plot_lines) as drawing:
        add_section(place, study.sections[3], {"student": found})
    (line,) = drawing.call_args.args[0].values()
    assert line.x == [2.0] and line.y == [np.mean(last)]


def test_a_document_is_markdown_and_html(tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    document = Document(tmp_path, "T & U")
    document.paragraph("a < b")
    document.table(["x"], [[1]])
    document.picture("a.png", "see")
    row = ["-1.2 ± 0.3", "+2 over a", "E2E", "3 things that are told at much greater length"]
    document.table(["x"] * 4, [row])
    document.write()
    text, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert text.startswith("# T & U\n\na < b\n\n| x |\n|---|\n| 1 |\n\n![see](a.png)\n\n| x")
    assert "<title>T &amp; U</title>" in page and "<p>a &lt; b</p>" in page
    assert "data:image/png;base64,UE5H" in page and page.count('<td class="number">') == 3


# Estimates and programs


def test_the_rate_is_that_of_the_finished_runs(finished):
    runs = plan(*finished)
    seconds = sum(r["seconds"] for run in runs for r in run_folder.read_metrics(run.workdir))
    operations = {run.name: 10.0 for run in runs}
    remaining = rehearsal.Remaining(runs, operations)
    assert 0.5 < remaining.measured_rate() * seconds / (10.0 * len(runs)) <= 1.0 + 1e-9
    assert rehearsal.Remaining([], {}).measured_rate() is None
    assert set(remaining.minutes().values()) == {0.0}
    # Half of a run is left, and what is finished is not read again.
    longer = runs[0]._replace(config=copy.deepcopy(runs[0].config))
    longer.config.train.epochs *= 2
    with mock.patch.object(run_folder, "read_metrics", wraps=run_folder.read_metrics) as read:
        left = rehearsal.Remaining([longer, *runs[1:]], operations)
        first, before = left.minutes(), read.call_count
        assert left.minutes() == first and read.call_count - before <= 4
    assert first[longer.name] == pytest.approx(0.5 * 10.0 / left.measured_rate() / 60)


@pytest.mark.slow
def test_runs_of_equal_programs_are_told_by_their_trace(tmp_path):
    study = tiny_study(seeds=(0,))
    study.entries["again"] = Entry(label="", changes={"loss.rho": 0.5, "optim.mask_lr": 2e-2})
    study.entries["average"] = Entry(label="", changes={"optim.average": 0.9})
    found = {
        run.entry: programs.trace_step(run.config, run.teacher and run.teacher.config).digest
        for run in plan(study, tmp_path)
        if run.entry != "teacher"
    }
    assert found["e2e"] == found["again"]
    assert len(set(found.values())) == 3
