"""JSON that parses and is none of ours: one line from every reader, whatever stands where."""

import copy
import functools
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from helpers import rejection, tiny_config

from jax_kdpr.config import schema
from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe, check_shape
from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import shallow
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.calibration import (
    Calibration,
    Reading,
    read_calibration,
    write_calibration,
)
from jax_kdpr.lab.frames.geometry import Geometry
from jax_kdpr.lab.layout import RECORD
from jax_kdpr.optics.mask_files import reading as mask_files
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.declaration import Robustness
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.report import REPORT
from jax_kdpr.studies.runner import COSTS, FAILURES, FRAMES

DIGEST = "0" * 64
NOISE = Robustness(title="", question="", entries=("e2e",), snr_db=(20.0,), photons=(1e6,))
SHAPE = {"n": int, "x": float, "frames": [{"name": str}], "size": (int, int), "note": Maybe(str)}
SHAPE["bits"] = Range(0, 16)
GOOD = {"n": 1, "x": 2, "frames": [{"name": "a"}], "size": [3, 4], "bits": 16}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *[({"n": wrong}, f"n: expected an integer, got {wrong}") for wrong in (1.5, True, None)],
        *[({"x": wrong}, f"x: expected a number, got {wrong!r}") for wrong in ("2", float("nan"))],
        ({"x": 10**400}, "x: expected a number, got about 10^"),
        ({"frames": {}}, "frames: expected a list"),
        ({"frames": [{}]}, "frames[0] has no 'name'"),
        ({"frames": [{"name": 7}]}, "frames[0].name: expected text, got 7"),
        ({"size": [3]}, "size: expected 2 values, got [3]"),
        ({"note": 1}, "note: expected text, got 1"),
        *[({"bits": wrong}, "bits: expected a number in [0, 16]") for wrong in (17, [0, 16], True)],
    ],
)
def test_a_shape_says_where_something_else_stands(change, says):
    check_shape(GOOD, SHAPE)
    check_shape({**GOOD, "note": "", "more": None}, SHAPE)
    with pytest.raises(ValueError, match=r"expected|has no") as caught:
        check_shape({**GOOD, **change}, SHAPE)
    assert str(caught.value).startswith(says)


# Each reader: what it reads, named, and a value that it takes.


def planned(folder: Path) -> PlannedRun:
    (folder / "metrics.jsonl").write_text(json.dumps(METRICS_ROW) + "\n")
    (folder / "checkpoints" / "8").mkdir(parents=True, exist_ok=True)
    config = tiny_config(train__epochs=2)
    return PlannedRun("e2e", 0, config, folder, None, NOISE, Refinement())


METRICS_ROW = dict.fromkeys(run_folder.ROW, 1.0) | {"epoch": 2, "step": 8}
QUALITY = {"recovered": {"psnr": 20.0, "ssim": 0.5, "rms": 0.1}}
SCORED = {"epochs": 2, "checkpoint_digest": DIGEST, "scores": QUALITY}
SCORED |= {"refine": 0, "refine_with": Refinement().solver, "refine_tv": 0.0}
UNDER_NOISE = {"none": {"0": 20.0}, "gaussian": {"20": 19.0}, "poisson": {"1e+06": 18.0}}


def read_noisy_scores(path: Path):
    run = planned(path.parent)
    json_files.write_json(path.with_name("metrics.json"), SCORED)
    return run.noisy_scores


@pytest.mark.parametrize(
    "scores", [{}, {"recovered": {**UNDER_NOISE, "poisson": {}}}], ids=["none", "no poisson"]
)
def test_scores_under_noise_that_are_not_whole_are_not_made(tmp_path, scores):
    path = tmp_path / "robustness.json"
    for damaged in ({"scores": scores}, {"rms": scores}):
        json_files.write_json(path, NOISY | damaged)
        assert read_noisy_scores(path) is None


