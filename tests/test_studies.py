"""Studies: statistics against SciPy and by hand, plans, reports, and what interrupts or fails."""

import itertools
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers import rejection, tiny_config
from scipy import stats

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, signals
from jax_kdpr.core.choices import Regime
from jax_kdpr.core.errors import InUseError
from jax_kdpr.evaluation import scoring
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies import declaration, document, estimate, programs, report, runner
from jax_kdpr.studies.declaration import Entry, Study, Table
from jax_kdpr.studies.document import Grid, Heading, Paragraph, Picture
from jax_kdpr.studies.estimate import ImageCounts
from jax_kdpr.studies.plan import plan
from jax_kdpr.studies.results import gain, read_results
from jax_kdpr.studies.statistics import over_images, over_seeds

pytestmark = pytest.mark.usefixtures("undrawn")
STUDENT = {"regime": "student", "loss.alpha": 0.9, "loss.beta": 0.05}


def tiny_study(images: Path, **changes) -> Study:
    base = tiny_config(train__epochs=2)
    base.regime = Regime.E2E
    base.data.source = "images"
    base.data.dir = str(images)
    entries = {
        "student": Entry(label="a <student>", changes=STUDENT, teacher="teacher"),
        "e2e": Entry(label="E2E"),
        "teacher": Entry(label="two shots", changes={"regime": "teacher", "masks.snapshots": 2}),
    }
    sections = (
        Table(
            title="Gains",
            question="Does it help?",
            entries=("e2e", "student", "teacher"),
            baseline="e2e",
            paper={"e2e": (26.41, 0.910)},
        ),
        declaration.Sweep(
            title="Shots",
            question="How many?",
            axis="snapshots",
            lines={"teacher": {1.0: "e2e", 2.0: "teacher"}},
            reference="e2e",
        ),
        declaration.Samples(title="Samples", question="How?", entries=("e2e", "student")),
        declaration.Curves(title="Curves", question="When?", entries=("e2e", "student")),
        declaration.Masks(title="Masks", question="What?", entries=("e2e", "teacher")),
        declaration.Robustness(
            title="Noise",
            question="If not?",
            entries=("e2e",),
            snr_db=(0.0, 60.0),
            photons=(1e2, 1e9),
            images=10,
        ),
        declaration.Costs(
            title="Costs",
            question="What for?",
            entries=("e2e",),
            paper={"e2e": (3661.0, 5577.0, 76.0)},
        ),
    )
    fields = {"title": "Tiny", "base": base, "entries": entries, "sections": sections}
    return Study(**fields | {"seeds": (0, 1), "refine": 4} | changes)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    np.save(folder / "stack.npy", rng.integers(0, 256, (160, 16, 16), np.uint8))
    return folder / "stack.npy"


@pytest.fixture(scope="module")
def finished(images, undrawn, tmp_path_factory):
    """(study, its folder) with everything done in one go."""
    study, workdir = tiny_study(images), tmp_path_factory.mktemp("study")
    assert runner.run_study(study, plan(study, workdir), workdir) == {}
    return study, workdir


def write(study: Study, workdir: Path, output: Path) -> str:
    report.write_report(study, plan(study, workdir), workdir, output, command="the command")
    return (output / "report.md").read_text()


# Statistics


def test_the_interval_over_seeds_is_students():
    values = [1.0, 1.4, 1.5, 1.9]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(
        [found.mean - found.half_width, found.mean + found.half_width], [low, high]
    )
    assert found.text() == f"1.45 ± {found.half_width:.2f}" and found.sign == 1


def test_three_seeds_by_hand():
    """t of 2 degrees of freedom is 4.303: 1, 2, 3 has s = 1 and a half-width of 4.303 / sqrt(3)."""
    np.testing.assert_allclose(over_seeds([1.0, 2.0, 3.0]).half_width, 4.3027 / 3**0.5, rtol=1e-4)
    assert over_seeds([1.0, 2.0, 3.0]).sign == 0
    assert over_seeds([-1.0, -1.1, -0.9]).sign == -1


def test_one_seed_has_no_interval_and_no_sign():
    one = over_seeds([0.3])
    assert one.text("+.2f") == "+0.30" and one.sign == 0


def test_images_are_tested_in_pairs():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.1, 1.0, size=(3, 500))
    found = over_images(differences)
    mean = differences.mean(axis=0)
    assert found.share_better == np.mean(mean > 0)
    np.testing.assert_allclose(found.p_value, stats.wilcoxon(mean).pvalue)
    same = over_images(np.zeros((3, 5)))
    assert (same.share_better, same.p_value) == (0.5, 1.0)


# Plans


