"""The whole way from camera frames to objects, on a bench that is known."""

import json
import shutil

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from helpers import image_config, rejection, same
from oracles import intensity, psnr
from PIL import Image
from skimage.metrics import structural_similarity

from jax_kdpr.data.batches import take_batch
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.bench_folder import make_bench, write_bench
from jax_kdpr.lab.frames.calibration import (
    Calibration,
    calibrate,
    read_calibration,
    write_calibration,
)
from jax_kdpr.lab.frames.correction import check_exposure, check_light, make_correction
from jax_kdpr.lab.frames.geometry import (
    Geometry,
    default_geometry,
    grid_window,
    make_window,
    pixel_envelope,
    sensor_points,
    to_sensor,
)
from jax_kdpr.lab.frames.loaded import (
    blank_image,
    own_images,
    pixel_side,
    simulate,
    snapshot_energy,
)
from jax_kdpr.lab.frames.measured import Setup, group_frames, measure_frames, noise_sigma
from jax_kdpr.lab.frames.orientation import TURNS, orientation_warning, turned, turned_geometry
from jax_kdpr.lab.frames.reading import list_frames, read_mean, read_moments
from jax_kdpr.lab.frames.reconstruction import reconstruct
from jax_kdpr.lab.frames.recovery import Simulated, make_recover, misfit_limit, simulated_misfits
from jax_kdpr.lab.frames.sheet import write_sheet
from jax_kdpr.runs.run import load_run
from jax_kdpr.training import loop

