"""Camera frames on their way to CDPs: files, corrections, geometry, registration."""

import tracemalloc

import h5py
import numpy as np
import pytest
import tifffile
from helpers import rejection, same
from oracles import forward, random_complex
from PIL import Image

from jax_kdpr.lab.frames.calibration import check_orientation
from jax_kdpr.lab.frames.correction import (
    References,
    correct,
    hot_pixels,
    make_correction,
    read_counts,
)
from jax_kdpr.lab.frames.geometry import (
    FLIPS,
    POINT_NOISE,
    SAMPLINGS,
    Geometry,
    check_geometry,
    default_geometry,
    grid_window,
    make_window,
    sampling_note,
    to_sensor,
    useful_bin,
)
from jax_kdpr.lab.frames.reading import iterate_frames, list_frames, read_moments
from jax_kdpr.lab.frames.registration import register
from jax_kdpr.lab.frames.simulated_bench import Bench, camera_light

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 4096, (3, 6, 8)).astype(np.uint16)
SIZE = 16
SENSOR = (SIZE, SIZE)
PHASES = RNG.uniform(0, 2 * np.pi, (1, SIZE, SIZE))
SPECTRA = forward(np.ones(SENSOR), PHASES)[0]
OTHERS = forward(random_complex(RNG, SENSOR), PHASES)[0]
PATTERN = np.fft.fftshift(np.abs(SPECTRA) ** 2)
POINTS = {"sampling": "points", "axis": (0, 0)}


def frames_of(pattern) -> list[np.ndarray]:
    return list(iterate_frames(list_frames(str(pattern))))


def error_of(seen, spectra) -> float:
    """Relative error of CDPs."""
    ideal = np.abs(spectra) ** 2
    return float(np.linalg.norm(seen - ideal) / np.linalg.norm(ideal))


def save_pngs(folder):
    for page, frame in enumerate(STACK):
        Image.fromarray(frame).save(folder / f"a{page}.png")


def save_hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/data"], file["entry/time"] = STACK, np.arange(3.0)


def save_tiff(folder, frames=STACK):
    tifffile.imwrite(folder / "a.tif", frames, photometric="minisblack")


@pytest.mark.parametrize(
    "write",
    [save_tiff, save_pngs, save_hdf5, lambda folder: np.save(folder / "a.npy", STACK)],
)
def test_every_format_gives_raw_counts_in_order(tmp_path, write):
    write(tmp_path)
    read = frames_of(tmp_path / "*")
    assert all(frame.dtype == np.uint16 for frame in read) and same(np.stack(read), STACK)
    assert len({frame.name for frame in list_frames(str(tmp_path / "*"))}) == 3


def test_numbers_in_names_count_as_numbers(tmp_path):
    paths = [f"run_{run}/run_{run}_shot_{n}.npy" for run in (2, 10) for n in (1, 2, 9, 10, 100)]
    for number, path in reversed([*enumerate(paths)]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        np.save(tmp_path / path, np.full((2, 2), number))
    read = frames_of(tmp_path / "*" / "*.npy")
    assert [int(frame[0, 0]) for frame in read] == list(range(len(paths)))


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    folder = tmp_path / "dark [5 ms]"
    folder.mkdir()
    np.save(folder / "dark[1].npy", STACK[0])
    for pattern in (folder / "dark[1].npy", folder / "*.npy", tmp_path / "dark ?5 ms?" / "*.npy"):
        assert same(frames_of(pattern), STACK[:1])


def test_frames_stream_with_bounded_memory(tmp_path):
    stack = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (200, 128, 128))
    stack[:] = 7
    stack.flush()
    tracemalloc.start()
    total = sum(int(frame[0, 0]) for frame in iterate_frames(list_frames(str(tmp_path / "a.npy"))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 200 * 7
    assert peak < 20 * 128 * 128 * 2  # of 200 frames


def test_moments_are_those_of_the_frames_and_said(tmp_path, capsys):
    save_tiff(tmp_path)
    mean, spread, kind, step = read_moments(str(tmp_path / "a.tif"), flag="--dark")
    assert f"--dark: 3 TIF 6 x 8, uint16, their mean {mean.min():.5g}" in capsys.readouterr().out
    np.testing.assert_allclose(mean, STACK.mean(axis=0))
    assert spread == pytest.approx(np.sqrt(np.median(STACK.var(axis=0, ddof=1))))
    assert step == 1 and kind == np.uint16
    save_tiff(tmp_path, STACK << 4)
    assert read_moments(str(tmp_path / "a.tif")).step == 16


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (np.full((4, 4), np.nan), "finite"),
        (np.full((4, 4), 40000, np.uint16).view(np.int16), "got -25536 of int16"),
        (np.ones((4, 4, 1)) * np.arange(3.0), "grey"),
        (np.ones((4, 4), complex), "complex"),
        (np.zeros((4, 5)), "(4, 5)"),
    ],
)
def test_pages_that_are_no_frames_are_refused(tmp_path, content, word):
    np.save(tmp_path / "0.npy", np.ones((4, 4)))
    np.save(tmp_path / "a.npy", content)
    message = rejection(frames_of, tmp_path / "*.npy")
    assert "a.npy" in message and word in message


