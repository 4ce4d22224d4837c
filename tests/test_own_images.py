"""Images of the user's own beside a run: read as the run's data are, and back from a bench."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import image_config, rejection, same, untrained_run
from PIL import Image

from jax_kdpr.config import schema
from jax_kdpr.core.options import shallow
from jax_kdpr.data.image_files import Preparation
from jax_kdpr.data.inspection import read_images
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.lab.frames.simulated_bench import make_bench, write_bench
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run

SIZE = 16
RNG = np.random.default_rng(0)
OBJECTS = RNG.uniform(-0.4, 1.5, (4, SIZE, SIZE)).astype(np.float32)  # radians
RANGE = 3.0  # radians
OFFSET = 0.75  # of the run's own data: their smallest phase is -0.75


@pytest.fixture
def make_run(tmp_path):
    """make_run(field=value, ...) -> a run of random masks whose data are phases or fractions."""

    def make(**changes) -> Run:
        radians = changes.get("data__unit") == "radians"
        low, high = (-OFFSET, RANGE - OFFSET) if radians else (0.0, 0.9)
        pixels = RNG.uniform(low, high, (20, SIZE, SIZE)).astype(np.float32)
        pixels[3, 0, 0] = low
        np.save(tmp_path / "data.npy", pixels[..., None])
        config = image_config(tmp_path / "data.npy", masks__snapshots=1, **changes)
        config.scene.phase_range = RANGE
        workdir = tmp_path / "run"
        workdir.mkdir()
        dataset = schema.load_data(config)
        run_folder.record_session(workdir, config, {"data": dataset.digest})
        return untrained_run(config, workdir)

    return make


def save_stack(path, images):
    np.save(path, np.asarray(images, np.float32)[..., None])
    return path


RUNS = {
    "fraction": {},
    "radians": {"data__unit": "radians"},
    "stretched": {"data__rescale": True},
    "amplitude": {"scene__kind": "amplitude"},
    "complex": {"scene__kind": "complex"},
}


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_the_truth_of_a_simulated_bench_comes_back_to_the_bit(changes, make_run, tmp_path):
    run = make_run(**changes)
    given = OBJECTS if run.in_radians else np.abs(OBJECTS) / 2
    source = save_stack(tmp_path / "own.npy", given)
    images = own_images(run, source, flag="--images", as_trained=True)
    if run.config.data.rescale:  # objects are not stretched though the run's images are
        assert same(images[..., 0], given)
    assert len(images) == len(OBJECTS) // run.camera.channels
    for number, written in enumerate((images, images[:1])):
        folder = tmp_path / f"bench-{number}"
        write_bench(folder, run, written, make_bench(run, scale=2.0), seed=0)
        back = own_images(run, folder / "truth.npy", flag="--truth")
        assert same(back, written) and back.dtype == jnp.float32


def test_phases_get_the_offset_of_the_runs_own(make_run, tmp_path, capsys):
    run = make_run(data__unit="radians")
    source = save_stack(tmp_path / "own.npy", OBJECTS)
    images = own_images(run, source, flag="--truth", as_trained=True)
    assert "--truth: 4 NPY" in capsys.readouterr().out  # beside the line of the run's own data
    np.testing.assert_allclose(images[..., 0], (OBJECTS + OFFSET) / RANGE, atol=1e-6)
    for beyond in (OBJECTS - 0.5, OBJECTS + 1.0):
        source = save_stack(tmp_path / "beyond.npy", beyond)
        message = rejection(own_images, run, source, flag="--truth", as_trained=True)
        assert "-0.75 to 2.25" in message


def test_only_phases_need_the_runs_data(make_run, tmp_path):
    """A truth.npy is scenes already, and a known object's global phase does not count."""
    run = make_run(data__unit="radians")
    write_bench(tmp_path, run, jnp.zeros((1, SIZE, SIZE, 1)), make_bench(run, scale=2.0), seed=0)
    source = save_stack(tmp_path / "own.npy", OBJECTS)
    (tmp_path / "data.npy").unlink()
    assert len(own_images(run, tmp_path / "truth.npy", flag="--truth", as_trained=True)) == 1
    found = own_images(run, source, flag="--object")[..., 0]
    np.testing.assert_allclose(found, (OBJECTS - OBJECTS.min()) / RANGE, atol=1e-6)
    (tmp_path / "truth.npy").unlink()
    os.mkfifo(tmp_path / "truth.npy")  # which never ends
    assert "no regular file" in rejection(own_images, run, tmp_path / "truth.npy", flag="--truth")
    assert "--data_dir" in rejection(own_images, run, source, flag="--truth", as_trained=True)
    for flag in ("--truth", "--object"):
        message = rejection(own_images, run, tmp_path / "nowhere", flag=flag)
        assert message.startswith(f"{flag}: ") and f"'{tmp_path}/nowhere'" in message


