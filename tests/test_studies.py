"""Studies: plans, estimates, and what interrupts or fails."""

import copy
import shutil
import signal
from unittest import mock

import pytest
from helpers import rejection
from recorded_studies import STUDENT, tiny_study, write

from jax_kdpr.core import json_files, signals
from jax_kdpr.core.errors import InUseError
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies import declaration, programs, rehearsal, runner
from jax_kdpr.studies.declaration import Entry, Table
from jax_kdpr.studies.plan import only_these, plan

pytestmark = pytest.mark.usefixtures("undrawn")


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
