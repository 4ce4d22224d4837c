"""The Python front door, as a person uses it: `import jax_kdpr as kdpr`."""

import dataclasses
import json
import subprocess
import sys

import commands
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import rejection, tiny_config
from PIL import Image

import jax_kdpr as kdpr
from jax_kdpr.recovery import projections

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(recorded):
    return kdpr.load(recorded / "teacher")


@pytest.fixture(scope="module")
def scenes(run):
    return run.scenes(4)[..., 0]


@pytest.fixture(scope="module")
def counts(run, scenes):
    """Frames [4 3 16 16] of a 16-bit camera, the zero frequency in the middle."""
    seen = np.fft.fftshift(run.measure(scenes), axes=(2, 3))
    return np.round(seen / seen.max() * 60000).astype(np.uint16)


def test_a_run_measures_what_the_mathematics_says(run, scenes):
    phases = np.asarray(run.phases)
    wanted = [oracles.intensity(np.exp(1j * np.pi * scene), phases) for scene in scenes]
    np.testing.assert_allclose(run.measure(scenes), wanted, atol=1e-4)


def test_frames_are_recovered_as_a_person_has_them(run, scenes, counts):
    images = jnp.asarray(scenes[..., None])
    output, _ = jax.jit(run.system.apply)(*run.variables, images, jax.random.key(0))
    ways = {
        "as they are": (counts, True),
        "of one object after the other": (counts.reshape(12, 16, 16), True),
        "not shifted": (np.fft.ifftshift(counts, axes=(2, 3)), False),
        "floats": (1e-3 * counts.astype(float), True),
    }
    for name, (frames, centred) in ways.items():
        found = run.reconstruct(frames)
        assert found.centred == centred, name
        np.testing.assert_allclose(found.image, output.image, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(found.phase, np.pi * found.image[..., 0], rtol=1e-6)
    one = run.reconstruct(counts[0])
    assert one.image.shape == (1, 16, 16, 1)
    wrong = run.reconstruct(np.swapaxes(counts, 2, 3), centred=True)
    assert np.median(wrong.misfit) > 1.1 * np.median(run.reconstruct(counts).misfit)


def test_a_dark_is_taken_away_and_steps_of_a_solver_bring_the_image_closer(run, counts):
    wanted = run.reconstruct(counts)
    dark = np.full((16, 16), 500.0)
    found = run.reconstruct(counts + 500.0, dark=dark)
    np.testing.assert_allclose(found.image, wanted.image, atol=1e-5)
    refined = run.reconstruct(counts, refinement=kdpr.Refinement(5))
    assert not np.allclose(refined.image, wanted.image, atol=1e-3)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (np.ones((16, 16)), "expected 3 of each object"),
        (np.ones((1, 2, 16, 16)), "expected 3 of each object"),
        (np.ones((3, 20, 20)), "expected 16 x 16 pixels"),
        (np.full((3, 16, 16), np.nan), "finite"),
        (np.ones(16), "[y x]"),
        (np.ones((3, 16, 16), complex), "complex"),
        (np.zeros((3, 16, 16)), "no light"),
    ],
)
def test_frames_that_cannot_be_the_runs_are_refused(run, frames, says):
    assert says in rejection(run.reconstruct, frames)


def test_images_and_gains_that_nothing_can_mean_are_refused(run, counts):
    assert "[0, 1]" in rejection(run.measure, np.full((1, 16, 16), 1.5))
    assert "16 16" in rejection(run.measure, np.zeros((1, 8, 8)))
    for gain in (0.0, -1.0, np.nan, 1e-300):
        assert "gain" in rejection(run.reconstruct, counts, gain=gain)
    exact = run.measure(run.scenes(4))
    found = run.reconstruct(7.0 * exact, gain=7.0, centred=False)
    np.testing.assert_allclose(found.image, run.reconstruct(exact).image, atol=1e-5)


@pytest.mark.slow
def test_its_scores_are_those_of_the_command(run, tmp_path):
    scores = run.evaluate(output=tmp_path / "new")
    assert scores == json.loads((tmp_path / "new" / "metrics.json").read_text())["scores"]


@pytest.mark.slow
def test_a_changed_run_is_scored_as_it_is_and_not_into_its_folder(run, tmp_path):
    moved = run.with_optics({"mount": {"shift_y": 3.0}})
    params, state = run.variables
    flat = dataclasses.replace(run, variables=({**params, "phases": 0 * params["phases"]}, state))
    written = {path.name for path in run.workdir.iterdir()}
    truth = run.scenes(len(run.dataset.test))
    for number, changed in enumerate((moved, flat)):
        assert "give output=" in rejection(changed.evaluate)
        scores = changed.evaluate(output=tmp_path / str(number))["recovered"]
        found = changed.reconstruct(changed.measure(truth), gain=1.0, centred=False)
        assert scores["psnr"] == pytest.approx(run.score(found.image, truth)["psnr"].mean())
        written_there = json.loads((tmp_path / str(number) / "metrics.json").read_text())
        assert written_there["checkpoint_digest"] == ""
    assert {path.name for path in run.workdir.iterdir()} == written