def test_teachers_come_before_their_students_and_seeds_one_after_the_other(images, tmp_path):
    runs = plan(tiny_study(images), tmp_path)
    assert [run.name for run in runs] == [
        f"{name}, seed {seed}" for seed in (0, 1) for name in ("teacher", "student", "e2e")
    ]
    student = runs[4]
    assert student.teacher == runs[3] and student.config.seed == 1
    assert student.config.distill.teacher == str(tmp_path / "teacher" / "seed-1")
    assert student.config.loss.alpha == 0.9 and student.state == "new"
    assert runs[5].config.data.size == 16 and runs[5].robustness is not None


def test_only_takes_the_teachers_that_are_needed(images, tmp_path):
    study = tiny_study(images, seeds=(0,))
    assert [run.entry for run in plan(study, tmp_path, only=("student",))] == ["teacher", "student"]
    assert [run.entry for run in plan(study, tmp_path, only=("e2e",))] == ["e2e"]
    message = rejection(plan, study, tmp_path, only=("random",))
    assert "'random'" in message and "student, e2e, teacher" in message


def bad(images, **entry) -> str:
    study = tiny_study(images)
    study.entries["odd"] = Entry(label="odd", **entry)
    return rejection(declaration.check, study)


def test_bad_declarations_are_named(images):
    assert "'odd'" in bad(images, changes={"loss.alpa": 1}) and "loss.alpha" in bad(
        images, changes={"loss.alpa": 1}
    )
    assert "no entry 'master'" in bad(images, changes=STUDENT, teacher="master")
    assert "only regime student has a teacher" in bad(images, teacher="teacher")
    assert "a student needs" in bad(images, changes=STUDENT)
    assert "masks.oversample" in bad(images, changes={"masks.oversample": 3})
    assert "expected a number" in bad(images, changes={"optim.net_lr": "fast"})
    study = tiny_study(images, seeds=(1, 1))
    assert "seeds" in rejection(declaration.check, study)
    study = tiny_study(images)
    study.entries["teacher"].teacher = "student"
    assert "its own teacher" in rejection(declaration.training_order, study)
    table = Table(title="T", question="", entries=("nobody",), baseline="e2e")
    study = tiny_study(images, sections=(table,))
    message = rejection(declaration.check, study)
    assert "'T'" in message and "nobody" in message


# Running


def test_everything_is_done_and_the_next_call_has_nothing_to_do(finished, monkeypatch):
    study, workdir = finished
    runs = plan(study, workdir)
    assert all(run.is_done and run.state == "done" for run in runs)
    forbidden = lambda *_, **__: pytest.fail("did something again")  # noqa: E731
    for name in ("score_run", "score_under_noise", "trace_step", "time_inference"):
        monkeypatch.setattr(runner, name, forbidden)
    monkeypatch.setattr(runner.loop, "train", forbidden)
    assert runner.run_study(study, runs, workdir) == {}


def test_all_students_of_a_seed_share_one_teacher(finished):
    _, workdir = finished
    for seed in (0, 1):
        digest = run_folder.read_run(workdir / "student" / f"seed-{seed}")["digests"]["teacher"]
        scores = json_files.read_json(workdir / "teacher" / f"seed-{seed}" / "metrics.json")
        assert scores["checkpoint_digest"] == digest


def test_a_run_that_another_call_trains_is_left_to_it(images, tmp_path, monkeypatch):
    study, begun = tiny_study(images, seeds=(0,)), []

    def run_one(run):
        if run.entry == "teacher":
            raise InUseError("another process is training in it")
        begun.append(run.entry)

    monkeypatch.setattr(runner, "_run_one", run_one)
    assert runner.run_study(study, plan(study, tmp_path), tmp_path) == {}
    taught = {name for name, entry in study.entries.items() if entry.teacher == "teacher"}
    assert taught and set(begun) == set(study.entries) - {"teacher"} - taught


def test_interrupted_twice_it_ends_with_the_same_report(finished, tmp_path, monkeypatch):
    """In the first epoch of a run, and in the last of the student after it."""
    study, workdir = finished
    first, student = workdir / "e2e" / "seed-0", workdir / "student" / "seed-1"

    def written(name: str) -> tuple[str, dict]:
        text = write(study, workdir, tmp_path / name)
        return text, json_files.read_json(tmp_path / name / "report.json")["entries"]

    in_one_go = written("in one go")
    for run in (first, student):
        run.rename(tmp_path / run.parent.name)
    checks, stops = itertools.count(), 0

    def received():
        early = stops == 0 and next(checks) > 3
        late = stops == 1 and run_folder.epochs_done(student) == 1
        return signal.SIGTERM if early or late else 0

    monkeypatch.setattr(signals, "received", received)
    while True:
        try:
            runner.run_study(study, plan(study, workdir), workdir)
            break
        except signals.Interrupted:
            stops += 1
            assert list(((first, student)[stops - 1] / "checkpoints").iterdir())
            assert run_folder.epochs_done(first) == (0, 2)[stops - 1]
    assert stops == 2
    pieces = written("in pieces")
    assert in_one_go[1] == pieces[1]

    # All but times: the costs, and when and for how long it ran.
    def without_times(text: str) -> list[str]:
        cut = text[: text.index("## Costs")].splitlines()
        return [re.sub(r"(from|,) [\d.T:+-]+.*", "", line) for line in cut if "Made by" not in line]

    assert without_times(in_one_go[0]) == without_times(pieces[0])