@pytest.mark.parametrize(
    ("pattern", "word"), [("*.bmp", "*.bmp"), ("a.jpg", "a.jpg"), ("*/a.npy", "named 'a'")]
)
def test_files_that_are_no_frames_are_refused(tmp_path, pattern, word):
    (tmp_path / "a.jpg").write_bytes(b"any")
    for folder in ("one", "two"):  # whose results would have one name
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", STACK[0])
    assert word in rejection(list_frames, str(tmp_path / pattern))


def test_correction_inverts_the_sensor():
    light = RNG.uniform(10, 100, (12, 10))
    response, dark = RNG.uniform(0.8, 1.2, light.shape), RNG.uniform(20, 21, light.shape)
    wrong = np.zeros(light.shape, bool)
    wrong[3, 4] = True
    dark[0, 0] = 500  # hot
    correction = make_correction(References(light.shape, dark, 300 * response + dark, 1.0 * wrong))
    wrong[0, 0] = True
    raw = light * response + dark
    raw[3, 4] = 0
    seen = correct(raw, correction)
    assert same(correction.bad, wrong)
    mean = response[~wrong].mean()  # the flat is divided by its mean, no absolute scale is in it
    np.testing.assert_allclose(seen[~wrong], mean * light[~wrong])
    neighbours = mean * np.delete(light[2:5, 3:6].ravel(), 4)
    assert seen[3, 4] == pytest.approx(np.median(neighbours))
    assert seen[0, 0] == pytest.approx(mean * np.median([light[0, 1], light[1, 0], light[1, 1]]))


def test_bad_pixels_get_the_median_of_the_nearest_good_ones():
    frame = RNG.uniform(0, 1, (40, 40))
    bad = np.zeros(frame.shape, bool)
    bad[2, 7] = bad[0, 0] = bad[0, 1] = True
    bad[10:13, 10:13] = True  # its middle has none of 8
    bad[20:26, 20:26] = True  # nor of 24
    correction = make_correction(References(frame.shape, bad=1.0 * bad))
    seen = correct(np.where(bad, 9.0, frame), correction)
    assert same(seen[~bad], frame[~bad])
    good = np.pad(np.where(bad, np.nan, frame), 2, constant_values=np.nan)
    for row, column in zip(*np.nonzero(bad), strict=True):
        around = good[row : row + 5, column : column + 5]
        known = [part[~np.isnan(part)] for part in (around[1:4, 1:4], around, frame[~bad])]
        wanted = np.median(next(part for part in known if part.size))
        assert seen[row, column] == pytest.approx(wanted)


@pytest.mark.parametrize("frames", [1, 8])
@pytest.mark.parametrize("noise", [0.3, 0.5, 1.0])  # of a step
def test_a_quiet_dark_has_no_hot_pixels_left_justified_or_not(frames, noise):
    assert not hot_pixels(RNG.normal(64, 2, (64, 64))).any()
    raw = 16 * np.round(RNG.normal(64, noise, (frames, 64, 64)))
    raw[:, 5, 6] += 16 * 40
    found = hot_pixels(raw.mean(axis=0), 16)
    assert found[5, 6] and found.sum() == 1


