"""What a student can take from its teacher beside the paper's losses: views, balance, a start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_equal_trees, rejection, same, student_config

from jax_kdpr import run_folder
from jax_kdpr.choices import Anneal, Balance, CdpView, FeatureView, StudentStart, TargetMode
from jax_kdpr.config_rules import validate
from jax_kdpr.trained import load_trained
from jax_kdpr.training import loop
from jax_kdpr.training.preparation import make_guide, prepare
from jax_kdpr.training.steps import Epoch, compile_steps


def first_losses(config, workdir):
    """Losses (total, task, ...) of a run's first step."""
    run = prepare(config, workdir)
    epoch = Epoch(
        images=run.dataset.train(0),
        order=jnp.arange(run.dataset.train_size),
        key=jax.random.key(0),
        weights=run.weights,
        guide=make_guide(run),
    )
    state, _ = compile_steps(run.train_step)(run.start, epoch)
    return state.totals


# The paper's, and the one that differs most: the others are cached by the same lines.
@pytest.mark.parametrize("view", [CdpView.PAPER, CdpView.LOG])
def test_every_view_is_cached_as_it_is_live(view, image_folder, teacher, tmp_path):
    feature = FeatureView.NORMALISED if view == CdpView.LOG else FeatureView.PAPER
    losses = [
        first_losses(
            student_config(
                image_folder,
                teacher,
                distill__targets=mode,
                loss__cdp=view,
                loss__feature=feature,
                train__devices=1,
            ),
            tmp_path / mode,
        )
        for mode in (TargetMode.CACHED, TargetMode.LIVE)
    ]
    for cached, live in zip(*losses, strict=True):
        np.testing.assert_allclose(cached, live, rtol=2e-4)
    assert losses[0].cdp > 0 and losses[0].feature > 0


def test_balanced_losses_enter_as_the_task_does(image_folder, teacher, tmp_path):
    config = student_config(
        image_folder, teacher, loss__balance=Balance.TASK, loss__rho=0.0, train__devices=1
    )
    found = first_losses(config, tmp_path / "run")
    np.testing.assert_allclose(found.total, found.task, rtol=1e-5)
    assert found.cdp > 2 * found.task  # and what is logged is the term itself


def test_annealed_guidance_is_gone_at_the_end(image_folder, teacher, tmp_path):
    config = student_config(
        image_folder, teacher, loss__anneal=Anneal.LINEAR, loss__rho=0.0, train__devices=1
    )
    loop.train(config, tmp_path / "run")
    rows = run_folder.read_metrics(tmp_path / "run")

    def share(row):  # of the guidance, averaged over the epoch's steps
        guidance = 0.2 * row["train_cdp"] + 0.2 * row["train_feature"]
        return (row["train_total"] - 0.6 * row["train_task"]) / guidance

    # Shares 1, 1 - 1/n, ..., 1/n over n steps, half of them an epoch.
    steps = rows[-1]["step"]
    expected = np.mean(np.reshape(1 - np.arange(steps) / steps, (2, -1)), axis=1)
    np.testing.assert_allclose([share(row) for row in rows], expected, rtol=0.1)


@pytest.mark.parametrize("start", list(StudentStart))
def test_a_student_starts_with_what_it_takes_over(start, image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start=start, train__devices=1)
    config.seed = 5  # another random start than the teacher's
    run = prepare(config, tmp_path / "run")
    (params, state) = load_trained(teacher, run_folder.read_config(teacher)).variables
    takes_optics = start in (StudentStart.OPTICS, StudentStart.ALL)
    takes_network = start in (StudentStart.NETWORK, StudentStart.ALL)
    assert same(run.start.params["phases"], params["phases"][:1]) == takes_optics
    assert same(run.start.params["filter"], params["filter"]) == takes_optics
    kernels = [tree["head"]["kernel"] for tree in (run.start.params["net"], params["net"])]
    assert same(*kernels) == takes_network
    statistics = [jax.tree.leaves(s["net"]) for s in (run.start.state, state)]
    assert all(same(a, b) for a, b in zip(*statistics, strict=True)) == takes_network
    assert same(run.start.state["start"], state["start"]) == takes_network


def test_a_teacher_is_as_it_was_after_its_student_started_from_it(image_folder, teacher, tmp_path):
    config = student_config(image_folder, teacher, distill__start=StudentStart.ALL)
    before = load_trained(teacher, run_folder.read_config(teacher))
    loop.train(config, tmp_path / "run")
    after = load_trained(teacher, run_folder.read_config(teacher))
    assert_equal_trees(before.variables, after.variables)
    assert before.digest == after.digest


def test_a_student_whose_teacher_weighs_nothing_is_an_e2e_run(image_folder, teacher, tmp_path):
    options = {"distill__start": StudentStart.ALL, "train__devices": 1}
    config = student_config(image_folder, teacher, **options)
    config.loss.alpha, config.loss.beta = 1.0, 0.0
    run = prepare(config, tmp_path / "run")
    assert make_guide(run) is None
    loop.train(config, tmp_path / "run")
    row = run_folder.read_metrics(tmp_path / "run")[-1]
    assert row["train_cdp"] == row["train_feature"] == 0
    penalty = config.loss.rho * row["train_mask"]
    np.testing.assert_allclose(row["train_total"], row["train_task"] + penalty, rtol=1e-5)


def test_a_start_that_does_not_fit_is_refused(image_folder, teacher, tmp_path):
    options = {"masks__snapshots": 4, "spectral__filter_size": 3}
    config = student_config(image_folder, teacher, distill__start=StudentStart.OPTICS, **options)
    message = rejection(prepare, config, tmp_path / "run")
    assert "masks.snapshots: 4 of 3" in message and "filter_size: 3 against 5" in message
    config.distill.start = StudentStart.NETWORK
    prepare(config, tmp_path / "run")
    config.spectral.consistency_steps = 3
    assert "consistency_steps: 3 against 0" in rejection(prepare, config, tmp_path / "run")
    config.distill.start = StudentStart.NONE
    prepare(config, tmp_path / "run")


@pytest.mark.parametrize(
    "option",
    [
        {"loss__cdp": CdpView.LOG},
        {"loss__feature": FeatureView.NORMALISED},
        {"loss__balance": Balance.TASK},
        {"loss__anneal": Anneal.COSINE},
        {"distill__start": StudentStart.ALL},
    ],
)
def test_only_a_student_reads_these_options(option, image_folder):
    config = student_config(image_folder, "", **option)
    config.regime, config.loss.alpha, config.loss.beta = "e2e", 1.0, 0.0
    (path,) = option
    assert path.replace("__", ".") in rejection(validate, config)