@pytest.mark.slow
def test_training_returns_its_history_and_goes_on(tmp_path):
    config = tiny_config(train__epochs=1)
    history = kdpr.train(config, tmp_path / "run")
    assert [row["epoch"] for row in history] == [1] and history[0]["train_total"] > 0
    assert kdpr.train(config, tmp_path / "run") == history == kdpr.load(tmp_path / "run").history
    config.net.widths = (8,)
    assert "net.widths" in rejection(kdpr.train, config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_solver_recovers_phase_objects_from_frames_and_masks():
    phases = RNG.uniform(0, 2 * np.pi, (4, 16, 16)).astype(np.float32)
    fields = np.exp(1j * np.pi * oracles.smooth_images(RNG, 2, 16, 16, sigma=2.0))
    frames = 7.0 * np.stack([oracles.intensity(field, phases) for field in fields])
    for centred, seen in ((False, frames), (True, np.fft.fftshift(frames, axes=(2, 3)))):
        found, misfit = kdpr.solve(seen, phases, solver="raar", steps=300, centred=centred)
        assert misfit.max() < 1e-3
        for one, true in zip(found, fields, strict=True):
            overlap = np.abs(np.vdot(one, true)) / np.linalg.norm(one) / np.linalg.norm(true)
            assert overlap > 0.999


@pytest.mark.parametrize(
    ("frames", "phases", "says"),
    [
        (np.zeros((16, 16)), np.ones((1, 16, 16)), "no light"),
        (np.ones((16, 16)), np.ones(16), "[L h w]"),
        (np.ones((16, 16)), np.ones((16, 16), np.uint8), "radians [L h w], floats"),
        (np.ones((24, 24)), np.ones((16, 16)), "16 x 16 pixels, as the masks have"),
        (np.ones((16, 16)), np.full((1, 16, 16), "flat"), "radians"),
        (np.ones((3, 16, 16)), np.ones((2, 16, 16)), "expected 2 of each object"),
    ],
)
def test_what_no_solver_can_use_is_refused(frames, phases, says):
    assert says in rejection(kdpr.solve, frames, phases)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"solver": "rar"}, "some of error_reduction, hio"),
        ({"scene": "phases"}, "one of phase, amplitude, complex, none, got 'phases'"),
        ({"steps": 0}, "steps: expected a number in [1, 1000000], got 0"),
        ({"beta": 5.0}, "beta: expected a number in (0, 1]"),
        ({"tv": -1.0}, "tv: expected a number in [0"),
        ({"tv": 0.5}, "tv: raar does not read it"),
        ({"beta": 0.5, "solver": "accelerated"}, "beta: accelerated does not read it"),
        ({"gain": -1.0}, "gain: expected a number in"),
    ],
)
def test_what_no_solver_reads_is_refused(options, says):
    assert says in rejection(kdpr.solve, np.ones((16, 16)), np.ones((16, 16)), **options)


@pytest.mark.slow
def test_numbers_of_another_type_are_refused_in_a_line():
    """In a process of its own, as the tests check all types."""
    code = (
        "import numpy as np, jax_kdpr as kdpr\n"
        "for options in ({'steps': 2.5}, {'steps': '9'}, {'gain': '1'}, {'gain': None}):\n"
        "    try:\n"
        "        kdpr.solve(np.ones((16, 16)), np.ones((16, 16)), **options)\n"
        "    except kdpr.InputError as failure:\n"
        "        print(failure)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "a whole number, got 2.5" in lines[0] and "a number in" in lines[1], done
    assert [line.partition(":")[0] for line in lines] == ["steps"] * 2 + ["gain"] * 2


def test_ones_own_solver_is_the_one_that_the_name_stands_for_now(monkeypatch):
    """As in a notebook whose cell is run again; compiled programs are kept by name otherwise."""
    frames, phases = np.ones((16, 16)), np.zeros((16, 16))

    def scaling(factor):
        def method(data, constrain, settings):
            return projections.Method(lambda x: x, lambda x, _: factor + 0 * x, lambda x: x)

        return method

    for factor in (1.0, 2.0):
        monkeypatch.setattr(projections, "own", scaling(factor), raising=False)
        fields, _ = kdpr.solve(frames, phases, solver=f"{projections.__name__}:own")
        np.testing.assert_allclose(fields, factor)


def test_many_frames_are_recovered_in_batches(run, counts):
    many = dataclasses.replace(run, batch_size=3).reconstruct(np.concatenate([counts, counts]))
    np.testing.assert_allclose(
        many.image, np.tile(run.reconstruct(counts).image, (2, 1, 1, 1)), atol=1e-5
    )
    assert "teacher run" in repr(run)


@pytest.mark.slow
def test_importing_is_quick_and_functions_stay_functions_beside_commands_of_their_name():
    code = (
        "import importlib, sys, jax_kdpr as k; assert 'jax' not in sys.modules; "
        "assert set(k.__all__) <= set(dir(k)); "
        "[importlib.import_module(f'jax_kdpr.{name}') for name in (sys.argv[1:])]; "
        "print(k.presets.quickstart().data.size, k.Config.__name__, callable(k.load)); "
        "print(*[getattr(k, name).__module__ for name in ('train', 'solve')])"
    )
    for name in ("train", "solve"):
        found = subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
        )
        homes = ["jax_kdpr.interface.api", "jax_kdpr.interface.solving"]
        assert found.stdout.split() == ["32", "Config", "True", *homes]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 0, "  reconstruct     Recovers objects from frames of a real camera"),
        (["trian"], 2, "error: no command 'trian'; did you mean train?\n"),
        (["geometry", "--pixels", "4"], 2, "error: --wavelength"),
    ],
)
@pytest.mark.slow
def test_the_list_of_commands_and_the_way_to_each(arguments, code, says):
    done = commands.run_program("jax_kdpr", *arguments)
    assert done.returncode == code and says in done.stdout + done.stderr