def test_only_the_window_is_corrected_and_judged():
    window = make_window((30, 40), (5, 10, 12, 14), 2)
    light = RNG.uniform(10, 100, (30, 40))
    response = RNG.uniform(0.8, 1.2, light.shape)
    response[0, 0] = 0.0  # dead, and in no map
    bad = np.zeros(light.shape)
    bad[:, 30:] = 1  # a quarter
    references = References(light.shape, np.full(light.shape, 7.0), 300 * response + 7, bad)
    seen = correct(window.crop(light * response + 7), make_correction(references, window))
    # The mean of the whole frame's flat, whatever the window: one gain holds for all windows.
    np.testing.assert_allclose(seen, window.crop(light) * response[:, :30].mean())
    assert "bad" in rejection(make_correction, references)
    assert "--flat" in rejection(make_correction, references._replace(bad=None))


@pytest.mark.parametrize("wrong", [{"dark": np.zeros((4, 5))}, {"flat": np.zeros((5, 4))}])
def test_references_of_another_size_are_refused(wrong):
    assert f"--{next(iter(wrong))}" in rejection(make_correction, References((4, 4), **wrong))


@pytest.mark.parametrize(
    ("counts", "unused", "saturation"),
    [
        (STACK[0], 0, 0.0),
        (STACK[0] << 4, 4, 0.0),
        ((STACK[0] >> 2) << 6, 6, 0.0),
        (np.where(np.arange(48).reshape(6, 8) < 12, 4095, STACK[0] % 4000), 0, 0.25),
        (np.where(np.arange(48).reshape(6, 8) < 12, 4095 << 4, (STACK[0] % 4000) << 4), 4, 0.25),
        (np.where(np.arange(48).reshape(6, 8) < 12, 255, STACK[0] % 250).astype(np.uint8), 0, 0.25),
    ],
)
def test_counts_tell_bit_depth_and_saturation(counts, unused, saturation):
    assert read_counts(counts) == (unused, saturation)


@pytest.mark.parametrize("bin", [1, 2])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_window_of_the_grid_holds_all_that_it_reads(bin, sampling):
    geometry = Geometry(101.3, 122.8, 7.0, 4.3, "vertical", True)
    frame = RNG.uniform(0, 1, (240, 260))
    whole = make_window(frame.shape, (3, 5, 230, 251), bin)
    window = grid_window(whole, geometry, SENSOR)
    assert window.height < 190 and window.width < 190 and (window.y - 3) % bin == 0
    reading = {"sampling": sampling, "axis": (0, 0)}
    seen = [
        to_sensor(one.join(one.crop(frame)), geometry.in_window(one), SENSOR, **reading)
        for one in (whole, window)
    ]
    np.testing.assert_allclose(*seen, rtol=1e-6)


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("transpose", [False, True])
def test_orientations_are_those_of_numpy(flip, transpose):
    upright = np.arange(49.0).reshape(7, 7)
    seen = upright.T if transpose else upright
    seen = seen[::-1] if flip in ("vertical", "both") else seen
    seen = seen[:, ::-1] if flip in ("horizontal", "both") else seen
    geometry = Geometry(3.0, 3.0, 0.0, 1.0, flip, transpose)
    for axis, wanted in (((3, 3), upright), ((0, 0), np.fft.ifftshift(upright))):
        back = to_sensor(seen, geometry, (7, 7), sampling="area", axis=axis)
        np.testing.assert_allclose(back, wanted, atol=1e-9)


def test_a_point_has_the_noise_that_is_stated():
    noise = RNG.normal(size=(330, 330))
    seen = to_sensor(noise, Geometry(164.3, 165.1, 3.0, 4.3), (64, 64), **POINTS) / 4.3**2
    assert seen.std() == pytest.approx(POINT_NOISE, rel=0.03)


