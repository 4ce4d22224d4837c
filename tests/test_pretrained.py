"""Systems that come with the package."""

import json
import tempfile

import numpy as np
import pytest
import tifffile
from commands import call, refusal
from helpers import rejection

import jax_kdpr as kdpr
from jax_kdpr.runs import pretrained

MOST_BYTES = 5_000_000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", pretrained.names())
def test_a_system_is_small_has_a_card_and_loads(name, cache):
    assert (pretrained.FOLDER / f"{name}{pretrained.ENDING}").stat().st_size < MOST_BYTES
    card = pretrained.read_card(name)
    assert card["scores"]["recovered"]["psnr"] > card["scores"]["mean_image"]["psnr"] + 5
    run = kdpr.pretrained(name)
    assert run.workdir.parent == cache / "jax_kdpr"
    before = sorted(path.name for path in run.workdir.parent.iterdir())
    kdpr.pretrained(name)  # not made again
    assert sorted(path.name for path in run.workdir.parent.iterdir()) == before
    size = run.config.data.size
    assert run.phases.shape == (1, size, size) and run.has_network


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert pretrained.workdir("e2e-32").is_dir()


def test_a_name_that_is_none_says_which_there_are(cache):
    assert "bench-32" in rejection(kdpr.pretrained, "bench")
    assert "no frames came with 'e2e-32', only with bench-32" in rejection(
        pretrained.example, "e2e-32"
    )


@pytest.mark.slow
def test_its_frames_are_recovered_by_the_command_and_in_python_alike(cache, tmp_path):
    """Both read them as the calibration says that its own frames were read."""
    output, folder = tmp_path / "demo", pretrained.example("bench-32")
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["reading"] = {"bin": 1, "sampling": "area", "square_pixels": True}
    (tmp_path / "calibration.json").write_text(json.dumps(calibration))
    own = f"--calibration={tmp_path / 'calibration.json'}"
    said = call("reconstruct", "--pretrained=bench-32", own, f"--output={output}")
    assert said.returncode == 0 and "6 object(s)" in said.stdout, said.stderr
    results = json.loads((output / "results.json").read_text())
    assert not any(row["warning"] for row in results["frames"])
    assert np.median([row["rms"] for row in results["frames"]]) < 0.2  # radians
    frames = np.stack([tifffile.imread(path) for path in sorted(folder.glob("frames/*.tif"))])
    names = ("dark", "flat", "bad_pixels")
    given = {name: tifffile.imread(folder / f"{name}.tif") for name in names}
    run = kdpr.pretrained("bench-32")
    found = run.reconstruct(frames, calibration=tmp_path / "calibration.json", **given)
    written = sorted(output.glob("*.npy"))
    assert len(written) == 6
    for number, path in enumerate(written):
        np.testing.assert_allclose(np.load(path), found.phase[number], atol=2e-3)
    given |= {"calibration": folder / "calibration.json"}
    plain = run.reconstruct(frames, **given)
    assert np.abs(plain.phase - found.phase).max() > 0.02
    points = run.reconstruct(frames, square_pixels=False, **given)
    assert points.misfit.min() > 1.2 * plain.misfit.max()  # of a mask that is square
    with pytest.warns(UserWarning, match="camera pixels in the pattern's finest period"):
        run.reconstruct(frames, bin=1, **given)
    assert "read only with calibration=" in rejection(run.reconstruct, frames[:, :64, :64], bin=2)


def test_what_names_a_system_twice_or_writes_into_the_cache_is_refused(cache, tmp_path):
    assert "give one of them" in refusal("solve", "--pretrained=e2e-32", f"--workdir={tmp_path}")
    assert "--output: needed beside --pretrained" in refusal("solve", "--pretrained=e2e-32")
