"""The short form of every kind of fault; `python tests/faults.py --full` runs them in full."""

import faults
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("kind", faults.KINDS)
def test_nothing_is_lost(kind, tmp_path):
    assert not faults.KINDS[kind](tmp_path, full=False).lost