SESSION = {"time": "", "commit": "", "devices": ["cpu"], "versions": {"jax": ""}}
SESSION |= {"cpu": "", "cpu_count": 2}
RUN = {"config": schema.to_dict(tiny_config()), "sessions": [SESSION]}
RUN |= {"digests": {"data": DIGEST, "held_back": DIGEST}}
WHERE = Geometry(8.0, 8.5, 0.1, 3.0, "none", True)
READING = Reading(2, "area", False)
FOUND = Calibration(WHERE, 2.0, 0.9, 0.1, True, DIGEST, (16, 16), DIGEST, reading=READING)
CALIBRATION = {**FOUND._asdict(), "geometry": WHERE._asdict(), "optics": {}, "errors": {}}
CALIBRATION |= {"reading": READING._asdict(), "other_sign": 0.5, "tells_sign": True}
SIDECAR = {"format": shallow(MaskFormat(format="slm", panel=(4, 4)))}
SIDECAR |= {"masks_in_file": [0], "mask_shape": [4, 4]}


def read_sidecar(path: Path):
    np.save(path.with_suffix(""), np.zeros((4, 4), np.uint8))
    return mask_files.read_mask_file(path.with_suffix(""))


ROW = {
    **{"name": "a", "misfit": 0.1, "refined_misfit": 0.1, "energy": 1.0},
    **{"saturation": 0.0, "unused_bits": 0, "warning": ""},
}
RESULTS = {"settings": {}, "frames": [ROW]}
NOISY = {"checkpoint": DIGEST, "snr_db": [20.0], "photons": [1e6], "images": NOISE.images}
NOISY |= {"refine": 0, "scores": {"recovered": UNDER_NOISE}, "rms": {"recovered": UNDER_NOISE}}
COST = {"device": "cpu", "config": "", "batch": 1, "step_bytes": 1}
COST |= {"inference_ms": 1.0, "inference_quartiles_ms": [1.0, 2.0]}
FRAME = {"ms": 1.0, "quartiles_ms": [1.0, 2.0]}
FRAME_TIMES = {"device": "cpu", "config": "", "batch": 1, "alone": FRAME, "in_batch": FRAME}
BENCH = {"bench": {"camera_pixel": 1e-6}, "sensor_pixel": 1e-6, "warnings": []}


def reader(shape):
    return lambda path: json_files.read_json(path, shape)


READERS = {
    "run.json": (lambda path: run_folder.read_config(path.parent), RUN),
    "results.json": (lambda path: results.read_results(path.parent, {}), RESULTS),
    "calibration.json": (read_calibration, CALIBRATION),
    "mask.npy.json": (read_sidecar, SIDECAR),
    "metrics.json": (lambda path: planned(path.parent).scores, SCORED),
    "robustness.json": (read_noisy_scores, NOISY),
    "failures.json": (reader(FAILURES), {"e2e, seed 0": "why"}),
    "costs.json": (reader(COSTS), {"e2e": COST}),
    "frames.json": (reader(FRAMES), {"e2e": FRAME_TIMES}),
    "geometry.json": (reader(RECORD), BENCH),
}
FOREIGN = [b"null", b"3", b'"text"', b"[]", b"[{}]", b"{}", b"{", b"", b"NaN", b"[" * 100_000]
FOREIGN += [b"9" * 5000, b"\xff\xfe\x00"]
OTHERS = [None, "text", [], {}, True, -1, 1e999, 10**30, 0.5, [1] * 7, "x" * 1000]


