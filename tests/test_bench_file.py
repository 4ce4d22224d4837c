"""bench.toml: what it may say, what it gives to commands, and the noise that follows from it."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from commands import call
from helpers import rejection

from jax_kdpr.core import options
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.frames.geometry import Window, default_geometry, in_window, join, to_sensor
from jax_kdpr.lab.frames.model_noise import PixelNoise, model_noise

PAGE = Path(__file__).parents[1] / "docs" / "bench.md"
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def read(tmp_path):
    """read(text) -> the bench that a file of this text is."""
    flags.FLAGS(["test"])

    def reader(text: str) -> bench_file.Bench:
        path = tmp_path / "bench.toml"
        path.write_text(text)
        flags.FLAGS["bench"].value = str(path)
        return bench_file.read_bench()

    yield reader
    flags.FLAGS["bench"].value = ""


def test_the_example_of_the_page_says_every_number(read, tmp_path):
    bench = read(EXAMPLE)
    left = {path for path, value in options.flatten(bench).items() if value is None}
    # A near field has a distance in place of a lens, a measured table that of a gray level.
    assert left == {"distance", "modulator.table"}
    assert bench.modulator.mask_pitch == pytest.approx(64e-6)
    assert bench.frames.dark == str(tmp_path / "dark/*.tif")
    far = {"kind": "far", "wavelength": 0.0, "pitch": 0.0, "distance": 0.0}
    scale = bench_file.camera_scale(bench, pixels=32, oversample=1, propagation=far)
    assert scale == pytest.approx(532e-9 * 0.2 / (32 * 64e-6) / 3.45e-6)


def test_a_pipe_and_a_file_of_something_else_are_not_read(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    flags.FLAGS["bench"].value = str(tmp_path / "pipe")
    assert "pipe" in rejection(bench_file.read_bench)
    assert "1,048,576" in rejection(read, "#" * 2**20 + "#")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wavelenght = 532e-9", "mean wavelength"),
        ("[camera]\npitch = 3e-6", "'camera.pitch'"),
        ("[lens]\nfocal_length = 0.2", "'lens'"),
        ("wavelength = 532", "532e-9"),
        ("[camera]\nbits = 12.0", "camera.bits"),
        ("[camera]\nread_noise = nan", "camera.read_noise"),
        ("[camera]\nfull_well = 0.0", "camera.full_well"),
        ("[camera]\npixels = []", "camera.pixels"),
        ("[camera]\npixels = [200000, 200000]", "camera.pixels"),
        ("[camera]\nbits = 8\noffset = 200", "camera.offset"),
        ("[modulator]\npanel = '1080x1920'", "modulator.panel"),
        ("camera = 3", "camera"),
        ("wavelength = ", "TOML"),
    ],
)
def test_what_it_cannot_mean_is_refused_in_one_line(text, said, read):
    message = rejection(read, text)
    assert said in message and "bench.toml" in message and "\n" not in message


def test_flags_go_before_it_and_what_it_does_not_say_leaves_them():
    defined = {name: flags.DEFINE_float(f"of_this_test_{name}", 1.0, "") for name in "abcd"}
    flags.FLAGS(["test", "--of_this_test_a=5"])
    values = {"a": 7.0, "b": 8.0, "c": None, "d": 0.0}
    bench_file.fill({f"of_this_test_{name}": value for name, value in values.items()})
    assert [defined[name].value for name in "abcd"] == [5.0, 8.0, 1.0, 0.0]
    assert not flags.FLAGS["of_this_test_d"].present  # it was not given


def test_its_values_pass_the_checks_of_the_flags():
    bits = flags.DEFINE_integer("of_this_test_bits", 12, "", lower_bound=4, upper_bound=16)
    flags.DEFINE_float("of_this_test_scale", None, "", lower_bound=0.1, upper_bound=1000.0)
    flags.DEFINE_enum("of_this_test_kind", "far", ["far", "near"], "")
    flags.FLAGS(["test"])
    for name, wrong in (("bits", 2), ("bits", 17), ("scale", 0.01), ("kind", "none")):
        message = rejection(bench_file.fill, {f"of_this_test_{name}": wrong})
        assert f"--of_this_test_{name} {wrong!r}" in message and "--bench" in message
    assert bits.value == 12
    assert bench_file.as_flag("of_this_test_scale", 3) == 3.0


@pytest.mark.parametrize(
    ("scale", "bin", "side"),
    [*((6.23, 2, 0.96), (3.37, 1, 0.0)), pytest.param(15.7, 5, 0.96, marks=pytest.mark.slow)],
)
def test_a_model_is_as_noisy_as_the_frames_of_the_camera(scale, bin, side):
    """Frames of even light behind the envelope, drawn pixel by pixel in NumPy."""
    sensor, camera = (16, 16), PixelNoise(2e5, 3.0, 4.0, 1e5, 12)
    window = Window(0, 0, *[round(16 * scale * 4 / 3) // bin * bin] * 2, bin)
    geometry = default_geometry(window, sensor, scale)
    rng = np.random.default_rng(0)

    def on_grid(frame):
        inner, reading = in_window(geometry, window), {"sampling": "points", "axis": (0, 0)}
        return to_sensor(join(frame, window), inner, sensor, **reading, pixel_side=side)

    rows = (np.arange(window.height) - geometry.centre_y) / scale / 16
    envelope = np.sinc(side * rows) ** 2
    light = camera.photons / (16 * scale) ** 2 * np.outer(envelope, envelope)
    noise = model_noise(camera, scale=scale, bin=bin, sensor=sensor, pixel_side=side)
    total = on_grid(light).sum()
    assert total == pytest.approx(camera.photons, rel=0.02)  # `counts` of results.json

    def spread(draw, count=150) -> float:
        return float(np.mean(np.var([on_grid(draw()) for _ in range(count)], axis=0)))

    # In electrons of the grid; what a pixel between samples costs differs with where it lies.
    unit = total / noise["photons"]
    shot = spread(lambda: rng.poisson(light).astype(float))
    assert shot == pytest.approx(unit * total / 256, rel=0.2)
    read = spread(lambda: 3.0 * rng.normal(size=light.shape))
    assert read == pytest.approx((unit * noise["read_noise"]) ** 2, rel=0.2)
    dark = spread(lambda: rng.poisson(4.0, light.shape).astype(float))
    assert dark == pytest.approx(unit**2 * noise["dark"], rel=0.2)


def test_geometry_prints_the_options_of_the_users_camera(tmp_path):
    (tmp_path / "bench.toml").write_text(EXAMPLE)
    shown = call("geometry", "--bench", "bench.toml", "--pixels=32", cwd=tmp_path)
    options = dict(re.findall(r"--config\.noise\.(\w+)=(\S+)", shown.stdout))
    lies = {"scale": 15.06, "bin": 5, "sensor": (32, 32), "pixel_side": 0.93**0.5}
    expected = model_noise(PixelNoise(1.3e7, 2.0, 0.0, 10400.0, 12), **lies)
    assert options.pop("kind") == "camera" and set(options) == set(expected)
    for name, value in expected.items():
        assert float(options[name]) == pytest.approx(value, rel=2e-3), name
