"""Camera frames to objects as files: stacks, orders, resumed calls, and what is refused."""

import shutil

import commands
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from benches import faulty_bench, rebuild, true_setup, turned_bench
from helpers import rejection, same
from PIL import Image
from skimage.metrics import structural_similarity

from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.correction import References, check_exposure
from jax_kdpr.lab.frames.geometry import (
    Geometry,
    make_window,
    pixel_envelope,
    sensor_points,
    to_sensor,
)
from jax_kdpr.lab.frames.measured import (
    group_frames,
    in_model_units,
    measure_frames,
    noise_sigma,
    simulate,
    snapshot_energy,
)
from jax_kdpr.lab.frames.orientation import TURNS, turned, turned_geometry
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.reading import list_frames, read_moments
from jax_kdpr.lab.frames.reconstruction import frame_warning
from jax_kdpr.lab.frames.recovery import make_recover, misfit_limit
from jax_kdpr.lab.frames.simulated_bench import make_bench, write_bench
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.runs.run import load_run

OBJECTS = 3
FEW = "object_*.tif"


@pytest.fixture(scope="module")
def run(recorded):
    """A single shot, hardly trained."""
    return load_run(recorded / "e2e").on_one_device()


@pytest.fixture(scope="module")
def bench(run, tmp_path_factory):
    return faulty_bench(run, tmp_path_factory.mktemp("bench"), OBJECTS)


@pytest.fixture(scope="module")
def setup(run, bench):
    return true_setup(run, bench)


@pytest.fixture(scope="module")
def build(run, setup):
    """build(pattern of frames, output, **options) -> results.json as it is written."""
    recover = make_recover(run)
    return lambda frames, output, **options: rebuild(run, recover, frames, setup, output, **options)


@pytest.fixture(scope="module")
def one_by_one(build, bench, tmp_path_factory):
    """The frames of the bench in batches of 2, and the folder with their files."""
    folder = tmp_path_factory.mktemp("one")
    return build(bench / "frames" / FEW, folder, batch_size=2, stack=False)["frames"], folder