def test_truths_of_a_folder_have_the_order_of_frames(make_run, tmp_path):
    run, truth = make_run(), tmp_path / "truth"
    truth.mkdir()
    for number in (10, 9, 100, 2):
        np.save(truth / f"a{number}.npy", np.full((8, 8), number / 200))
    expected = [int(frame.name[1:]) / 200 for frame in list_frames(f"{truth}/*.npy")]
    assert expected == sorted(expected)
    found = own_images(run, truth, flag="--truth")
    np.testing.assert_allclose(found[:, 0, 0, 0], expected)
    trained_on = read_images(truth, Preparation(8)).images  # in the order that is split
    np.testing.assert_allclose(200 * trained_on[:, 0, 0], [10, 100, 2, 9])


def test_a_complex_scene_is_phase_and_amplitude_by_turns(make_run, tmp_path, capsys):
    run, values = make_run(scene__kind="complex"), np.abs(OBJECTS) / 2
    (tmp_path / "own").mkdir()
    for number, value in enumerate(values):
        np.save(tmp_path / "own" / f"{number}.npy", value)
    images = own_images(run, tmp_path / "own", flag="--truth", count=2)
    assert "--truth: phase 0.npy, amplitude 1.npy" in capsys.readouterr().out
    assert same(images[..., 0], values[0::2]) and same(images[..., 1], values[1::2])
    assert "expected 3" in rejection(own_images, run, tmp_path / "own", flag="--truth", count=3)
    odd = save_stack(tmp_path / "odd.npy", values[:3])
    assert "two images of each" in rejection(own_images, run, odd, flag="--truth")


def test_one_file_holds_one_image(make_run, tmp_path):
    counts = RNG.integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    Image.fromarray(counts).save(tmp_path / "own.png")
    (found,) = own_images(make_run(), tmp_path / "own.png", flag="--object")
    np.testing.assert_allclose(found[..., 0], counts / 255, rtol=1e-6)


def test_a_truth_of_another_run_is_refused(make_run, tmp_path):
    run = make_run()
    ours = json.dumps({"scene": shallow(run.camera.scene)})
    (tmp_path / "truth.json").write_text(ours)
    for wrong in (np.zeros((2, 8, 8, 1)), np.full((2, SIZE, SIZE, 1), np.nan), np.zeros(3)):
        np.save(tmp_path / "truth.npy", wrong.astype(np.float32))
        assert "another run" in rejection(own_images, run, tmp_path / "truth.npy", flag="--truth")
    np.save(tmp_path / "truth.npy", np.zeros((2, SIZE, SIZE, 1), np.float32))
    for scene, says in (
        ({"kind": "phase", "phase_range": 1.0}, "'phase_range': 1.0"),
        ({"kind": "amplitude"}, "'kind': 'amplitude'"),
    ):
        (tmp_path / "truth.json").write_text(json.dumps({"scene": scene}))
        assert says in rejection(own_images, run, tmp_path / "truth.npy", flag="--truth")
    (tmp_path / "truth.json").write_text(ours)
    (tmp_path / "truth.npy").write_bytes(b"\x93NUMPY")
    assert "--truth" in rejection(own_images, run, tmp_path / "truth.npy", flag="--truth")