@pytest.mark.parametrize(("scale", "error"), [(2.0, 0.1), (3.1, 0.012), (6.0, 0.003)])
def test_what_camera_pixels_average_away_is_divided_out(scale, error):
    """Two camera pixels a finest period hold a pattern; more of them, more exactly."""
    shape = (round(SIZE * scale * 4 / 3),) * 2
    geometry = default_geometry(make_window(shape, None, 1), SENSOR, scale, rotation=2.0)
    light = camera_light(OTHERS, Bench(geometry, shape), axis=(0, 0))
    assert error_of(to_sensor(light, geometry, SENSOR, **POINTS), OTHERS) < error


def test_a_large_camera_sees_what_a_small_one_does():
    """Wherever on it the pattern lies, and no light where it does not."""
    around = Geometry(45.3, 44.1, 10.0, 4.0, transpose=True)
    seen = camera_light(OTHERS, Bench(around, (90, 90)), axis=(0, 0))
    assert seen.sum() > 0.99 * (np.abs(OTHERS) ** 2).sum()
    for row, column in ((0, 0), (210, 100)):
        moved = around._replace(centre_y=45.3 + row, centre_x=44.1 + column)
        light = camera_light(OTHERS, Bench(moved, (300, 240)), axis=(0, 0))
        part = np.s_[row : row + 90, column : column + 90]
        np.testing.assert_allclose(light[part], seen, atol=1e-9)
        light[part] = 0.0
        assert light.max() < 1e-9
    cut = camera_light(OTHERS, Bench(around, (50, 300)), axis=(0, 0))
    np.testing.assert_allclose(cut[:, :90], seen[:50], atol=1e-9)


@pytest.mark.parametrize(("camera_pixels", "bin"), [(1.5, 1), (5.9, 1), (6.0, 2), (15.06, 5)])
def test_pixels_are_joined_down_to_three_in_a_period(camera_pixels, bin):
    assert useful_bin(camera_pixels) == bin
    note = sampling_note(camera_pixels, bin=2, sampling="points")
    assert note.endswith(f"--bin {2 * bin} would use {bin**2} times the light") == (bin > 1)
    coarse = sampling_note(camera_pixels, bin=2, sampling="area")
    assert ("cannot hold it" in coarse) == (camera_pixels < 2)


def test_joined_pixels_hold_the_pattern_with_less_noise():
    """Photons of equal frames: at 15 pixels a sample, --bin 5 has a fifth of the error."""
    shape = (round(SIZE * 15 * 4 / 3),) * 2
    errors = {}
    for bin in (1, 5):
        window = make_window(shape, None, bin)
        geometry = default_geometry(window, SENSOR, 15.0)
        clean = camera_light(OTHERS, Bench(geometry, shape), axis=(0, 0))
        light = RNG.poisson(clean * (1e6 / clean.sum())) * (clean.sum() / 1e6)
        inner = geometry.in_window(window)
        errors[bin] = error_of(to_sensor(window.join(light), inner, SENSOR, **POINTS), OTHERS)
    assert errors[5] == pytest.approx(errors[1] / 5, rel=0.15)


def test_area_adds_up_whole_pixels():
    frame = RNG.uniform(0, 1, (24, 36))
    geometry = default_geometry(make_window(frame.shape, None, 1), (8, 12), None)
    seen = to_sensor(frame, geometry, (8, 12), sampling="area", axis=(4, 6))
    np.testing.assert_allclose(seen, frame.reshape(8, 3, 12, 3).sum(axis=(1, 3)), atol=1e-9)


def test_crop_and_bin_leave_the_geometry_where_it_is():
    window = make_window((40, 40), (5, 7, 31, 30), 2)
    frame = RNG.uniform(0, 1, (40, 40))
    assert window.join(window.crop(frame))[2, 3] == pytest.approx(frame[9:11, 13:15].sum())
    inner = Geometry(5 + 2 * 2 + 0.5, 7 + 2 * 3 + 0.5, 3.0, 4.0).in_window(window)
    assert inner == Geometry(2.0, 3.0, 3.0, 2.0)
    assert "--crop" in rejection(make_window, (40, 40), (20, 0, 30, 30), 1)