@pytest.fixture
def files(tmp_path):
    """A folder of four images of 16-bit grey, and what they are, [4 h w] in [0, 1]."""
    values = np.random.default_rng(3).integers(0, 65536, (4, 16, 16), dtype=np.uint16)
    for number, one in enumerate(values):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    return tmp_path, values / 65535


def test_images_of_files_are_read_as_the_run_reads_its_own(run, files):
    folder, values = files
    images = run.read_images(folder)
    assert images.shape == (4, 16, 16, 1)
    np.testing.assert_allclose(images[..., 0], values, atol=2e-3)  # images are held in 8 bits
    np.testing.assert_array_equal(run.read_images(str(folder / "2.png")), images[2:3])
    assert "path" in rejection(run.read_images, folder / "none")


def test_scores_of_each_image_are_those_of_the_formulas(run, files):
    truth = run.read_images(files[0])
    found = np.clip(truth + 0.1 * np.arange(4)[:, None, None, None], 0, 1)
    scores = run.score(found, truth)
    for number in range(1, 4):
        wanted = oracles.psnr(found[number], truth[number])
        assert scores["psnr"][number] == pytest.approx(wanted, abs=1e-3)
    assert scores["ssim"][0] == pytest.approx(1.0) and scores["rms"][0] == pytest.approx(
        0, abs=1e-5
    )
    # A piston that nothing is clipped by is no error of the phase.
    plain = run.score(found[..., 0], truth[..., 0])
    np.testing.assert_array_equal(plain["psnr"], scores["psnr"])
    even = run.score(0.5 * truth + 0.25, 0.5 * truth)
    np.testing.assert_allclose(even["rms"], 0, atol=1e-5)
    for wrong in (
        found[0],
        found[:3],
        found[:, :12],
        found.astype(complex),
        3.0 * found,
        np.nan * found,
        "images.tif",
    ):
        assert "[n 16 16 1]" in rejection(run.score, wrong, truth)


@pytest.mark.slow
def test_the_limit_of_trust_is_that_of_the_command(run, tmp_path):
    scenes = run.scenes(4)
    np.save(
        tmp_path / "frames.npy",
        np.fft.fftshift(run.measure(scenes), axes=(2, 3)).reshape(12, 16, 16),
    )
    commands.run(
        *("reconstruct", "--workdir", run.workdir, "--input", tmp_path / "frames.npy"),
        *("--scale", "1", "--mask_pixels", "point", "--output", tmp_path / "found"),
    )
    written = json.loads((tmp_path / "found" / "results.json").read_text())
    # The command also adds what the frames' own noise is where dark frames show it: none here.
    assert run.misfit_limit() == pytest.approx(written["misfit_limit"], rel=0.1)
    solved = kdpr.bench(np.zeros((16, 16)))
    assert solved.misfit_limit() == 0.3


def test_a_mask_of_any_size_is_a_bench_without_a_network():
    masks = np.random.default_rng(0).uniform(0, 2 * np.pi, (1, 15, 15))
    bench = kdpr.bench(masks, solver=kdpr.Refinement(5), starts=1)
    objects = np.random.default_rng(1).random((2, 15, 15))
    frames = bench.measure(objects)
    wanted = [oracles.intensity(np.exp(1j * np.pi * one), masks) for one in objects]
    np.testing.assert_allclose(frames, wanted, atol=1e-4)
    assert bench.reconstruct(frames, gain=1.0).phase.shape == (2, 15, 15)
    assert "uint8" in rejection(kdpr.bench, np.zeros((16, 16), np.uint8))
    moved = bench.with_optics({"device": {"fill_factor": 0.9}})
    assert moved.config.device.fill_factor == 0.9
    assert "device.a" in rejection(bench.with_optics, {"device": {"a.b": 1}})