@pytest.mark.parametrize("stack", [False, True])
def test_objects_are_scored_and_batch_and_stack_change_nothing(
    stack, build, one_by_one, run, bench, tmp_path
):
    truth = own_images(run, bench / "truth.npy", flag="--truth")
    frames = bench / "frames" / FEW
    rows = build(frames, tmp_path, truth=truth, stack=stack, batch_size=4)["frames"]
    found = [np.load(tmp_path / f"{row['name']}.npy") for row in rows if not stack]
    found = np.load(tmp_path / "phase.npy") if stack else np.stack(found)
    if stack:
        assert same(tifffile.imread(tmp_path / "phase.tif"), found)
    assert not list(tmp_path.rglob("*.tmp"))
    for row, other, phase, given in zip(rows, one_by_one[0], found, truth, strict=True):
        assert row["name"] == other["name"]
        single = np.load(one_by_one[1] / f"{row['name']}.npy")
        np.testing.assert_allclose(single, phase, atol=1e-4)
        true = np.pi * np.asarray(given)[..., 0]
        mse = np.mean((phase - true) ** 2)
        assert row["psnr"] == pytest.approx(10 * np.log10(np.pi**2 / mse), abs=1e-2)
        inside = true >= true.min() + 0.1 * (true.max() - true.min())
        error = phase - true - np.mean(phase - true)
        assert row["rms"] == pytest.approx(np.sqrt(np.mean(error[inside] ** 2)), rel=1e-3)
        alike = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        reference = structural_similarity(true / np.pi, phase / np.pi, data_range=1.0, **alike)
        assert row["ssim"] == pytest.approx(reference, abs=1e-2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 200 and np.asarray(sheet.convert("L")).std() > 20


def test_nothing_is_green_where_the_pattern_may_lie_elsewhere(build, bench, tmp_path):
    frames, green = bench / "frames" / FEW, {}
    for placed in (True, False):
        folder = tmp_path / str(placed)
        rows = build(frames, folder, placed=placed)["frames"]
        assert not any(row["warning"] for row in rows)
        with Image.open(folder / "sheet.png") as sheet:
            colours = np.asarray(sheet.convert("RGB"))
        green[placed] = np.all(colours == (44, 160, 44), axis=-1).sum()
    assert green[True] > 100 > 0 == green[False]


def test_rows_stand_in_the_order_of_the_stack(build, bench, tmp_path):
    sources = sorted((bench / "frames").glob("*.tif"))
    for name, source in zip(("img", "img-1", "img (2)"), sources, strict=True):
        shutil.copy(source, tmp_path / f"{name}.tif")
    found = build(tmp_path / "*.tif", tmp_path / "many")["frames"]
    stack = np.load(tmp_path / "many" / "phase.npy")
    build(tmp_path / "*.tif", tmp_path / "one", stack=False)
    for row, phase in zip(found, stack, strict=True):
        single = np.load(tmp_path / "one" / f"{row['name']}.npy")
        np.testing.assert_allclose(single, phase, atol=1e-4)
    rows = (found[1],)
    resumed = build(tmp_path / "*.tif", tmp_path / "one", rows=rows, stack=False)
    assert [row["name"] for row in resumed["frames"]] == [row["name"] for row in found]


def test_interrupted_and_resumed_is_the_whole(build, one_by_one, bench, tmp_path, monkeypatch):
    frames, options = bench / "frames" / FEW, {"settings": {"gain": "auto"}, "stack": False}
    written = results.write_recovery
    calls = []

    def stop(folder, recovery, **options):
        calls.append(recovery.name)
        if len(calls) > 2:
            raise KeyboardInterrupt
        written(folder, recovery, **options)

    monkeypatch.setattr(results, "write_recovery", stop)
    with pytest.raises(KeyboardInterrupt):
        build(frames, tmp_path, **options, batch_size=2)
    rows = results.read_results(tmp_path, options["settings"])
    assert len(rows) == 2
    monkeypatch.setattr(results, "write_recovery", written)
    resumed = build(frames, tmp_path, **options, rows=tuple(rows))
    assert [row["name"] for row in resumed["frames"]] == [row["name"] for row in one_by_one[0]]
    assert "gain" in rejection(results.read_results, tmp_path, {"gain": 2.0})


def test_frames_of_several_snapshots_come_in_groups(recorded, tmp_path):
    run = load_run(recorded / "teacher").on_one_device()
    scenes = run.scenes(2)
    camera = make_bench(run, scale=3.0)._replace(hot=0.0, dead=0.0, offset=0.0)
    write_bench(tmp_path, run, scenes, camera, seed=0)
    frames = list_frames(str(tmp_path / "frames" / "*.tif"))
    assert "multiple of 3" in rejection(group_frames, frames[:5], 3)
    groups, setup = group_frames(frames, 3), true_setup(run, tmp_path)
    for one, image in zip(measure_frames(groups, setup, run), scenes, strict=True):
        ideal = simulate(run, image)
        assert np.linalg.norm(one.intensity - ideal) < 0.15 * np.linalg.norm(ideal)
    np.testing.assert_allclose(snapshot_energy(run), 16 * 16, rtol=1e-4)
    for gain, light in ((1e-300, "e+"), (1e300, "e-")):
        cdps = measure_frames(groups, setup._replace(counts_per_unit=gain), run)
        assert light in rejection(next, cdps)


def test_saturation_is_judged_where_the_pattern_lies(build, run, setup, tmp_path):
    """On a large chip too, whose pedestal has drifted below the dark's."""
    camera = turned_bench(run, saturated=0.1, hot=0.0)
    write_bench(tmp_path, run, run.scenes(1), camera, seed=0)
    found = build(tmp_path / "frames" / "*.tif", tmp_path / "out")
    assert "saturated" in found["frames"][0]["warning"]
    chip = np.full((400, 500), 63, np.uint16)
    chip[100:166, 200:266] = tifffile.imread(tmp_path / "frames" / "object_00000_00.tif")
    tifffile.imwrite(tmp_path / "chip.tif", chip)
    y, x = setup.geometry.centre_y + 100, setup.geometry.centre_x + 200
    geometry = setup.geometry._replace(centre_y=y, centre_x=x)
    window = make_window(chip.shape, None, 1)
    references = References(chip.shape, np.full(chip.shape, 64.0))
    moved = setup._replace(references=references, window=window, geometry=geometry)
    (group,) = group_frames(list_frames(str(tmp_path / "chip.tif")), 1)
    assert next(measure_frames([group], moved, run)).saturation > 0.02


def test_frames_without_a_pattern_are_refused():
    assert "dark" in rejection(check_exposure, np.zeros((4, 4), np.uint16), "a")
    assert "saturated" in rejection(check_exposure, np.full((4, 4), 4095, np.uint16), "a")
    dim = np.ones((2, 4, 4)) - [[[0.0]], [[2.0]]]
    assert "--dark" in rejection(in_model_units, dim, np.ones(2), 1.0, name="a")


def test_the_limit_of_many_is_between_their_median_and_the_limit_of_one():
    misfits = list(np.random.default_rng(0).normal(0.2, 0.02, 400))
    told_apart = misfits, [0.5] * 400
    one, many = misfit_limit(told_apart), misfit_limit(told_apart, 1000)
    assert one == pytest.approx(1.2 * np.percentile(misfits, 99))
    assert 1.2 * np.median(misfits) < many < 1.2 * (np.median(misfits) + 0.01)
    assert misfit_limit((misfits, [0.21] * 400)) == pytest.approx(0.21)


def test_read_noise_is_that_of_the_dark_in_model_units(run, setup, bench):
    spread = read_moments(str(bench / "dark.tif")).spread
    assert spread == pytest.approx(np.sqrt(1 + 1 / 12), rel=0.15)  # one count, rounded
    unit = setup._replace(counts_per_unit=10.0, geometry=setup.geometry._replace(scale=3.0))
    unit = unit._replace(references=setup.references._replace(spread=2.0))
    sigma = noise_sigma(unit, run, [])
    edge = np.sinc(0.5) ** 2  # of square pixels, as of `pixel_side` 1
    expected = 1.215 * 1.8 / edge ** np.arange(3)
    np.testing.assert_allclose([sigma[0, 0], sigma[8, 0], sigma[8, 8]], expected)
    area = noise_sigma(unit._replace(sampling="area"), run, [])
    np.testing.assert_allclose(area, sigma / 3 / 1.215)


def test_turned_patterns_are_those_of_turned_fields():
    x = np.random.default_rng(0).normal(size=(6, 6)) + 1j
    y, conjugate = (np.abs(np.fft.fft2(field)) ** 2 for field in (x, np.conj(x)))

    def turn(pattern, axis, name):
        return np.asarray(turned(jnp.asarray(pattern)[None, None], axis, TURNS[name])[0, 0])

    np.testing.assert_allclose(turn(y, (0, 0), "turned by 180 degrees"), conjugate, rtol=1e-4)
    for name in TURNS:  # about the middle where the axis is there
        expected = np.fft.fftshift(turn(y, (0, 0), name))
        np.testing.assert_allclose(turn(np.fft.fftshift(y), (3, 3), name), expected)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_geometry_is_that_of_the_turned_frame(turn):
    frame = np.random.default_rng(0).uniform(size=(40, 52))
    geometry = Geometry(18.3, 27.1, 5.0, 2.1, "horizontal", True)
    transpose, rows, columns = TURNS[turn]
    lying = (frame.T if transpose else frame)[:: -1 if rows else 1, :: -1 if columns else 1]
    found = turned_geometry(geometry, lying.shape, TURNS[turn])
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
    points = np.fft.fftshift(np.abs(np.fft.fft2(x, norm="ortho")) ** 2)
    envelope = pixel_envelope(sensor_points((8, 8)), 1 / 8, 1.0)
    np.testing.assert_allclose(pattern[60:68, 60:68], points * envelope, rtol=0.01)
    np.testing.assert_allclose(pixel_envelope(sensor_points((8, 8)), 1 / 8, 0.0), 1.0)


FRAMES = "--input={bench}/frames/*.tif"
EMPTY = ("--input={bench}/calibration/*.tif", "--scale=3")
REFUSED = [
    ("reconstruct", ("--input=none/*.tif",), "--input"),
    ("reconstruct", (FRAMES, "--dark={bench}/bad_pixels.tif"), "--dark"),
    ("reconstruct", (FRAMES, "--gain=many"), "--gain"),
    ("reconstruct", (FRAMES, "--centre=1"), "--centre"),
    ("reconstruct", (FRAMES, "--centre=1,1"), "reach"),
    ("reconstruct", (FRAMES, "--output={file}/out", "--scale=3"), "--output"),
    ("reconstruct", (FRAMES, "--output={bench}/frames"), "--output"),
    ("reconstruct", (FRAMES, "--dark={bench}/dark.tif", "--output={bench}"), "--output"),
    ("reconstruct", (FRAMES, "--limit=1", "--data_dir=elsewhere"), "--data_dir"),
    ("simulate_bench", ("--output={file}",), "--output"),
    ("simulate_bench", ("--output={file}/new",), "--output"),
    ("simulate_bench", ("--output={out}", "--shift_y=1000"), "shift"),
    ("simulate_bench", ("--output={out}", "--rotation=nan"), "--rotation"),
    ("simulate_bench", ("--output={out}", "--bench={noisy}"), "camera.full_well"),
    ("calibrate", (*EMPTY, "--output={file}/c.json"), "--output"),
    ("calibrate", (*EMPTY, "--output={bench}"), "--output"),
]


@pytest.mark.parametrize(("command", "arguments", "word"), REFUSED)
def test_bad_input_is_one_line_and_nothing_written(
    recorded, bench, tmp_path, command, arguments, word
):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "noisy").write_text("[camera]\nread_noise = 2.0\n")
    places = {name: tmp_path / name for name in ("file", "out", "noisy")} | {"bench": bench}
    filled = [argument.format(**places) for argument in arguments]
    before = sorted([*bench.rglob("*"), *tmp_path.rglob("*")])
    common = ("--workdir", recorded / "e2e", "--output", tmp_path / "out")
    assert word in commands.refusal(command, *common, *filled)
    assert sorted([*bench.rglob("*"), *tmp_path.rglob("*")]) == before


@pytest.mark.parametrize(
    ("scene", "right", "wrong"),
    [
        ({"kind": "phase"}, (0.9, 1.1), (0.7, 1.3)),
        ({"kind": "complex", "min_amplitude": 0.6}, (0.36, 1.0), (0.06, 1.96)),
        ({"kind": "amplitude"}, (0.01, 1.0), (1.3,)),
    ],
)
def test_light_that_no_object_lets_through_is_told(scene, right, wrong):
    row = {"misfit": 0.0, "saturation": 0.0}
    for energies, is_told in ((right, False), (wrong, True)):
        for energy in energies:
            camera = Camera(16, scene=SceneOptions(**scene))
            said = frame_warning(row | {"energy": energy}, 0.1, camera)
            assert bool(said) == is_told, (energy, said)