def paths(value, path=()):
    """The place of everything inside a value of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*path, key))


def changed(value, path, other):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return value


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_what_is_written_and_refuses_foreign_files(tmp_path, name):
    read, good = READERS[name]
    path = tmp_path / name
    json_files.write_json(path, good)
    assert read(path) is not None
    empty = name in ("failures.json", "costs.json", "frames.json")  # there may be none
    for text in FOREIGN:
        if not (empty and text == b"{}"):
            path.write_bytes(text)
            assert name in rejection(read, path), text


@pytest.mark.parametrize("name", READERS)
def test_a_value_of_another_kind_gets_one_line_or_does_no_harm(tmp_path, name):
    read, good = READERS[name]
    good = json.loads(json.dumps(good))  # lists for tuples
    path = tmp_path / name
    refused = 0
    cases = list(itertools.product(paths(good), OTHERS))
    for place, other in random.Random(0).sample(cases, min(len(cases), 120)):
        path.write_text(json.dumps(changed(good, place, other)))
        try:
            read(path)
        except InputError as failure:
            assert "\n" not in str(failure)
            refused += 1
    assert refused > 5


def test_rows_whose_files_are_there_are_taken_on(tmp_path):
    rows = [ROW | {"name": "a", "psnr": 20.0, "ssim": 0.5, "rms": 0.1}]
    rows.append(rows[0] | {"name": "b"})
    (tmp_path / "b.npz").touch()
    results.write_results(tmp_path, {"settings": {}, "frames": rows})
    assert [row["name"] for row in results.read_results(tmp_path, {})] == ["b"]
    results.write_results(tmp_path, {"settings": {}, "frames": [rows[0] | {"psnr": None}]})
    assert "psnr" in rejection(results.read_results, tmp_path, {})


def test_a_calibration_that_calibrate_cannot_have_written_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, FOUND)
    assert read_calibration(path) == FOUND
    assert "--calibration" in rejection(read_calibration, tmp_path / "none.json")
    numbers = (1e-300, 1e300, 0.0, -1.0, None, float("nan"))
    wrong = {
        **{"flip": ["sideways"], "rotation": ["2"], "transpose": ["no"], "checkpoint": [None]},
        **{"sensor": [[16.5, 16]], "counts_per_unit": numbers, "scale": numbers},
        **{"bin": [0, 2.5, None], "sampling": ["lines", 1], "square_pixels": [1, "yes"]},
    }
    for name, others in wrong.items():
        section = "reading" if name in Reading._fields else "geometry"
        place = (name,) if name in CALIBRATION else (section, name)
        for other in others:
            path.write_text(json.dumps(changed(CALIBRATION, place, other)))
            assert "--calibration" in rejection(read_calibration, path), (name, other)


@pytest.mark.parametrize("content", ["the only copy", "{}", "[1]", '{"geometry": 3}'])
def test_nothing_but_an_earlier_result_is_replaced(tmp_path, content):
    path = tmp_path / "notes.json"
    path.write_text(content)
    require = functools.partial(json_files.require_own, "--output", command="geometry")
    said = rejection(require, path, RECORD)
    assert said.startswith("--output: ") and "notes.json" in said
    json_files.write_json(path, READERS["geometry.json"][1])
    require(path, RECORD)
    require(tmp_path / "new.json", RECORD)
    assert str(tmp_path) in rejection(require, tmp_path, RECORD)


def test_what_lies_beside_a_result_is_replaced_with_it_only(tmp_path):
    (tmp_path / "geometry-1.png").touch()
    require = functools.partial(json_files.require_own, "--output", command="geometry")
    path = tmp_path / "geometry.json"
    require(path, RECORD, beside=["geometry.md"])
    said = rejection(require, path, RECORD, beside=["geometry.md", "geometry-*.png"])
    assert str(tmp_path / "geometry-1.png") in said
    json_files.write_json(path, READERS["geometry.json"][1])
    require(path, RECORD, beside=["geometry-*.png"])
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"case": "step"}\n{"case": "epoch"}\n')
    require(rows, {"case": str})
    rows.write_text('{"case": "step"}\nnotes\n')
    assert "rows.jsonl" in rejection(require, rows, {"case": str})


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        ("*/report.json", REPORT),
        ("*/benchmark.jsonl", {"case": str}),
    ],
)
def test_the_results_of_this_repository_may_be_replaced(pattern, shape):
    paths = list((Path(__file__).parents[1] / "results").glob(pattern))
    for path in paths:
        json_files.require_own("--output", path, shape, command="it")
    assert paths
