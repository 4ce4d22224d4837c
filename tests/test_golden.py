"""Runs that an earlier commit recorded (`golden.py`) open; trained anew they are the same."""

import json

import faults
import golden
import numpy as np
import pytest

from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run
from jax_kdpr.training import loop

pytestmark = pytest.mark.usefixtures("undrawn")
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in golden.KINDS if kind != "e2e"]

LOSSES = ("train_total", "train_task", "train_cdp", "train_feature")


def close(ours, theirs, rtol=2e-5):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("kind", ["e2e", *SLOW])
def test_a_recorded_run_is_scored_as_it_was(kind, recorded, tmp_path):
    before = json.loads((recorded / kind / "metrics.json").read_text())
    result = score_run(load_run(recorded / kind), output=tmp_path).result
    assert result["checkpoint_digest"] == before["checkpoint_digest"]
    assert result["scores"].keys() == before["scores"].keys()
    for name, scores in before["scores"].items():
        for metric, value in scores.items():
            # The counts of a 12-bit camera: another rounding of its light is another count. Another
            # processor moves a score by 3e-4, XLA's optimisation on one by 3e-3.
            close(result["scores"][name][metric], value, rtol=5e-3 if kind == "bench" else 2e-5)
    masks = [np.load(folder / "masks.npy") for folder in (tmp_path, recorded / kind)]
    close(*masks)


@pytest.mark.parametrize("kind", ["e2e", *SLOW])
def test_a_run_gives_the_losses_and_masks_that_were_recorded(kind, recorded, tmp_path):
    config = run_folder.read_config(recorded / kind)
    if config.distill.teacher:
        config.distill.teacher = str(recorded / "teacher")
    loop.train(config, tmp_path / kind)
    rows = zip(*[faults.record(folder / kind) for folder in (tmp_path, recorded)], strict=True)
    for number, (ours, theirs) in enumerate(rows):
        assert ours.keys() == theirs.keys()
        # Another processor, number of devices or way of compiling rounds elsewhere, which eight
        # steps make more of: 4e-4 on one with four. The gated run is off by up to 2.2e-3 with XLA's
        # optimisation and 5.5e-3 as tests compile, the bench by 9e-3 with it and by 1.6e-2 on
        # another processor (of an SSIM of 0.056). Where nothing differs, `golden.py` gives the
        # same bits.
        rtol = {"gated": 1e-2, "bench": 2e-2}.get(kind, 2e-3)
        close(list(ours.values()), list(theirs.values()), rtol=rtol)
        if number == 0 and kind != "gated":  # at most 5e-4 after four steps, compiled either way
            close(*[[row[name] for name in LOSSES] for row in (ours, theirs)], rtol=1e-3)