OBJECTS = 12
BATCH = 8


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A single shot through its own mask, trained far enough that its objects explain the CDPs."""
    folder = tmp_path_factory.mktemp("objects")
    for number, image in enumerate(np.asarray(draw_scenes(jax.random.key(0), count=240, size=16))):
        Image.fromarray((255 * image).astype(np.uint8)).save(folder / f"{number:03d}.png")
    config = image_config(folder, masks__snapshots=1)
    config.train.epochs = 30
    run = tmp_path_factory.mktemp("single") / "run"
    loop.train(config, run)
    return run


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir).on_one_device()


@pytest.fixture(scope="module")
def images(run):
    return take_batch(run.dataset.test, jnp.arange(OBJECTS), size=16, channels=1)


@pytest.fixture(scope="module")
def recover(run):
    return make_recover(run)


@pytest.fixture(scope="module")
def simulated(run, recover):
    return simulated_misfits(
        run,
        recover,
        run.dataset.validation,
        noise_sigma=np.zeros(run.sensor),
        batch_size=BATCH,
        key=jax.random.key(0),
    )


@pytest.fixture(scope="module")
def bench(run, images, tmp_path_factory):
    """Turned, moved and magnified, with every fault of a sensor."""
    folder = tmp_path_factory.mktemp("bench")
    bench = make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))
    write_bench(folder, run, images, bench._replace(photons=1e6), seed=0)
    return folder


@pytest.fixture(scope="module")
def setup(run, bench):
    """Found from the frames of the empty beam, not taken from the truth."""
    frames = list_frames(str(bench / "calibration" / "*.tif"))
    correction = make_correction(
        (66, 66),
        dark=read_mean(str(bench / "dark.tif")),
        flat=read_mean(str(bench / "flat.tif")),
        bad=read_mean(str(bench / "bad_pixels.tif")),
    )
    window = make_window((66, 66), None, 1)
    guess = default_geometry(window, run.sensor, 3.0)
    setup = Setup(correction, window, guess, "points", pixel_side(run), None)
    found = calibrate(frames, setup, run, blank_image(run), rotation_range=5.0, scale_range=0.1)
    truth = json.loads((bench / "truth.json").read_text())
    assert found.trusted
    assert found.counts_per_unit == pytest.approx(truth["counts_per_unit"], rel=0.05)
    return setup._replace(geometry=found.geometry)


def test_a_pattern_that_is_cut_off_is_refused(run, bench, setup):
    """Well recognised by what is left of it, but `reconstruct` could not use it."""
    window = make_window((66, 66), (0, 0, 54, 66), 1)
    correction = make_correction((66, 66), dark=np.full((66, 66), 64.0), window=window)
    frames = list_frames(str(bench / "calibration" / "*.tif"))
    message = rejection(
        calibrate,
        frames,
        Setup(correction, window, setup.geometry, "points", pixel_side(run), None),
        run,
        blank_image(run),
        rotation_range=1.0,
        scale_range=0.02,
    )
    assert "reach" in message and "--crop" in message


@pytest.fixture(scope="module")
def rebuild(run, recover, simulated):
    def rebuild(pattern, setup, output, **options):
        options = {"batch_size": BATCH, "settings": {}, **options}
        return reconstruct(
            group_frames(list_frames(str(pattern)), run.snapshots),
            setup,
            run,
            recover,
            output,
            limit=lambda count: misfit_limit(simulated, count),
            **options,
        )

    return rebuild


def test_the_bench_costs_less_than_half_a_decibel(rebuild, run, recover, bench, setup, tmp_path):
    found = rebuild(bench / "frames" / "*.tif", setup, tmp_path)
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
    first = found["frames"][0]
    assert same(tifffile.imread(tmp_path / f"{first['name']}.tif"), np.float32(np.pi) * ours[0])
    with Image.open(tmp_path / f"{first['name']}.png") as preview:
        assert len(np.unique(np.asarray(preview.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    arrays = np.load(tmp_path / f"{first['name']}.npz")
    assert arrays["intensity"].sum() == pytest.approx(16 * 16, rel=1e-4)
    assert np.linalg.norm(arrays["intensity"] - ideal[0]) < 0.15 * np.linalg.norm(ideal[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"transpose": True},
        {"flip": "vertical"},
        {"flip": "horizontal"},
        {"scale": 2.4},
        {"centre_x": 36.0},
    ],
)
def test_a_wrong_geometry_is_noticed(rebuild, bench, setup, tmp_path, wrong):
    geometry = setup.geometry._replace(**wrong)
    found = rebuild(bench / "frames" / "*.tif", setup._replace(geometry=geometry), tmp_path)
    assert any("median misfit" in line for line in found["warnings"])
    assert sum("misfit" in row["warning"] for row in found["frames"]) > OBJECTS / 2


def test_left_justified_frames_are_noticed(rebuild, run, images, setup, tmp_path):
    camera = make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))
    write_bench(tmp_path, run, images[:2], camera._replace(left_justified=True), seed=0)
    # Dark and flat of the other bench are right-justified: the black level stays in.
    found = rebuild(tmp_path / "frames" / "*.tif", setup, tmp_path / "out")
    assert any("left-justified" in line for line in found["warnings"])
    given = setup._replace(counts_per_unit=4000.0)
    found = rebuild(tmp_path / "frames" / "*.tif", given, tmp_path / "given")
    assert all("bit depth" in row["warning"] for row in found["frames"])


def test_saturation_is_noticed(rebuild, run, images, setup, tmp_path):
    camera = make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))
    write_bench(tmp_path, run, images[:2], camera._replace(saturated=0.1), seed=0)
    found = rebuild(tmp_path / "frames" / "*.tif", setup, tmp_path / "out")
    assert any("saturated" in row["warning"] for row in found["frames"])


def test_the_limit_of_many_is_between_their_median_and_the_limit_of_one():
    misfits = list(np.random.default_rng(0).normal(0.2, 0.02, 400))
    told_apart = Simulated(misfits, [0.5] * 400)
    one, many = misfit_limit(told_apart), misfit_limit(told_apart, 1000)
    assert one == pytest.approx(1.2 * np.percentile(misfits, 99))
    assert 1.2 * np.median(misfits) < many < 1.2 * (np.median(misfits) + 0.01)
    assert misfit_limit(Simulated(misfits, [0.21] * 400)) == pytest.approx(0.21)


def test_read_noise_is_that_of_the_dark_in_model_units(run, setup, bench):
    spread = read_moments(str(bench / "dark.tif")).spread
    assert spread == pytest.approx(np.sqrt(1 + 1 / 12), rel=0.15)  # one count, rounded
    unit = setup._replace(counts_per_unit=10.0, geometry=setup.geometry._replace(scale=3.0))
    sigma = noise_sigma(2.0, unit, run, [])
    edge = np.sinc(0.5) ** 2  # of square pixels, as of `pixel_side` 1
    expected = 1.215 * 1.8 / edge ** np.arange(3)
    np.testing.assert_allclose([sigma[0, 0], sigma[8, 0], sigma[8, 8]], expected)
    area = noise_sigma(2.0, unit._replace(sampling="area"), run, [])
    np.testing.assert_allclose(area, sigma / 3 / 1.215)


def test_turned_patterns_are_those_of_turned_fields():
    x = np.random.default_rng(0).normal(size=(6, 6)) + 1j
    y, conjugate = (np.abs(np.fft.fft2(field)) ** 2 for field in (x, np.conj(x)))

    def turn(pattern, axis, name):
        return np.asarray(turned(jnp.asarray(pattern)[None, None], axis, *TURNS[name])[0, 0])

    np.testing.assert_allclose(turn(y, (0, 0), "turned by 180 degrees"), conjugate, rtol=1e-4)
    for name in TURNS:  # about the middle where the axis is there
        expected = np.fft.fftshift(turn(y, (0, 0), name))
        np.testing.assert_allclose(turn(np.fft.fftshift(y), (3, 3), name), expected)


BACK = {name: name for name in TURNS}
BACK |= {"turned by 90 degrees": "turned by 270 degrees"}
BACK |= {"turned by 270 degrees": "turned by 90 degrees"}


@pytest.fixture(scope="module")
def said(run, recover, simulated):
    """said(pattern of frames, setup) -> the warning about their orientation."""

    def said(pattern, setup):
        return orientation_warning(
            group_frames(list_frames(str(pattern)), 1),
            setup,
            run,
            recover,
            batch_size=BATCH,
            shape=(66, 66),
            make_setup=lambda geometry: setup._replace(geometry=geometry),
            limit=lambda count: misfit_limit(simulated, count),
        )

    return said


@pytest.mark.parametrize("wrong", TURNS)
def test_frames_that_were_turned_are_told_how(said, bench, setup, tmp_path, wrong):
    """Their pattern is off the middle, and rotated: both change with the frame."""
    transpose, rows, columns = TURNS[wrong]
    for path in sorted((bench / "frames").glob("*.tif"))[:BATCH]:
        frame = tifffile.imread(path)
        frame = frame.T if transpose else frame
        lying = frame[:: -1 if rows else 1, :: -1 if columns else 1]
        tifffile.imwrite(tmp_path / path.name, np.ascontiguousarray(lying))
    correction = make_correction((66, 66), dark=np.full((66, 66), 64.0))
    text = said(tmp_path / "*.tif", setup._replace(correction=correction))
    assert f"frames fit far better {wrong}:" in text


@pytest.mark.parametrize("wrong", ["flipped vertically", "transposed", "turned by 180 degrees"])
def test_patterns_that_lie_wrongly_are_told_how(said, bench, setup, wrong):
    """About their own centre: the mask was shown so."""
    assert said(bench / "frames" / "*.tif", setup) == ""
    transpose, rows, columns = TURNS[wrong]
    flip = {(False, False): "none", (True, False): "vertical", (True, True): "both"}[rows, columns]
    geometry = setup.geometry._replace(flip=flip, transpose=transpose)
    text = said(bench / "frames" / "*.tif", setup._replace(geometry=geometry))
    assert f"patterns fit far better {BACK[wrong]}:" in text


def test_noise_is_not_trusted_as_a_single_frame(rebuild, setup, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(20):
        noise = rng.integers(60, 1000, (66, 66)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", noise)
    found = rebuild(tmp_path / "*.tif", setup, tmp_path / "out")
    assert all("misfit" in row["warning"] for row in found["frames"])


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_geometry_is_that_of_the_turned_frame(turn):
    frame = np.random.default_rng(0).uniform(size=(40, 52))
    geometry = Geometry(18.3, 27.1, 5.0, 2.1, "horizontal", True)
    transpose, rows, columns = TURNS[turn]
    lying = (frame.T if transpose else frame)[:: -1 if rows else 1, :: -1 if columns else 1]
    found = turned_geometry(geometry, lying.shape, *TURNS[turn])
    seen = [
        to_sensor(light, where, (8, 6), sampling="points", axis=(0, 0))
        for light, where in ((frame, geometry), (np.ascontiguousarray(lying), found))
    ]
    np.testing.assert_allclose(*seen, atol=1e-9)


def test_the_envelope_of_square_mask_pixels_is_that_of_their_transform():
    """Each mask pixel drawn with many points: the far field ends where the model's repeats."""
    fine, x = 16, np.exp(2j * np.pi * np.random.default_rng(0).uniform(size=(8, 8)))
    drawn = np.kron(x, np.ones((fine, fine))) / fine**2
    pattern = np.fft.fftshift(np.abs(np.fft.fft2(drawn, norm="ortho")) ** 2) * fine**2
    middle = pattern[60:68, 60:68]
    points = np.fft.fftshift(np.abs(np.fft.fft2(x, norm="ortho")) ** 2)
    envelope = pixel_envelope(sensor_points((8, 8)), (8, 8), 1.0)
    np.testing.assert_allclose(middle, points * envelope, rtol=0.01)
    np.testing.assert_allclose(pixel_envelope(sensor_points((8, 8)), (8, 8), 0.0), 1.0)


