"""What a report says of a study's runs."""

import re
from unittest import mock

import numpy as np
import pytest
from recorded_studies import tiny_study, write

from jax_kdpr.core import json_files
from jax_kdpr.core.document import Document
from jax_kdpr.evaluation import alone, plots, scoring
from jax_kdpr.studies import runner
from jax_kdpr.studies.plan import plan
from jax_kdpr.studies.results import gain, read_results
from jax_kdpr.studies.sections import Place, add_section
from jax_kdpr.studies.statistics import over_seeds

pytestmark = pytest.mark.usefixtures("undrawn")


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
