"""What a student can take from its teacher beside the paper's losses: a start."""

import jax
import numpy as np
import pytest
from helpers import assert_equal_trees, rejection, same, student_config

from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop
from jax_kdpr.training.setup import prepare


@pytest.mark.slow
@pytest.mark.parametrize("start", ["none", "optics", "network", "all"])
def test_a_student_starts_with_what_it_takes_over(start, image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start=start, train__devices=1)
    config.seed = 5  # another random start than the teacher's
    run = prepare(config, tmp_path / "run")
    (params, state) = restore(teacher, run_folder.read_config(teacher)).variables
    takes_optics = start in ("optics", "all")
    takes_network = start in ("network", "all")
    assert same(run.start.params["phases"], params["phases"][:1]) == takes_optics
    assert same(run.start.params["filter"], params["filter"]) == takes_optics
    kernels = [tree["head"]["kernel"] for tree in (run.start.params["net"], params["net"])]
    assert same(*kernels) == takes_network
    statistics = [jax.tree.leaves(s["net"]) for s in (run.start.state, state)]
    assert all(same(a, b) for a, b in zip(*statistics, strict=True)) == takes_network
    assert same(run.start.state["start"], state["start"]) == takes_network


@pytest.mark.slow
def test_a_teacher_is_as_it_was_after_its_student_started_from_it(image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start="all")
    before = restore(teacher, run_folder.read_config(teacher))
    loop.train(config, tmp_path / "run")
    after = restore(teacher, run_folder.read_config(teacher))
    assert_equal_trees(before.variables, after.variables)
    assert before.digest == after.digest


@pytest.mark.slow
def test_a_student_whose_teacher_weighs_nothing_is_an_e2e_run(image_folder, teacher, tmp_path):
    options = {"distill__start": "all", "train__devices": 1}
    config = student_config(image_folder, teacher, **options)
    config.loss.alpha, config.loss.beta = 1.0, 0.0
    run = prepare(config, tmp_path / "run")
    assert run.teacher is not None
    assert run.teacher.guide(config, run.dataset, batch_size=1) is None
    loop.train(config, tmp_path / "run")
    row = run_folder.read_metrics(tmp_path / "run")[-1]
    assert row["train_cdp"] == row["train_feature"] == 0
    penalty = config.loss.rho * row["train_mask"]
    np.testing.assert_allclose(row["train_total"], row["train_task"] + penalty, rtol=1e-5)


def test_a_start_that_does_not_fit_is_refused(image_folder, teacher, tmp_path):
    options = {"masks__snapshots": 4, "spectral__filter_size": 3}
    config = student_config(image_folder, teacher, distill__start="optics", **options)
    message = rejection(prepare, config, tmp_path / "run")
    assert "masks.snapshots: 4 of 3" in message and "filter_size: 3 against 5" in message
    config.distill.start = "network"
    prepare(config, tmp_path / "run")
    config.spectral.consistency_steps = 3
    assert "consistency_steps: 3 against 0" in rejection(prepare, config, tmp_path / "run")
    config.distill.start = "none"
    prepare(config, tmp_path / "run")