def test_a_grid_past_the_frame_is_refused():
    assert "reach" in rejection(check_geometry, Geometry(8.0, 2.0), (16, 16), (16, 16))
    said = rejection(check_geometry, Geometry(8.0, 8.0), (15, 16), (16, 16))
    assert "at least" in said and "--" not in said  # Python has no flags


@pytest.mark.parametrize("axis", [(0, 0), (8, 8), (4, 4)])  # far, near, near and zero-padded
def test_points_read_the_model_off_an_oversampling_camera(axis):
    smooth = OTHERS
    if axis != (0, 0):  # a field of half the band, as free space leaves of it
        spectrum = np.zeros(SENSOR, complex)
        spectrum[4:12, 4:12] = random_complex(RNG, (8, 8))
        smooth = np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho")
    geometry = Geometry(46.2, 44.7, 3.0, 4.0, "vertical", True)
    light = camera_light(smooth, Bench(geometry, (92, 92)), axis=axis)
    seen = to_sensor(light, geometry, SENSOR, sampling="points", axis=axis)
    assert error_of(seen, smooth) < 0.01
    if axis == (0, 0):
        assert seen.sum() == pytest.approx((np.abs(smooth) ** 2).sum(), rel=0.02)
    wrong = geometry._replace(centre_y=geometry.centre_y + 2.0)
    seen = to_sensor(light, wrong, SENSOR, sampling="points", axis=axis)
    assert error_of(seen, smooth) > 0.15


@pytest.mark.parametrize(
    ("truth", "shape", "ranges"),
    [
        (Geometry(32.4, 36.9, 0.0, 3.0), (70, 70), {"rotation_range": 3.0, "scale_range": 0.05}),
        pytest.param(
            *(Geometry(61.3, 702.6, 6.3, 3.3, "horizontal", True), (900, 800), {}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_registration_finds_shift_rotation_scale_and_orientation(truth, shape, ranges):
    light = camera_light(SPECTRA, Bench(truth, shape), axis=(0, 0))
    light = 1000 * (light + light.max() * RNG.normal(-0.02, 0.01, shape))  # below the dark
    found = register(light, PATTERN, Geometry(0.0, 0.0, 0.0, 3.0), **ranges)
    assert found.trusted
    assert (found.geometry.flip, found.geometry.transpose) == (truth.flip, truth.transpose)
    # Camera pixels (a tenth of one, 0.03 of a model sample), degrees, relative.
    assert found.geometry.centre_y == pytest.approx(truth.centre_y, abs=0.1)
    assert found.geometry.centre_x == pytest.approx(truth.centre_x, abs=0.1)
    assert found.geometry.rotation == pytest.approx(truth.rotation, abs=0.2)
    assert found.geometry.scale == pytest.approx(truth.scale, rel=0.005)


@pytest.mark.slow
def test_registration_does_not_trust_another_pattern():
    other = forward(np.ones((SIZE, SIZE)), RNG.uniform(0, 2 * np.pi, PHASES.shape))[0]
    light = camera_light(other, Bench(Geometry(35.0, 35.0, 0.0, 3.0), (70, 70)), axis=(0, 0))
    assert not register(light, PATTERN, Geometry(0.0, 0.0, 0.0, 3.0), rotation_range=3.0).trusted


@pytest.mark.parametrize("size", [15, 16])
def test_a_pattern_without_orientation_is_refused(size):
    binary = np.pi * RNG.integers(0, 2, (1, size, size))
    symmetric = np.fft.fftshift(np.abs(forward(np.ones((size, size)), binary)) ** 2, axes=(1, 2))
    assert "--object" in rejection(check_orientation, symmetric)
    known = np.exp(1j * RNG.uniform(0, np.pi, (size, size)))
    other = np.fft.fftshift(np.abs(forward(known, binary)) ** 2, axes=(1, 2))
    check_orientation(other)
    check_orientation(np.concatenate([symmetric, other]))  # one snapshot is enough