def test_a_failed_run_is_reported_and_stops_only_its_students(finished, images, tmp_path):
    study = tiny_study(images, seeds=(0,))
    # The run after them is trained already, and wants its scores alone.
    shutil.copytree(finished[1] / "e2e" / "seed-0", tmp_path / "e2e" / "seed-0")
    (tmp_path / "e2e" / "seed-0" / "metrics.json").unlink()
    study.entries["teacher"].changes["optim.net_lr"] = 1e30
    study.sections = study.sections[:1]
    failures = runner.run_study(study, plan(study, tmp_path), tmp_path)
    assert set(failures) == {"teacher, seed 0", "student, seed 0"}
    assert "NonFiniteLossError" in failures["teacher, seed 0"]
    assert "its teacher (teacher, seed 0) failed" in failures["student, seed 0"]
    (e2e,) = [run for run in plan(study, tmp_path) if run.entry == "e2e"]
    assert e2e.is_done
    text = write(study, tmp_path, tmp_path / "report")
    assert "Not finished yet: student, teacher" in text and "NonFiniteLossError" in text
    assert "Comparisons in this report: 0." in text


def test_a_folder_of_another_study_is_refused(finished, images):
    _, workdir = finished
    other = tiny_study(images)
    other.base.optim.mask_lr = 0.5
    message = rejection(plan, other, workdir)
    assert "optim.mask_lr: 0.5 against 0.02" in message and "--workdir" in message


# Report


def test_the_report_says_what_the_folders_say(finished, tmp_path):
    study, workdir = finished
    text = write(study, workdir, tmp_path)
    results = read_results(plan(study, workdir))
    scores = [
        json_files.read_json(workdir / "student" / f"seed-{seed}" / "metrics.json")["scores"]
        for seed in (0, 1)
    ]
    psnr = over_seeds([score["recovered"]["psnr"] for score in scores])
    (row,) = [
        line for line in text.splitlines() if line.startswith("| a <student>") and "%" in line
    ]
    assert psnr.text() in row
    found = gain(results["student"], results["e2e"])
    assert found is not None and found.psnr.text("+.2f") in row
    by_hand = [
        np.mean(
            scoring.read_image_psnr(workdir / "student" / f"seed-{seed}")
            - scoring.read_image_psnr(workdir / "e2e" / f"seed-{seed}")
        )
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(found.psnr.mean, np.mean(by_hand), atol=1e-4)
    (row,) = [line for line in text.splitlines() if line.startswith("| E2E ") and "26.41" in line]
    assert "26.41 / 0.910" in row
    assert "`the command`: 6 of 6 runs, seeds 0, 1" in text
    validation = {
        name: np.mean([max(row["validation_psnr"] for row in one.curve) for one in runs])
        for name, runs in read_results(plan(study, workdir)).items()
        if name in study.sections[0].entries
    }
    best = study.entries[max(validation, key=validation.get)].label
    assert text.index("## Summary") < text.index("Made by")
    assert f"| {study.sections[0].title} " in text and f"| {best} " in text.split("Made by")[0]
    assert "Comparisons in this report: 2." in text  # teacher and student, in two sections
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / picture).stat().st_size > 1000


def test_the_page_needs_no_other_file_and_escapes_what_it_shows(finished, tmp_path):
    study, workdir = finished
    write(study, workdir, tmp_path)
    report = json_files.read_json(tmp_path / "report.json")
    earlier, foreign = (tmp_path / f"section-{number}-masks.png" for number in (98, 99))
    earlier.write_bytes(b"of an earlier declaration")
    foreign.write_bytes(b"of somebody else")
    figures = [*report["figures"], earlier.name]
    json_files.write_json(tmp_path / "report.json", report | {"figures": figures})
    write(study, workdir, tmp_path)
    assert json_files.read_json(tmp_path / "report.json") == report
    assert not earlier.exists()
    foreign.unlink()  # fails if it is gone
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;student&gt;" in page and "<student>" not in page
    assert page.count("data:image/png;base64,") == len(list(tmp_path.glob("*.png")))
    assert 'src="section' not in page and "http" not in page


