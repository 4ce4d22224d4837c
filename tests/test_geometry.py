"""Bench geometry: numbers worked out by hand, and the command line as a process."""

import json

import numpy as np
import pytest
from commands import call, refusal

from jax_kdpr.lab.bench_file import Modulator
from jax_kdpr.lab.layout import make_layout, suitable_magnify
from jax_kdpr.optics.sampling import Layout, camera_warnings, sampling_of

# 500 nm, f = 0.2 m, 100 pixels of 10 um: lambda f / (N p) = 1e-7 / 1e-3 = 100 um.
BENCH = Layout(pixels=100, wavelength=500e-9, pitch=10e-6, distance=0.2, camera_pixel=4e-6)


def test_far_field_by_hand():
    bench = BENCH._replace(camera_pixels=(2500, 3000))
    found = sampling_of(bench)
    np.testing.assert_allclose(found.sensor_pixel, 100e-6)
    np.testing.assert_allclose(found.camera_pixels_per_sensor_pixel, 25)
    np.testing.assert_allclose(found.extent, 0.01)  # lambda f / p
    np.testing.assert_allclose(found.extent_camera_pixels, 2500)
    np.testing.assert_allclose(found.finest_fringe, 100e-6)
    np.testing.assert_allclose(found.fresnel_number, (0.5e-3) ** 2 / 1e-7)
    assert found.oversample_resolved == 2
    assert camera_warnings(bench, found) == []


@pytest.mark.parametrize(("rows", "fits"), [(2501, True), (2499, False)])
def test_the_shorter_side_of_the_chip_decides(rows, fits):
    bench = BENCH._replace(camera_pixels=(rows, 9000))
    found = sampling_of(bench)
    assert found.fits is fits
    said = " ".join(camera_warnings(bench, found))
    assert ("do not fit the chip" in said) is not fits


@pytest.mark.parametrize("kind", ["far", "fresnel"])
def test_the_recommended_distance_gives_a_whole_ratio(kind):
    bench = BENCH._replace(camera_pixel=4.3e-6, oversample=2, kind=kind)
    found = sampling_of(bench)
    assert found.whole_ratio == 12
    assert camera_warnings(bench, found) == []  # `reconstruct` resamples
    np.testing.assert_allclose(found.sensor_pixel / found.whole_ratio_camera_pixel, 12)
    bench = bench._replace(distance=found.whole_ratio_distance)
    better = sampling_of(bench)
    np.testing.assert_allclose(better.camera_pixels_per_sensor_pixel, 12)
    assert camera_warnings(bench, better) == []


def test_the_angular_spectrum_has_the_masks_pitch():
    found = sampling_of(BENCH._replace(camera_pixel=4.5e-6, kind="angular_spectrum", oversample=2))
    assert found.sensor_pixel == found.finest_fringe == 10e-6
    assert found.whole_ratio == 2 and found.whole_ratio_distance is None
    np.testing.assert_allclose(found.whole_ratio_camera_pixel, 5e-6)
    np.testing.assert_allclose(found.extent, 2e-3)


@pytest.mark.parametrize(
    ("camera_pixel", "resolved"), [(49e-6, 2), (50e-6, 2), (51e-6, 1), (100e-6, 1), (101e-6, 0)]
)
def test_two_camera_pixels_a_fringe_resolve_oversample_2(camera_pixel, resolved):
    for oversample in (1, 2):
        bench = BENCH._replace(camera_pixel=camera_pixel, oversample=oversample)
        found = sampling_of(bench)
        assert found.oversample_resolved == resolved
        coarse = [w for w in camera_warnings(bench, found) if "coarser" in w]
        assert len(coarse) == (resolved < oversample)


@pytest.mark.parametrize(
    ("camera_pixel", "said"),
    [(5e-6, ""), (6e-6, "fewer than 2"), (10e-6, "fewer than 2"), (11e-6, "coarser than the")],
)
@pytest.mark.parametrize("oversample", [1, 2])
def test_padding_of_a_near_field_asks_no_finer_camera(camera_pixel, said, oversample):
    """It gives the light room to spread; a sample stays as wide as the mask's pixel."""
    bench = BENCH._replace(camera_pixel=camera_pixel, oversample=oversample)
    bench = bench._replace(kind="angular_spectrum")
    *warnings, squares = camera_warnings(bench, sampling_of(bench))
    assert len(warnings) == bool(said) and "square pixels" in squares
    for line in warnings:
        assert said in line and line.endswith("take smaller camera pixels")


