"""The short form of every kind of fault; `python tests/faults.py --full` runs them in full."""

import shutil

import faults
import pytest
from helpers import rejection

from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.training import loop

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", faults.KINDS)
def test_nothing_is_lost(kind, tmp_path):
    assert not faults.KINDS[kind](tmp_path, full=False).lost


@pytest.mark.usefixtures("undrawn")
def test_links_at_the_names_of_a_run_folder_are_not_followed(recorded, tmp_path):
    run, precious = shutil.copytree(recorded / "e2e", tmp_path / "run"), tmp_path / "thesis.tex"
    precious.write_text("the only copy")
    names = [path.name for path in run.iterdir() if path.is_file()]
    for name in (*names, "run.lock"):
        (run / f"{name}.tmp").symlink_to(precious)
    for name in set(names) - {"run.json", "metrics.jsonl"}:
        (run / name).unlink()
        (run / name).symlink_to(precious)
    config = run_folder.read_config(run)
    loop.train(config, run)
    score_run(run)
    assert not any(path.is_symlink() for path in run.iterdir() if path.suffix != ".tmp")
    (run / "run.lock").unlink()
    (run / "run.lock").symlink_to(precious)
    assert "run.lock" in rejection(loop.train, config, run)
    assert precious.read_text() == "the only copy"
