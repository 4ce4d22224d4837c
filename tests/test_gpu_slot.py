"""The plan of a call on a GPU that is there for minutes, and how its stages are run."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SLOT = runpy.run_path(str(Path(__file__).parents[1] / "launch" / "gpu_slot.py"))


@pytest.mark.parametrize("what", ["check", "train"])
def test_the_limits_of_all_stages_leave_room_in_the_call(what):
    groups = SLOT["plan"](what)
    longest = [max(sum(stage.limit for stage in lane) for lane in lanes) for lanes in groups]
    assert SLOT["INSTALL"] + sum(longest) <= SLOT["LIMITS"][what]
    stages = [stage for lanes in groups for lane in lanes for stage in lane]
    assert all(0 < stage.saving < stage.limit for stage in stages)
    named = {stage.command[3] for stage in stages if stage.command[2:3] == ("stage",)}
    assert named <= set(SLOT["STAGES"])


def test_all_four_runs_are_trained_for_as_long_and_the_teacher_before_its_student():
    stages = [stage for lanes in SLOT["plan"]("train", 7) for lane in lanes for stage in lane]
    trained = [stage for stage in stages if stage.name.startswith("train ")]
    assert sorted(stage.name for stage in trained) == [
        *("train e2e", "train random", "train student", "train teacher")
    ]
    assert all("--config.train.epochs=7" in stage.command for stage in trained)
    names = [stage.name for stage in SLOT["plan"]("train", 7)[1][0]]
    assert names.index("bring teacher") < names.index("train student")


def test_a_stage_that_fails_or_hangs_leaves_a_row_and_the_next_one_runs(tmp_path):
    def stage(name, code, limit=60.0):
        return SLOT["Stage"](name, (sys.executable, "-S", "-c", code), limit=limit, saving=0.1)

    hangs = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    lanes = [
        [stage("fails", "raise SystemExit('what it said')"), stage("next", "pass")],
        [stage("hangs", hangs, limit=3), stage("last", "pass")],
    ]
    rows = tmp_path / "rows.jsonl"
    assert not SLOT["run"]([lanes, [[stage("then", "pass")]]], rows)
    found = {row["stage"]: row for row in map(json.loads, rows.read_text().splitlines())}
    codes = {name: row["code"] for name, row in found.items()}
    assert codes == {"fails": 1, "next": 0, "hangs": -9, "last": 0, "then": 0}
    assert found["fails"]["said"] == ["what it said"]
    assert SLOT["run"]([[[stage("alone", "pass")]]], rows)
