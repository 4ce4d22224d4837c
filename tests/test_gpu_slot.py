"""The plan of a call on a GPU that is there for minutes, and how its stages are run."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest

SLOT = runpy.run_path(str(Path(__file__).parents[1] / "launch" / "gpu_slot.py"))


def test_some_stages_of_a_check_are_run_alone():
    wanted = ("speed compiled", "tests resume")
    groups = SLOT["only"](SLOT["plan"]("check"), wanted)
    assert [[[stage.name for stage in lane] for lane in lanes] for lanes in groups] == [
        [["tests resume"]],
        [["speed compiled"]],
    ]
    assert SLOT["only"](SLOT["plan"]("check"), ()) == SLOT["plan"]("check")
    with pytest.raises(SystemExit, match=r"expected stages of .*'speed tf32'.* got \['step'\]"):
        SLOT["only"](SLOT["plan"]("check"), ("step",))


@pytest.mark.parametrize("what", ["check", "train"])
def test_every_stage_is_one_that_there_is_and_may_save(what):
    stages = [stage for lanes in SLOT["plan"](what) for lane in lanes for stage in lane]
    assert all(0 < stage.saving < stage.limit for stage in stages)
    named = {stage.command[3] for stage in stages if stage.command[2:3] == ("stage",)}
    assert named <= set(SLOT["STAGES"])


def test_all_runs_are_trained_for_as_long_from_one_seed_and_the_teacher_before_its_student():
    lanes = SLOT["plan"]("train", 7, 3)[1]
    trained = [stage for lane in lanes for stage in lane if stage.name.startswith("train ")]
    assert {stage.name.removeprefix("train ") for stage in trained} == set(SLOT["RUNS_OF"])
    for option in ("--config.train.epochs=7", "--config.seed=3"):
        assert all(option in stage.command for stage in trained)
    (names,) = [names for lane in lanes if "train teacher" in (names := [s.name for s in lane])]
    assert names.index("bring teacher") < names.index("train student")


def test_a_call_ends_in_time_and_leaves_some_to_what_must_come_last(tmp_path):
    def stage(name, code, limit, after=0.0):
        command = (sys.executable, "-S", "-c", code)
        return SLOT["Stage"](name, command, limit=limit, saving=0.1, after=after, least=1)

    long = "import time; time.sleep(60)"
    lane = [stage("long", long, 60, after=4), stage("last", "pass", 60), stage("none", long, 60, 4)]
    rows, started = tmp_path / "rows.jsonl", time.monotonic()
    SLOT["run"]([[lane]], rows, seconds=6)
    assert time.monotonic() - started < 6
    long_row, last, none = map(json.loads, rows.read_text().splitlines())
    assert (long_row["code"], last["code"]) == (-15, 0)
    assert none == {"stage": "none", "left": "the call has no time for it"}


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
