"""From camera frames to objects, on a bench that is known, by a run that is trained well enough."""

import json

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from benches import DARK, SHAPE, faulty_bench, rebuild, true_setup, turned_bench
from helpers import image_config, rejection, same
from oracles import intensity, psnr
from PIL import Image

from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.lab.frames.calibration import calibrate
from jax_kdpr.lab.frames.geometry import default_geometry, make_window
from jax_kdpr.lab.frames.measured import blank_image, group_frames, simulate
from jax_kdpr.lab.frames.orientation import TURNS, orientation_warning
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.lab.frames.recovery import make_recover, misfit_limit, simulated_misfits
from jax_kdpr.lab.frames.simulated_bench import write_bench
from jax_kdpr.runs.run import load_run
from jax_kdpr.training import loop

pytestmark = pytest.mark.slow
OBJECTS = 12


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A single shot through its own mask, trained far enough that its objects explain the CDPs."""
    folder = tmp_path_factory.mktemp("objects")
    for number, image in enumerate(np.asarray(draw_scenes(jax.random.key(0), count=240, size=16))):
        Image.fromarray((255 * image).astype(np.uint8)).save(folder / f"{number:03d}.png")
    config = image_config(folder, masks__snapshots=1)
    config.train.epochs = 30
    loop.train(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir).on_one_device()


@pytest.fixture(scope="module")
def recover(run):
    return make_recover(run)


@pytest.fixture(scope="module")
def limit(run, recover):
    noise = np.zeros(run.sensor)
    simulated = simulated_misfits(run, recover, noise_sigma=noise, batch_size=8)
    return lambda count: misfit_limit(simulated, count)


@pytest.fixture(scope="module")
def bench(run, tmp_path_factory):
    return faulty_bench(run, tmp_path_factory.mktemp("bench"), OBJECTS)


@pytest.fixture(scope="module")
def setup(run, bench):
    """Found from the frames of the empty beam, not taken from the truth."""
    frames = list_frames(str(bench / "calibration" / "*.tif"))
    setup = true_setup(run, bench)
    guess = default_geometry(setup.window, run.sensor, 3.0)
    ranges = {"rotation_range": 5.0, "scale_range": 0.1}
    setup_of_guess, blank = setup._replace(geometry=guess), blank_image(run.camera)
    found = calibrate(frames, setup_of_guess, run, blank, **ranges)
    truth = json.loads((bench / "truth.json").read_text())
    assert found.trusted
    assert found.counts_per_unit == pytest.approx(truth["counts_per_unit"], rel=0.05)
    return setup._replace(geometry=found.geometry)


def test_a_pattern_that_is_cut_off_is_refused(run, bench, setup):
    """Well recognised by what is left of it, but `reconstruct` could not use it."""
    window = make_window(SHAPE, (0, 0, 54, 66), 1)
    cut = setup._replace(references=DARK, window=window)
    frames = list_frames(str(bench / "calibration" / "*.tif"))
    ranges = {"rotation_range": 1.0, "scale_range": 0.02}
    assert "crop less" in rejection(calibrate, frames, cut, run, blank_image(run.camera), **ranges)


def test_the_bench_costs_less_than_half_a_decibel(run, recover, limit, bench, setup, tmp_path):
    frames = bench / "frames" / "*.tif"
    found = rebuild(run, recover, frames, setup, tmp_path, limit=limit, stack=False)
    truth = np.load(bench / "truth.npy")
    ideal = np.stack([simulate(run, jnp.asarray(image)) for image in truth])
    phases = np.asarray(run.optics.masks, np.float64)
    by_matrix = intensity(np.exp(1j * np.pi * truth[0, ..., 0]), phases)
    np.testing.assert_allclose(ideal[0], by_matrix, atol=1e-3)
    best = np.asarray(recover(jnp.asarray(ideal, jnp.float32)).image)
    ours = [np.load(tmp_path / f"{row['name']}.npy") / np.pi for row in found["frames"]]
    quality = np.mean([psnr(a, b[..., 0]) for a, b in zip(ours, truth, strict=True)])
    assert quality > np.mean([psnr(a, b) for a, b in zip(best, truth, strict=True)]) - 0.5
    assert not found["warnings"]
    assert sum(bool(row["warning"]) for row in found["frames"]) <= 1
    first = found["frames"][0]["name"]
    assert same(tifffile.imread(tmp_path / f"{first}.tif"), np.float32(np.pi) * ours[0])
    with Image.open(tmp_path / f"{first}.png") as preview:
        assert len(np.unique(np.asarray(preview.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    measured = np.load(tmp_path / f"{first}.npz")["intensity"]
    assert measured.sum() == pytest.approx(16 * 16, rel=1e-4)
    assert np.linalg.norm(measured - ideal[0]) < 0.15 * np.linalg.norm(ideal[0])


@pytest.mark.parametrize(
    "wrong", [{"transpose": True}, {"flip": "vertical"}, {"scale": 2.4}, {"centre_x": 36.0}]
)
def test_a_wrong_geometry_is_noticed(run, recover, limit, bench, setup, tmp_path, wrong):
    setup = setup._replace(geometry=setup.geometry._replace(**wrong))
    found = rebuild(run, recover, bench / "frames" / "*.tif", setup, tmp_path, limit=limit)
    assert any("median misfit" in line for line in found["warnings"])
    assert sum("misfit" in row["warning"] for row in found["frames"]) > OBJECTS / 2


def test_left_justified_frames_are_noticed(run, recover, limit, setup, tmp_path):
    camera = turned_bench(run, left_justified=True)
    write_bench(tmp_path, run, run.scenes(2), camera, seed=0)
    # Dark and flat of the other bench are right-justified: the black level stays in.
    frames = tmp_path / "frames" / "*.tif"
    found = rebuild(run, recover, frames, setup, tmp_path / "out", limit=limit)
    assert any("left-justified" in line for line in found["warnings"])
    given = setup._replace(counts_per_unit=4000.0)
    found = rebuild(run, recover, frames, given, tmp_path / "given", limit=limit)
    assert all("bit depth" in row["warning"] for row in found["frames"])


def test_noise_is_not_trusted_as_a_single_frame(run, recover, limit, setup, tmp_path):
    for number, noise in enumerate(np.random.default_rng(0).integers(60, 1000, (20, *SHAPE))):
        tifffile.imwrite(tmp_path / f"{number}.tif", noise.astype(np.uint16))
    found = rebuild(run, recover, tmp_path / "*.tif", setup, tmp_path / "out", limit=limit)
    assert all("misfit" in row["warning"] for row in found["frames"])


@pytest.fixture(scope="module")
def said(run, recover, limit):
    """said(pattern of frames, setup) -> the warning about their orientation."""

    def said(pattern, setup):
        return orientation_warning(
            group_frames(list_frames(str(pattern)), 1),
            setup,
            run,
            recover,
            batch_size=8,
            limit=limit,
        )

    return said


@pytest.mark.parametrize("wrong", TURNS)
def test_frames_that_were_turned_are_told_how(said, bench, setup, tmp_path, wrong):
    """Their pattern is off the middle, and rotated: both change with the frame."""
    transpose, rows, columns = TURNS[wrong]
    for path in sorted((bench / "frames").glob("*.tif"))[:8]:
        frame = tifffile.imread(path)
        lying = (frame.T if transpose else frame)[:: -1 if rows else 1, :: -1 if columns else 1]
        tifffile.imwrite(tmp_path / path.name, np.ascontiguousarray(lying))
    text = said(tmp_path / "*.tif", setup._replace(references=DARK))
    assert f"frames fit far better {wrong}:" in text


@pytest.mark.parametrize(
    ("wrong", "lie"),
    [
        ("flipped vertically", {"flip": "vertical"}),
        ("transposed", {"transpose": True}),
        ("turned by 180 degrees", {"flip": "both"}),
    ],
)
def test_patterns_that_lie_wrongly_are_told_how(said, bench, setup, wrong, lie):
    """About their own centre: the mask was shown so."""
    frames = bench / "frames" / "*.tif"
    assert said(frames, setup) == ""
    text = said(frames, setup._replace(geometry=setup.geometry._replace(**lie)))
    assert f"patterns fit far better {wrong}:" in text


def test_the_three_commands(workdir, tmp_path):
    own = np.abs(np.asarray(draw_scenes(jax.random.key(1), count=4, size=20), np.float32))
    np.save(tmp_path / "own.npy", own[..., None])
    camera = "bits = 12\noffset = 0\nfull_well = 1e4\nread_noise = 0\ndark = 5.0"
    (tmp_path / "bench.toml").write_text(f"photons = 1e6\n[camera]\n{camera}\n")
    folder = tmp_path / "b"
    made = commands.run(
        *("simulate_bench", "--workdir", workdir, "--output", folder, "--frames=3"),
        *("--images", tmp_path / "own.npy", "--bench", tmp_path / "bench.toml"),
        check=True,
    )
    assert "the first 3 of 4" in made.stdout
    record = json.loads((folder / "truth.json").read_text())
    expected = {"offset": 0.0, "read_noise": 0.0, "dark": 5.0, "full_well": 1e4, "photons": 1e6}
    assert {name: record[name] for name in expected} == expected
    assert record["counts_per_electron"] == pytest.approx(4095 / 1e4)
    for number, seen in enumerate(np.load(folder / "truth.npy")):
        shrunk = Image.fromarray(own[number]).resize((16, 16), Image.Resampling.BILINEAR)
        assert same(seen[..., 0], np.asarray(shrunk).clip(0, 1))
    references = [f"--{n}={folder / n}.tif" for n in ("dark", "flat", "bad_pixels")]
    common, known = ("--workdir", workdir, *references), folder / "c.json"
    empty = ("--input", folder / "calibration" / "*.tif", "--scale=3", "--output", known)
    upright = commands.run("calibrate", *common, *empty, check=True)
    assert "with flip both, and objects" in upright.stdout
    # Two frames whose mean is the pattern of the conjugate mask, or a camera on its head.
    (blank,), turned = [*folder.glob("calibration/*.tif")], tmp_path / "turned.json"
    for share in (0.5, 1.5):
        np.save(tmp_path / f"blank_{share}.npy", share * tifffile.imread(blank)[::-1, ::-1])
    empty = ("--input", tmp_path / "blank_*.npy", "--scale=3", "--output", turned)
    found = commands.run("calibrate", "--workdir", workdir, *empty, check=True)
    assert "the mean of 2 frames" in found.stdout and "with flip none, and objects" in found.stdout
    light = [json.loads(path.read_text())["counts_per_unit"] for path in (known, turned)]
    assert light[1] == pytest.approx(light[0], rel=0.1)  # without dark and flat
    whole = (*common, "--input", folder / "frames" / "*.tif", "--calibration", known, "--output")
    truth = ("--truth", folder / "truth.npy", "--batch=2")
    commands.run("reconstruct", *whole, tmp_path / "out", *truth, check=True)
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["frames"]) == 3
    calibration = json.loads(known.read_text())
    known.write_text(json.dumps(calibration | {"checkpoint": "another", "masks": "others"}))
    other = commands.call("reconstruct", *whole, tmp_path / "other", "--limit=9", "--stack")
    assert other.returncode == 0 and "another checkpoint" in other.stderr
    known.write_text(json.dumps(calibration | {"sensor": [32, 32]}))
    assert "32 x 32" in commands.refusal("reconstruct", *whole, tmp_path / "larger")
    assert "--resume" in commands.refusal("reconstruct", *whole, tmp_path / "out")
    known.write_text(json.dumps(calibration))
    again = ("--resume", "--limit=9")
    assert "limit" in commands.refusal("reconstruct", *whole, tmp_path / "out", *again)
