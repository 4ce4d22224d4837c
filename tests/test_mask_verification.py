"""What is found in mask files that are read back: nothing in good ones, the mistake in others."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import call, refusal, run
from helpers import rejection
from mask_exports import PANEL, lands, tiny
from PIL import Image

from jax_kdpr.lab.masks.verification import explain, find_mistake, verify_files
from jax_kdpr.optics.mask_files.reading import read_mask_file, sidecar_path


@pytest.mark.parametrize(
    "options",
    [
        {"format": "slm", "panel": PANEL, "magnify": 2, "rotate": 270, "flip_horizontal": True},
        {"format": "slm", "panel": PANEL, "tile": True, "sign": "direct", "falling": True},
        {"format": "height", "wavelength": 6e-7, "index": 1.5},
        {"format": "csv"},
    ],
)
def test_a_good_file_loses_next_to_nothing(export, designed, options):
    verdict = verify_files(designed, export(**options))
    assert abs(verdict.loss) < 0.05
    assert verdict.found.psnr == pytest.approx(verdict.trained.psnr - verdict.loss, abs=1e-4)
    assert verdict.mistake == "" and verdict.notes == []


def edited(path: Path, change) -> Path:
    """Applies change(levels) -> levels to a panel file; its sidecar stays."""
    with Image.open(path) as opened:
        levels = np.asarray(opened).copy()
    Image.fromarray(change(levels).astype(np.uint8)).save(path)
    return path


MISTAKES = {
    "of the wrong sign": lambda levels: -levels.astype(int) % 256,
    "flipped vertically": lambda levels: levels[::-1],
    "flipped horizontally": lambda levels: levels[:, ::-1],
    "transposed": lambda levels: levels.T,
    "turned by 180 degrees": lambda levels: levels[::-1, ::-1],
    "turned by 90 degrees counter-clockwise": np.rot90,
    "of the wrong sign and flipped vertically": lambda levels: (-levels.astype(int) % 256)[::-1],
    "moved by 2 rows and -1 columns": lambda levels: np.roll(levels, (2, -1), axis=(0, 1)),
    "0.78 times": lambda levels: levels * (200 / 256),  # of a panel that has 2 pi at level 200
}


def test_a_table_that_does_not_reach_round_the_circle_is_no_mistake_of_scale(
    export, designed, tmp_path
):
    """Its phases look like those of another gray level at 2 pi."""
    table = tuple((1.2 * np.pi * np.arange(256) / 255).tolist())
    paths = export(table=table, output=tmp_path / "out")
    verdict = verify_files(designed, paths, max_loss=-math.inf)
    assert verdict.rounding > 1.0
    assert "device.table" in explain(verdict)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(export, phases, mistake):
    paths = [edited(path, MISTAKES[mistake]) for path in export()]
    found = np.concatenate([read_mask_file(path).phases for path in paths])
    assert find_mistake(found, phases.astype(float)).startswith(mistake)


def test_a_mistake_is_looked_for_even_where_little_is_lost(export, designed):
    path = edited(export()[1], MISTAKES["flipped vertically"])  # one of three, alone
    verdict = verify_files(designed, [path], max_loss=-math.inf)
    assert verdict.found != verdict.trained and verdict.mistake == "flipped vertically"
    assert all("changed" in note for note in verdict.notes)
    assert "flipped vertically" in explain(verdict)


def test_another_mask_is_no_mistake_of_this_one(phases):
    exact = phases.astype(float)
    assert find_mistake(exact + 1.0, exact) == ""  # a constant phase is in no intensity
    assert find_mistake(np.random.default_rng(5).uniform(0, 2 * np.pi, phases.shape), exact) == ""


def test_files_that_do_not_belong_to_the_run_are_refused(export, designed, tmp_path):
    config = tiny()
    config.data.size = 32
    path, _ = lands(config, tmp_path / "larger")
    assert "16x16" in rejection(verify_files, designed, [path])
    first, second, _ = export()
    sidecar = json.loads(sidecar_path(second).read_text())
    for number in (0, 3):  # in another file too; none of the run's
        sidecar_path(second).write_text(json.dumps(sidecar | {"masks_in_file": [number]}))
        assert f"mask {number}" in rejection(verify_files, designed, [first, second])
    Image.fromarray(np.zeros((15, 16), np.uint8)).save(first)
    assert "15 x 16" in rejection(verify_files, designed, [first])


def test_a_file_of_another_checkpoint_is_noted_and_loses_nothing(export, designed):
    (path,) = export("npy", stack=True)
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["run"]["checkpoint_digest"] = "another"
    sidecar_path(path).write_text(json.dumps(sidecar))
    verdict = verify_files(designed, [path])
    assert "another checkpoint" in " ".join(verdict.notes) and verdict.mistake == ""
    recorded = json.loads((designed / "metrics.json").read_text())
    assert verdict.trained.images == recorded["scores"]["recovered"]["images"]
    assert verdict.trained.psnr == pytest.approx(recorded["scores"]["recovered"]["psnr"], abs=1e-3)


def test_too_few_levels_are_said_to_be_the_cause(export, designed):
    paths = export("height", wavelength=6e-7, index=1.5, levels=4)
    verdict = verify_files(designed, paths, max_loss=-math.inf)
    assert verdict.mistake == ""
    assert math.pi / 4 - 0.02 < verdict.rounding <= math.pi / 4 + 1e-5
    assert f"{verdict.rounding:.2f} rad" in explain(verdict)
    assert "another look-up table" in explain(verdict._replace(rounding=0.01))


@pytest.mark.slow
def test_export_and_verification_as_a_user_runs_them(teacher, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(teacher, workdir)
    slm = ("--workdir", workdir, "--format", "slm", "--panel", "40x60", "--verify")
    done = run("export_mask", *slm, check=True)
    assert re.search(r"trained masks \d+\.\d+ dB, 0\.\d+ rad; file", done.stdout)
    assert "It holds the mask alone" in done.stdout
    files = sorted((workdir / "export").iterdir())
    ends = [f"slm-{k}.{suffix}" for k in range(3) for suffix in ("png", "png.json")]
    assert [file.name for file in files] == ends
    for path in files[::2]:
        edited(path, lambda levels: levels[::-1])
    verify = ("--workdir", workdir, "--verify_file", *files[::2])
    done = call("export_mask", *verify)
    assert done.returncode == 1 and "flipped vertically" in done.stderr.splitlines()[-1]
    assert call("export_mask", *verify, "--max_loss=100").returncode == 0
    bench = "wavelength = 532e-9\n[modulator]\npixel_pitch = 8e-6\nmagnify = 3\nbits = 10\n"
    (tmp_path / "bench.toml").write_text(bench)
    relief = ("--format", "height", "--index", "1.46", "--bench", tmp_path / "bench.toml")
    assert call("export_mask", "--workdir", workdir, *relief).returncode == 0
    (path,) = (workdir / "export").glob("height-0.*.json")
    assert json.loads(path.read_text())["format"]["mask_pitch"] == pytest.approx(24e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--format"),
        (("--format", "slm", "--panel", "1080"), "HEIGHTxWIDTH"),
        (("--format", "slm", "--images", "5"), "--verify"),
        (("--verify_file", "none.png", "--sign", "direct"), "--sign"),
        (("--verify_file", "none.png"), "none.png.json"),
    ],
)
def test_bad_command_lines_are_one_line(designed, arguments, says):
    before = sorted(designed.rglob("*"))
    assert says in refusal("export_mask", "--workdir", designed, *arguments)
    assert sorted(designed.rglob("*")) == before