def test_batch_and_stack_change_nothing(rebuild, bench, setup, tmp_path):
    frames = bench / "frames" / "object_0000*.tif"
    one = rebuild(frames, setup, tmp_path / "one", batch_size=3)["frames"]
    rebuild(frames, setup, tmp_path / "many", stack=True)
    stack = np.load(tmp_path / "many" / "phase.npy")
    assert same(tifffile.imread(tmp_path / "many" / "phase.tif"), stack)
    for row, phase in zip(one, stack, strict=True):
        single = np.load(tmp_path / "one" / f"{row['name']}.npy")
        np.testing.assert_allclose(single, phase, atol=1e-4)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("stack", [False, True])
def test_truth_scores_each_object_and_the_sheet_shows_all(
    stack, rebuild, run, bench, setup, tmp_path
):
    frames = bench / "frames" / "object_0000*.tif"
    truth = own_images(run, bench / "truth.npy", flag="--truth")
    rows = rebuild(frames, setup, tmp_path, truth=truth, stack=stack)["frames"]
    for number, row in enumerate(rows):
        path = tmp_path / ("phase.npy" if stack else f"{row['name']}.npy")
        phase = np.load(path)[number] if stack else np.load(path)
        true = np.pi * np.load(bench / "truth.npy")[number, ..., 0]
        mse = np.mean((phase - true) ** 2)
        assert row["psnr"] == pytest.approx(10 * np.log10(np.pi**2 / mse), abs=1e-2)
        inside = true >= true.min() + 0.1 * (true.max() - true.min())
        error = phase - true - np.mean(phase - true)
        assert row["rms"] == pytest.approx(np.sqrt(np.mean(error[inside] ** 2)), rel=1e-3)
        reference = structural_similarity(
            true / np.pi,
            phase / np.pi,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert row["ssim"] == pytest.approx(reference, abs=1e-2)
    write_sheet(tmp_path, rows, scene=run.camera.scene, pitch=8e-6, stack=stack)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 200 and np.asarray(sheet.convert("L")).std() > 20


def test_rows_stand_in_the_order_of_the_stack(rebuild, bench, setup, tmp_path):
    sources = sorted((bench / "frames").glob("*.tif"))
    for name, source in zip(("img", "img-1", "img (2)"), sources, strict=False):
        shutil.copy(source, tmp_path / f"{name}.tif")
    found = rebuild(tmp_path / "*.tif", setup, tmp_path / "many", stack=True)["frames"]
    stack = np.load(tmp_path / "many" / "phase.npy")
    rebuild(tmp_path / "*.tif", setup, tmp_path / "one")
    for row, phase in zip(found, stack, strict=True):
        single = np.load(tmp_path / "one" / f"{row['name']}.npy")
        np.testing.assert_allclose(single, phase, atol=1e-4)
    rows = tuple(row for row in found if row["name"] == found[1]["name"])
    resumed = rebuild(tmp_path / "*.tif", setup, tmp_path / "one", rows=rows)
    assert [row["name"] for row in resumed["frames"]] == [row["name"] for row in found]


def test_interrupted_and_resumed_is_the_whole(rebuild, bench, setup, tmp_path, monkeypatch):
    frames, settings = bench / "frames" / "object_0000*.tif", {"gain": "auto"}
    whole = rebuild(frames, setup, tmp_path / "whole", settings=settings)
    written = results.write_recovery
    calls = []

    def stop(folder, recovery, **options):
        calls.append(recovery.name)
        if len(calls) > 4:
            raise KeyboardInterrupt
        written(folder, recovery, **options)

    monkeypatch.setattr(results, "write_recovery", stop)
    with pytest.raises(KeyboardInterrupt):
        rebuild(frames, setup, tmp_path / "part", settings=settings, batch_size=4)
    rows = results.read_results(tmp_path / "part", settings)
    assert len(rows) == 4
    monkeypatch.setattr(results, "write_recovery", written)
    resumed = rebuild(frames, setup, tmp_path / "part", settings=settings, rows=tuple(rows))
    assert [row["name"] for row in resumed["frames"]] == [r["name"] for r in whole["frames"]]
    assert "gain" in rejection(results.read_results, tmp_path / "part", {"gain": 2.0})


def test_frames_of_several_snapshots_come_in_groups(teacher, tmp_path):
    run = load_run(teacher).on_one_device()
    scenes = take_batch(run.dataset.test, jnp.arange(2), size=16, channels=1)
    camera = make_bench(run, scale=3.0)._replace(hot=0.0, dead=0.0, offset=0.0)
    write_bench(tmp_path, run, scenes, camera, seed=0)
    frames = list_frames(str(tmp_path / "frames" / "*.tif"))
    assert "multiple of 3" in rejection(group_frames, frames[:5], 3)
    flat = read_mean(str(tmp_path / "flat.tif"))
    correction = make_correction(camera.shape, flat=flat)
    window = make_window(camera.shape, None, 1)
    setup = Setup(correction, window, camera.geometry, "points", pixel_side(run), None)
    for one, image in zip(measure_frames(group_frames(frames, 3), setup, run), scenes, strict=True):
        ideal = simulate(run, image)
        assert np.linalg.norm(one.intensity - ideal) < 0.15 * np.linalg.norm(ideal)
    np.testing.assert_allclose(snapshot_energy(run), 16 * 16, rtol=1e-4)
    for gain, light in ((1e-300, "e+"), (1e300, "e-")):
        cdps = measure_frames(group_frames(frames, 3), setup._replace(counts_per_unit=gain), run)
        said = rejection(next, cdps)
        assert light in said and "times the light of a scene of modulus 1" in said


def test_frames_without_a_pattern_are_refused():
    light = np.ones((4, 4))
    assert "dark" in rejection(check_exposure, np.zeros((4, 4), np.uint16), "a")
    assert "saturated" in rejection(check_exposure, np.full((4, 4), 4095, np.uint16), "a")
    assert "--dark" in rejection(check_light, -light, "a")


def on_a_large_chip(frame):
    """The same frame in the middle of a chip whose pedestal has drifted below the dark's."""
    chip = np.full((400, 500), 63, np.uint16)
    chip[100:166, 200:266] = frame
    return chip


def test_a_small_pattern_on_a_large_chip_is_judged_alone(run, setup, images, tmp_path):
    camera = make_bench(run, scale=3.1, rotation=2.0, shift=(2.3, -1.6))
    write_bench(tmp_path, run, images[:1], camera._replace(saturated=0.1, hot=0.0), seed=0)
    raw = on_a_large_chip(tifffile.imread(tmp_path / "frames" / "object_00000_00.tif"))
    tifffile.imwrite(tmp_path / "chip.tif", raw)
    geometry = setup.geometry._replace(
        centre_y=setup.geometry.centre_y + 100, centre_x=setup.geometry.centre_x + 200
    )
    whole = make_window(raw.shape, None, 1)
    window = grid_window(whole, geometry, run.sensor)
    correction = make_correction(raw.shape, dark=np.full(raw.shape, 64.0), window=window)
    groups = group_frames(list_frames(str(tmp_path / "chip.tif")), 1)
    one = next(
        measure_frames(
            groups, Setup(correction, window, geometry, "points", pixel_side(run), None), run
        )
    )
    assert one.saturation > 0.02
    everything = make_correction(raw.shape, dark=np.full(raw.shape, 64.0))
    blind = next(
        measure_frames(
            groups, Setup(everything, whole, geometry, "points", pixel_side(run), None), run
        )
    )
    assert blind.saturation < 0.005
    np.testing.assert_allclose(one.intensity, blind.intensity, atol=1e-4)


@pytest.mark.slow
def test_the_three_commands(workdir, tmp_path):
    own = np.abs(np.asarray(draw_scenes(jax.random.key(1), count=4, size=20), np.float32))
    np.save(tmp_path / "own.npy", own[..., None])
    camera = "bits = 12\noffset = 0\nfull_well = 1e4\nread_noise = 0\ndark = 5.0"
    (tmp_path / "bench.toml").write_text(f"photons = 1e6\n[camera]\n{camera}\n")
    made = commands.run(
        *("simulate_bench", "--workdir", workdir, "--output", tmp_path / "b", "--frames=3"),
        *("--images", tmp_path / "own.npy", "--bench", tmp_path / "bench.toml"),
    )
    assert made.returncode == 0, made.stderr
    assert "--images: the first 3 of 4 objects" in made.stdout
    folder = tmp_path / "b"
    record = json.loads((folder / "truth.json").read_text())
    expected = {"offset": 0.0, "read_noise": 0.0, "dark": 5.0, "full_well": 1e4, "photons": 1e6}
    assert {name: record[name] for name in expected} == expected
    assert record["counts_per_electron"] == pytest.approx(4095 / 1e4)
    for number, seen in enumerate(np.load(folder / "truth.npy")):
        shrunk = Image.fromarray(own[number]).resize((16, 16), Image.Resampling.BILINEAR)
        assert same(seen[..., 0], np.asarray(shrunk).clip(0, 1))
    references = [f"--{n}={folder / n}.tif" for n in ("dark", "flat", "bad_pixels")]
    common = ("--workdir", workdir, *references)
    found = commands.run(
        *("calibrate", *common, "--input", folder / "calibration" / "*.tif"),
        *("--scale=3", "--output", folder / "c.json"),
    )
    assert found.returncode == 0, found.stderr
    whole = (*common, "--input", folder / "frames" / "*.tif", "--calibration", folder / "c.json")
    truth = ("--truth", folder / "truth.npy")
    done = commands.run("reconstruct", *whole, *truth, "--output", tmp_path / "out", "--batch=2")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["frames"]) == 3
    calibration = json.loads((folder / "c.json").read_text())
    (folder / "c.json").write_text(json.dumps(calibration | {"checkpoint": "another"}))
    stack = ("--limit=9", "--stack")  # the quickest
    other = commands.run("reconstruct", *whole, *stack, "--output", tmp_path / "other")
    assert other.returncode == 0, other.stderr
    warnings = [line for line in other.stderr.splitlines() if line.startswith("warning: ")]
    assert "another checkpoint" in warnings[0]
    (folder / "c.json").write_text(json.dumps(calibration | {"sensor": [32, 32]}))
    larger = commands.run("reconstruct", *whole, "--output", tmp_path / "larger")
    assert larger.returncode == 2 and "16 x 16, got 32 x 32" in larger.stderr.splitlines()[-1]
    again = commands.run("reconstruct", *whole, "--output", tmp_path / "out")
    assert again.returncode == 2 and "--resume" in again.stderr.splitlines()[-1]
    (folder / "c.json").write_text(json.dumps(calibration))
    resumed = ("--resume", "--limit=9", "--output", tmp_path / "out")
    limited = commands.run("reconstruct", *whole, *resumed)
    assert limited.returncode == 2 and "other limit" in limited.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--input=none/*.tif",), "no file"),
        (("--input={bench}/frames/*.tif", "--dark={small}"), "--dark"),
        (("--input={small}",), "at least"),
        (("--input={bench}/frames/*.tif", "--dark={bench}/bad_pixels.tif"), "one bit depth"),
        (("--input={bench}/frames/*.tif", "--gain=many"), "--gain"),
        (("--input={bench}/frames/*.tif", "--centre=1"), "--centre"),
        (("--input={bench}/frames/*.tif", "--centre=1,1"), "reach"),
        (("--input={bench}/frames/*.tif", "--workdir={bench}"), "no run folder"),
        (("--input={bench}/frames/*.tif", "--output={small}/out", "--scale=3"), "--output"),
        (("--input={bench}/frames/*.tif", "--limit=nan"), "--limit"),
        (("--input={bench}/frames/*.tif", "--output={bench}/frames"), "raw frames"),
        (("--input={bench}/frames/*.tif", "--dark={bench}/dark.tif", "--output={bench}"), "raw"),
        (("--input={bench}/frames/*.tif", "--limit=1", "--data_dir=elsewhere"), "--data_dir"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(workdir, bench, tmp_path, arguments, word):
    np.save(tmp_path / "small.npy", np.arange(64).reshape(8, 8))
    filled = [a.format(bench=bench, small=tmp_path / "small.npy") for a in arguments]
    done = commands.run("reconstruct", "--workdir", workdir, "--output", tmp_path / "out", *filled)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert done.returncode == 2 and len(lines) == 1 and word in lines[0], done.stderr
    assert not (tmp_path / "out").exists()
    assert not list(bench.rglob("*.npz"))


@pytest.mark.parametrize(
    "change",
    [
        {"flip": "sideways"},
        {"rotation": "2"},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"transpose": "no"},
        {"counts_per_unit": None},
        {"counts_per_unit": -1.0},
        {"checkpoint": None},
        {"sensor": [16.5, 16]},
    ],
    ids=str,
)
def test_a_calibration_that_calibrate_cannot_have_written_is_refused(setup, tmp_path, change):
    found = Calibration(setup.geometry, 10.0, 0.9, 0.5, True, "digest", (16, 16))
    write_calibration(tmp_path / "c.json", found)
    assert read_calibration(tmp_path / "c.json") == found
    values = json.loads((tmp_path / "c.json").read_text())
    known = values["geometry"] if next(iter(change)) in values["geometry"] else values
    known |= change
    (tmp_path / "c.json").write_text(json.dumps(values))
    assert "is no calibration" in rejection(read_calibration, tmp_path / "c.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "word"),
    [
        ("simulate_bench", ("--output={file}",), "--output"),
        ("simulate_bench", ("--output={file}/new",), "--output"),
        ("simulate_bench", ("--output={out}", "--shift_y=1000"), "--shift_y"),
        ("simulate_bench", ("--output={out}", "--rotation=nan"), "--rotation"),
        ("simulate_bench", ("--output={out}", "--bits=8", "--left_justified"), "--left_justified"),
        ("simulate_bench", ("--output={out}", "--bench={noisy}"), "camera.full_well"),
        ("calibrate", ("--output={file}/c.json",), "--output"),
        ("calibrate", ("--output={bench}",), "--output"),
    ],
)
def test_a_rehearsal_that_cannot_work_is_refused(
    workdir, bench, tmp_path, command, arguments, word
):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "noisy").write_text("[camera]\nread_noise = 2.0\n")
    places = {name: tmp_path / name for name in ("file", "out", "noisy")} | {"bench": bench}
    filled = [argument.format(**places) for argument in arguments]
    if command == "calibrate":
        filled += [f"--input={bench}/calibration/*.tif", "--scale=3"]
    done = commands.run(command, "--workdir", workdir, *filled)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert done.returncode == 2 and len(lines) == 1 and word in lines[0], done.stderr
    assert not (tmp_path / "out").exists()
