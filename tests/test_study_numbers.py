"""Numbers of a study: intervals against SciPy, and what its runs would take."""

import numpy as np
import pytest
from helpers import tiny_config
from scipy import stats

from jax_kdpr.config.schema import LossOptions
from jax_kdpr.studies import rehearsal
from jax_kdpr.studies.results import training_seconds
from jax_kdpr.studies.statistics import over_images, over_seeds


def test_the_interval_over_seeds_is_students():
    values = [1.0, 1.4, 1.5, 1.9]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    ends = [found.mean - found.half_width, found.mean + found.half_width]
    np.testing.assert_allclose(ends, [low, high])
    assert found.text() == f"1.45 ± {found.half_width:.2f}"
    assert over_seeds([0.3]).text("+.2f") == "+0.30"


def test_images_are_tested_in_pairs():
    differences = np.random.default_rng(0).normal(0.1, 1.0, size=(3, 500))
    found = over_images(differences)
    mean = differences.mean(axis=0)
    assert found.share_better == np.mean(mean > 0)
    np.testing.assert_allclose(found.p_value, stats.wilcoxon(mean).pvalue)
    same = over_images(np.zeros((3, 5)))
    assert (same.share_better, same.p_value) == (0.5, 1.0)


def test_an_estimate_counts_what_a_run_does():
    def operations(teacher=None, epochs=3, **fields):
        config = tiny_config(train__epochs=epochs)
        for name, value in fields.items():
            setattr(config, name, value)
        return rehearsal.run_operations(config, teacher, (100, 0, 0))

    alone = operations()
    np.testing.assert_allclose(operations(epochs=6), 2 * alone)
    assert operations(regime="random") < alone
    taught = operations(tiny_config(masks__snapshots=9), regime="student")
    assert taught == alone  # a student whose losses ignore its teacher
    guiding = LossOptions(alpha=0.9, beta=0.05)
    taught = operations(tiny_config(masks__snapshots=9), regime="student", loss=guiding)
    assert alone < taught < 10 * alone


@pytest.mark.parametrize(
    ("seconds", "total"),
    [
        ([9.0, 2.0, 2.0, 2.0, 2.0], 17.0),
        ([9.0, 2.0, 1e-3, 2.0, 0.7], 17.0),  # two were interrupted
        ([9.0, 2.0], 11.0),
        ([], 0.0),
    ],
)
def test_an_interrupted_epoch_costs_what_the_others_cost(seconds, total):
    rows = [{"seconds": s + 1.0, "train_seconds": s} for s in seconds]
    assert training_seconds(rows, timed="train_seconds") == pytest.approx(total)
    assert training_seconds(rows) == pytest.approx(total + len(rows))