def integrated_contrast(period: float, pixel: float) -> float:
    """Contrast of 1 + cos(2 pi x / period) averaged over pixels, by quadrature."""
    offsets = (np.arange(20000) + 0.5) / 20000 * pixel - pixel / 2
    return float(np.mean(np.cos(2 * np.pi * offsets / period)))


def test_pixel_integration_by_quadrature():
    found = sampling_of(BENCH._replace(camera_pixel=40e-6, fill_factor=0.64))
    np.testing.assert_allclose(found.camera_pixel_factor, integrated_contrast(100, 40), rtol=1e-6)
    # A mask pixel of side 0.8 p at half a turn a pixel: the field of one pixel at the band's edge.
    np.testing.assert_allclose(
        found.mask_pixel_factor, integrated_contrast(2.0, 0.8) ** 2, rtol=1e-6
    )
    full = sampling_of(BENCH)
    np.testing.assert_allclose(full.mask_pixel_factor, (2 / np.pi) ** 2)
    blind = sampling_of(BENCH._replace(camera_pixel=130e-6))
    assert blind.camera_pixel_factor == 0


def test_wrong_values_raise():
    with pytest.raises(ValueError, match="camera_pixel: expected metres, above 0"):
        sampling_of(BENCH._replace(camera_pixel=0.0))
    with pytest.raises(ValueError, match="propagation: expected one of far"):
        sampling_of(BENCH._replace(kind="near"))


KNOWN = ["--wavelength=500e-9", "--mask_pitch=10e-6", "--camera_pixel=4e-6"]
FAR = "--focal_length=0.2"


def test_command_line(tmp_path):
    output = tmp_path / "new" / "bench.json"
    lens = [FAR, "--pixels=100", "--camera_pixels=2000x3000", f"--output={output}"]
    done = call("geometry", *KNOWN, *lens)
    assert (
        done.returncode == 0
        and "100 um" in done.stdout
        and "warning: the pattern's 2500 camera pixels" in done.stdout
    )
    record = json.loads(output.read_text())
    np.testing.assert_allclose(record["sensor_pixel"], 100e-6)
    assert record["fits"] is False and len(record["warnings"]) == 1


def test_the_rest_comes_from_a_run(designed):
    done = call("geometry", f"--workdir={designed}", *KNOWN, FAR)
    assert done.returncode == 0 and "625 um" in done.stdout  # 16 pixels


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--pixels=100"], "--focal_length"),
        (["--pixels=100", "--distance=0.2"], "--distance"),
        (["--pixels=100", FAR, "--camera_pixels=2000"], "--camera_pixels"),
        (["--pixels=100", FAR, "--bits=99"], "--bits"),
        (["--pixels=100", FAR, "--bits=0"], "--bits=0: it: expected a number in [1, 16]"),
        (["--pixels=32", FAR, "--workdir={designed}"], "--pixels"),
    ],
)
def test_bad_command_lines_are_one_line(designed, arguments, flag):
    given = [argument.format(designed=designed) for argument in arguments]
    assert refusal("geometry", *KNOWN, *given).startswith(flag)


def test_the_magnify_that_is_named_suits_and_its_neighbours_do_not():
    panel = Modulator(pixel_pitch=8e-6, panel=(1080, 1920))
    known = {"pixels": 32, "oversample": 2, "propagation": "far", "wavelength": 532e-9}
    given = {"focal_length": 0.2, "camera_pixel": 3.45e-6, "camera_pixels": (2048, 2448)}

    def suits(magnify: int) -> bool:
        bench = make_layout({**given, "mask_pitch": magnify * panel.pixel_pitch}, known)
        found = sampling_of(bench)
        fringe = found.finest_fringe / bench.camera_pixel
        return bool(found.fits) and fringe >= 3 and 32 * magnify <= 1080

    bench = make_layout({**given, "mask_pitch": 64e-6}, known)
    first, last = map(int, suitable_magnify(bench, panel).split(" to "))
    found = [magnify for magnify in range(1, 60) if suits(magnify)]
    assert (first, last) == (found[0], found[-1]) and len(found) == last - first + 1
    coarse = {"camera_pixel": 50e-6, "camera_pixels": (40, 40), "mask_pitch": 64e-6}
    coarse = make_layout({**given, **coarse}, known)
    assert suitable_magnify(coarse, panel).startswith("none")
    assert suitable_magnify(bench, Modulator()) == ""
