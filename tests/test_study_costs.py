"""What a report says that the trainings of a study took."""

import pytest

from jax_kdpr.studies.results import SeedResult


def test_an_interrupted_epoch_costs_what_the_others_cost():
    """Of one whose validation alone was made up for, the row says next to nothing."""
    curve = [{"seconds": s + 1.0, "train_seconds": s} for s in (9.0, 2.0, 4e-4, 2.0, 2.0)]
    found = SeedResult(None, {}, curve, None, None, [])
    assert found.train_seconds == pytest.approx(17.0)
