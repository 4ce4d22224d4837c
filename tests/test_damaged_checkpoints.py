"""Damaged checkpoints, as a user meets them: training and evaluation go on from what is whole."""

import json
import shutil
from pathlib import Path

import pytest
from places import Place, files, trained_place

from jax_kdpr.runs import folder as run_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Place:
    """Its run has a checkpoint after each epoch, at steps 4 and 8."""
    return trained_place(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def copied(trained, tmp_path) -> Place:
    place = Place(tmp_path / "place")
    shutil.copytree(trained.folder / "run", place.folder / "run")
    # The same data at the same path, so that the config file is the same one.
    shutil.copy(trained.folder / "tiny.py", place.folder / "tiny.py")
    return place


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)


def array_file(run: Path, step: int) -> Path:
    """Returns the largest file of a checkpoint: its arrays."""
    paths = (run / "checkpoints" / str(step)).rglob("*")
    return max(paths, key=lambda path: path.stat().st_size if path.is_file() else 0)


def validation_rows(run: Path) -> list[dict]:
    rows = run_folder.read_metrics(run)
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


def test_training_falls_back_to_the_checkpoint_before(trained, copied):
    run = copied.folder / "run"
    truncate(array_file(run, 8))
    outcome = copied.train()
    assert outcome.code == 0, outcome
    warnings = [line for line in outcome.errors if line.startswith("warning: checkpoint")]
    assert len(warnings) == 1
    assert "checkpoint 8" in warnings[0] and "falling back" in warnings[0]
    assert not [line for line in outcome.errors if "error" in line or "Traceback" in line]
    assert "at step 4 of 8" in outcome.output
    assert validation_rows(run) == validation_rows(trained.folder / "run")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "8"}


def test_a_damaged_score_does_not_stop_the_run(trained, copied):
    run = copied.folder / "run"
    truncate(run / "checkpoints" / "8" / "metrics" / "metrics")
    outcome = copied.train()
    assert outcome.code == 0, outcome
    assert any(line.startswith("warning: ") and "8" in line for line in outcome.errors)
    assert validation_rows(run) == validation_rows(trained.folder / "run")


def test_no_readable_checkpoint_is_one_line_and_starts_nothing_over(copied):
    run = copied.folder / "run"
    for step in (4, 8):
        truncate(array_file(run, step))
    before = files(run)
    outcome = copied.train()
    assert outcome.code == 2, outcome
    errors = [line for line in outcome.errors if not line.startswith("warning: ")]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ") and "checkpoints" in errors[0]
    # Neither the checkpoints nor the metrics: or the same command would train from scratch.
    assert {**files(run), "run.json": ""} == {**before, "run.json": ""}


@pytest.mark.parametrize("place_of_damage", ["arrays", "score"])
def test_evaluation_falls_back_from_a_damaged_best(copied, place_of_damage):
    run = copied.folder / "run"
    scores = {row["step"]: row["validation_psnr"] for row in run_folder.read_metrics(run)}
    best = max(scores, key=scores.get)
    score_file = run / "checkpoints" / str(best) / "metrics" / "metrics"
    flip(array_file(run, best) if place_of_damage == "arrays" else score_file)
    before = files(run)
    outcome = copied.run("evaluate", "--workdir", "run")
    assert outcome.code == 0, outcome
    warnings = [line for line in outcome.errors if line.startswith("warning: checkpoint")]
    if place_of_damage == "arrays":
        assert len(warnings) == 1 and f"checkpoint {best} " in warnings[0]
        used = json.loads((run / "metrics.json").read_text())["checkpoint_step"]
        assert used == ({4, 8} - {best}).pop()
    assert before.items() <= files(run).items()  # an evaluation only adds files
