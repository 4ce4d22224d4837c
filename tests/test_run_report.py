"""The page about runs, and the list of all runs below a folder."""

import json
import re
import shutil

import numpy as np
import pytest
from commands import call, refusal

from jax_kdpr.evaluation import run_page
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.runs.run import load_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(recorded, tmp_path_factory):
    """Two runs of the same data, of which the second has not been evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("e2e", "gated"):
        shutil.copytree(recorded / name, folder / name)
    score_run(load_run(folder / "e2e"))
    (folder / "gated" / "metrics.json").unlink()
    return folder


def report(runs, *arguments):
    done = call("report", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_has_one_page_that_needs_no_other_file(runs, tmp_path):
    done = report(runs, f"--workdir={runs / 'e2e'}", f"--output={tmp_path / 'page'}", "--scenes=2")
    page = (tmp_path / "page" / "report.html").read_text()
    assert "report.html" in done.stdout and not done.stderr.strip()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for heading in ("Training", "Masks", "First test scenes", "Errors, image by image"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/png;base64,") == 6
    scores = json.loads((runs / "e2e" / "metrics.json").read_text())["scores"]["recovered"]
    assert f"{scores['psnr']:.2f} ± {scores['psnr_error']:.2f}" in page
    assert "net.widths" in page and "scene.fill" not in page  # what is not at its default
    again = report(runs, f"--workdir={runs / 'e2e'}", f"--output={tmp_path / 'page'}")
    assert again.returncode == 0  # its own page is made anew


def test_a_group_says_what_differs_and_what_is_missing(runs, tmp_path):
    folders = [f"--workdir={runs / 'e2e'}", str(runs / "gated")]
    done = report(runs, *folders, f"--output={tmp_path / 'page'}")
    assert "gated: not evaluated; python -m jax_kdpr.evaluate" in done.stderr
    text = (tmp_path / "page" / "report.md").read_text()
    options = text.partition("## Options")[2].partition("## ")[0]
    rows = [line for line in options.splitlines() if line.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows[1:]]
    assert names[:2] == ["spectral.consistency_steps", "net.refine_steps"]  # first what differs


def test_the_worst_scenes_are_the_worst(runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        run_page.pictures, "plot_run", lambda samples, path, **_: drawn.append(samples)
    )
    monkeypatch.setattr(run_page.Document, "picture", lambda *_: None)
    known = run_page.read_known(runs / "e2e")
    (tmp_path / "page").mkdir()
    assert run_page.write_page({"e2e": known}, tmp_path / "page", scenes=2) == []
    _, extremes = drawn
    errors = np.mean(
        (np.asarray(extremes.output.image) - np.asarray(extremes.images)) ** 2, (1, 2, 3)
    )
    with np.load(runs / "e2e" / "scores.npz") as scores:
        mse = scores["recovered_mse"]
    order = np.argsort(mse)
    np.testing.assert_allclose(errors, mse[[*order[:2], *order[-2:]]], rtol=1e-3)


def test_pages_of_runs_that_are_unfinished_adapted_or_older(runs, tmp_path):
    for name in ("new", "adapted", "older"):
        shutil.copytree(runs / "e2e", tmp_path / name)
    (tmp_path / "new" / "metrics.jsonl").unlink()
    log = tmp_path / "adapted" / "metrics.jsonl"
    rows = [json.loads(line) | {"validation_misfit": 0.03} for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = json.loads((tmp_path / "older" / "metrics.json").read_text())
    del scores["scores"]["recovered"]["rms"]
    (tmp_path / "older" / "metrics.json").write_text(json.dumps(scores))
    header, listed = run_page.list_runs(tmp_path)
    found = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in listed}
    assert found["adapted"]["best validation (dB)"] == found["new"]["best validation (dB)"] == ""
    assert "run evaluate again" in found["older"]["regime"]
    folders = [f"--workdir={tmp_path / 'new'}", str(tmp_path / "adapted")]
    page = report(runs, *folders, f"--output={tmp_path / 'page'}")
    assert page.returncode == 0


def test_tolerances_of_runs_of_one_name_are_kept_apart(runs, tmp_path):
    for place, level in (("x", 30.0), ("y", 20.0)):
        shutil.copytree(runs / "e2e", tmp_path / place / "e2e")
        curves = {"e2e": {"design_psnr": level, "curves": {"shift": {"0.0": level, "0.5": 10.0}}}}
        tolerance = {"spreads": {}, "runs": curves}
        (tmp_path / place / "e2e" / "tolerance.json").write_text(json.dumps(tolerance))
    folders = [f"--workdir={tmp_path / 'x' / 'e2e'}", str(tmp_path / "y" / "e2e")]
    report(runs, *folders, f"--output={tmp_path / 'page'}", "--scenes=1")
    text = (tmp_path / "page" / "report.md").read_text().partition("## Errors of the bench")[2]
    assert "x/e2e" in text and "30.00" in text and "20.00" in text


def test_all_runs_below_a_folder_are_listed_with_the_best_first(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "all")
    (tmp_path / "all" / "bad").mkdir()
    (tmp_path / "all" / "bad" / "run.json").write_text("{")
    done = report(runs, f"--below={tmp_path / 'all'}")
    rows = [line.split("|") for line in done.stdout.splitlines()[2:]]
    names = [row[1].strip() for row in rows]
    best = [float(row[6]) for row in rows[:2]]
    assert sorted(names[:2]) == ["e2e", "gated"] and best == sorted(best, reverse=True)
    assert names[2] == "bad" and "cannot be read" in done.stdout


def test_what_is_no_run_is_one_line(runs, tmp_path):
    assert "at least one run folder" in refusal("report")
    assert "is no run folder" in refusal("report", f"--workdir={tmp_path}")
    assert "no run lies below" in refusal("report", f"--below={tmp_path}")
    assert "expected a folder" in refusal("report", f"--below={tmp_path / 'x'}")
    (tmp_path / "report.json").write_text("{}")
    given = (f"--workdir={runs / 'e2e'}", f"--output={tmp_path}")
    assert "no earlier result of report" in refusal("report", *given)