def test_much_noise_changes_the_score_and_little_of_it_hardly(finished):
    _, workdir = finished
    record = json_files.read_json(workdir / "e2e" / "seed-0" / "robustness.json")
    assert record["images"] == 10
    found = record["scores"]
    assert set(found) == {"recovered", "refined"}
    for answer, change in {"recovered": 0.01, "refined": 0.1}.items():
        scores = found[answer]
        quiet = scores["none"]["0"]
        for kind, (most, least) in {"gaussian": ("0", "60"), "poisson": ("100", "1e+09")}.items():
            assert abs(scores[kind][least] - quiet) < 0.05, (answer, kind)
            assert abs(scores[kind][most] - quiet) > change, (answer, kind)
            rms = record["rms"][answer]
            assert abs(rms[kind][least] - rms["none"]["0"]) < 0.02, (answer, kind)
            assert rms[kind][most] != rms["none"]["0"]


def test_a_report_of_runs_without_rms_under_noise_leaves_it_open(finished, tmp_path):
    study, workdir = finished
    write(study, workdir, tmp_path)
    known = (tmp_path / "report.md").read_text()
    assert "rms (rad); SNR of the CDP (dB)" in known
    copy = tmp_path / "runs"
    shutil.copytree(workdir, copy)
    for path in copy.glob("*/*/robustness.json"):
        record = json_files.read_json(path)
        json_files.write_json(path, {name: record[name] for name in record if name != "rms"})
    write(study, copy, tmp_path / "open")
    text = (tmp_path / "open" / "report.md").read_text()
    rows = text.split("rms (rad); SNR of the CDP (dB)")[1].split("\n\n")[0].splitlines()[2:]
    assert rows and all(row.count("–") == 3 for row in rows)


def test_blocks_become_markdown_and_html(tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    blocks = [Heading("T", 1), Paragraph("a < b"), Grid(["x"], [[1]]), Picture("a.png", "see")]
    cells = [
        Grid(
            ["x"],
            [["-1.2 ± 0.3", "+2 over a", "E2E", "3 things that are told at much greater length"]],
        )
    ]
    assert document.to_markdown(blocks) == "# T\n\na < b\n\n| x |\n|---|\n| 1 |\n\n![see](a.png)\n"
    page = document.to_html(blocks, tmp_path, title="T & U")
    assert "<title>T &amp; U</title>" in page and "<p>a &lt; b</p>" in page
    assert "data:image/png;base64,UE5H" in page and '<td class="number">1</td>' in page
    row = document.to_html(cells, tmp_path, title="T")
    assert row.count('<td class="number">') == 2 and "td.number { white-space: nowrap; }" in row


# Estimates and programs


def test_an_estimate_counts_what_a_run_does():
    config, images = Config(), ImageCounts(100, 0, 0)
    config.train.epochs = 3
    alone = estimate.run_operations(config, None, images)
    config.train.epochs = 6
    np.testing.assert_allclose(estimate.run_operations(config, None, images), 2 * alone)
    frozen = Config()
    frozen.regime, frozen.train.epochs = Regime.RANDOM, 3
    assert estimate.run_operations(frozen, None, images) < alone
    teacher = Config()
    teacher.masks.snapshots = 9
    config.regime, config.loss.alpha = Regime.STUDENT, 0.9
    taught = estimate.run_operations(config, teacher, images) - 2 * alone
    assert 0 < taught < 9 * alone


def test_the_rate_is_that_of_the_finished_runs(finished):
    study, workdir = finished
    runs = plan(study, workdir)
    seconds = sum(r["seconds"] for run in runs for r in run_folder.read_metrics(run.workdir))
    rate = estimate.measured_rate(runs, [10.0] * len(runs))
    assert 0.5 < rate * seconds / (10.0 * len(runs)) <= 1.0 + 1e-9
    assert estimate.measured_rate([], []) is None
    assert {estimate.remaining_share(run) for run in runs} == {0.0}


def test_an_interrupted_epoch_counts_as_the_others():
    def rows(*seconds: float):
        return [{"seconds": value} for value in seconds]

    whole = estimate.training_seconds(rows(9.0, 2.0, 2.0, 2.0, 2.0))
    assert whole == 17.0
    assert estimate.training_seconds(rows(9.0, 2.0, 1e-3, 2.0, 0.7)) == pytest.approx(17.0)
    assert estimate.training_seconds(rows(9.0, 2.0)) == 11.0
    assert estimate.training_seconds([]) == 0.0


def test_runs_of_equal_programs_are_told_by_their_trace(images, tmp_path):
    study = tiny_study(images, seeds=(0,))
    study.entries["again"] = Entry(label="", changes={"loss.rho": 0.5, "optim.mask_lr": 2e-2})
    study.entries["average"] = Entry(label="", changes={"optim.average": 0.9})
    found = {run.entry: run for run in plan(study, tmp_path)}

    def digest(name):
        run = found[name]
        return programs.trace_step(run.config, run.teacher and run.teacher.config).digest

    assert digest("e2e") == digest("again")
    assert len({digest(name) for name in ("e2e", "average", "teacher", "student")}) == 4
