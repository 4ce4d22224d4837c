"""bench.toml: what it may say, and what it gives to flags and to the command geometry."""

import re

import numpy as np
import pytest
from absl import flags
from benches import EXAMPLE
from commands import call, refusal
from helpers import rejection, tiny_config

from jax_kdpr.config import presets
from jax_kdpr.core import options
from jax_kdpr.interface import bench_flags
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.bench_options import PixelNoise, as_flags, device_options, model_noise
from jax_kdpr.lab.masks.shown import ShownOptions


@pytest.fixture
def read(tmp_path):
    """read(text) -> the bench that a file of this text is."""
    flags.FLAGS(["test"])

    def reader(text: str) -> bench_file.Bench:
        path = tmp_path / "bench.toml"
        path.write_text(text)
        flags.FLAGS["bench"].value = str(path)
        return bench_flags.read()

    yield reader
    flags.FLAGS["bench"].value = ""


def test_the_example_of_the_page_says_every_number(read, tmp_path):
    bench = read(EXAMPLE)
    left = {path for path, value in options.flatten(bench).items() if value is None}
    # A near field has a distance in place of a lens, a measured table that of a gray level. What
    # a panel shows besides the mask is on the page of masks.
    shown = {f"modulator.{name}" for name in options.shallow(ShownOptions())}
    assert left == {"distance", "modulator.table"} | shown
    assert bench.modulator.mask_pitch == pytest.approx(64e-6)
    assert bench.frames.dark == str(tmp_path / "dark/*.tif")
    scale = bench_file.camera_scale(bench, tiny_config(data__size=32))
    assert scale == pytest.approx(532e-9 * 0.2 / (32 * 64e-6) / 3.45e-6)


NO_LENS = """
wavelength = 532e-9
distance = 0.14
[modulator]
pixel_pitch = 12e-6
[camera]
pixel_pitch = 3.45e-6
"""


def test_without_a_lens_the_scale_tells_the_distance(read):
    lengths = {"wavelength": 532e-9, "pitch": 12e-6, "distance": 0.14}
    near = {f"propagation__{name}": value for name, value in lengths.items()}
    config = tiny_config(data__size=32, propagation__kind="fresnel", **near)
    bench = read(NO_LENS)
    scale = 532e-9 * 0.14 / (config.masks.oversample * 32 * 12e-6) / 3.45e-6
    assert bench_file.camera_scale(bench, config) == pytest.approx(scale)
    assert not bench_file.distance_note(bench, config, 1.004 * scale)
    said = bench_file.distance_note(bench, config, scale * 0.15 / 0.14)
    assert "a distance of 0.15 m" in said and "has 0.14 m" in said
    assert not bench_file.distance_note(bench, tiny_config(), scale * 2)
    bench_file.require_same_lengths(bench, config)
    bench_file.require_same_lengths(bench, tiny_config())
    for name, other in {"distance = 0.14": "distance = 0.15", "12e-6": "13e-6"}.items():
        wrong = read(NO_LENS.replace(name, other))
        assert "--bench: its" in rejection(bench_file.require_same_lengths, wrong, config)


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
        ("[modulator]\npanel = '1080x1920'", "modulator.panel"),
        ("[modulator]\ngray_2pi = 255\ntable = 'slm.csv'", "modulator.table"),
        ("[modulator]\ngray_2pi = 1", "modulator.gray_2pi"),
        ("[modulator]\nmagnify = 3\ngrating = 6", "modulator.grating"),
        ("distance = 0.2\n[modulator]\nmagnify = 4\ngrating = 6", "behind a lens"),
        ("[modulator]\ncorrection_2pi = 217", "modulator.correction_2pi"),
        ("[modulator]\ncorrection = CAL.bmp", "quotes"),
        ("focal_length = 0.2\ndistance = 0.2", "focal_length, distance"),
        ("[camera]\nbits = 10\noffset = 512", "camera.offset"),
        ("[kamera]\nbits = 10", "'kamera'"),
        ("camera = 3", "camera"),
        ("wavelength = ", "Invalid value"),
    ],
)
def test_what_it_cannot_mean_is_refused_in_one_line(text, said, read):
    message = rejection(read, text)
    assert said in message and "bench.toml" in message and "\n" not in message


def test_flags_are_read_as_their_keys_and_go_before_the_file(read):
    keys = {"pitch": "camera.pixel_pitch", "pixels": "camera.pixels", "bits": "camera.bits"}
    keys |= {"mask": "modulator.mask_pitch", "dark": "camera.dark", "bin": "camera.bin"}
    made = {name: flags.DEFINE(**bench_flags.of_key(f"key_{name}", keys[name])) for name in keys}
    read("[camera]\npixel_pitch = 2e-6\npixels = [3, 4]\ndark = 0.0\nbin = 7")
    flags.FLAGS(["test", "--key_pitch=5e-6", "--key_bits=8", f"--bench={bench_flags.BENCH.value}"])
    bench_flags.fill(key_bin=None)
    found = [flag.value for flag in made.values()]
    assert found == [5e-6, (3, 4), 8, None, 0.0, None]
    assert not flags.FLAGS["key_dark"].present  # it was not given
    flags.FLAGS(["test", "--key_pixels=1080x1920"])
    assert made["pixels"].value == (1080, 1920)
    for name, wrong in (("pixels", "1080"), ("bits", "17"), ("pitch", "3.45"), ("bin", "two")):
        with pytest.raises(flags.IllegalFlagValueError, match=f"key_{name}={wrong}"):
            flags.FLAGS(["test", f"--key_{name}={wrong}"])


def test_its_values_pass_the_checks_of_the_flags():
    bits = flags.DEFINE_integer("of_this_test_bits", 12, "", lower_bound=4, upper_bound=16)
    flags.FLAGS(["test"])
    for wrong in (2, 17):
        message = rejection(bench_flags.give, {"of_this_test_bits": wrong})
        assert f"--of_this_test_bits {wrong!r}" in message and "--bench" in message
    assert bits.value == 12


def test_geometry_prints_the_options_of_the_users_camera(tmp_path):
    (tmp_path / "bench.toml").write_text(EXAMPLE)
    shown = call("geometry", "--bench", "bench.toml", "--pixels=32", cwd=tmp_path)
    options = dict(re.findall(r"--config\.noise\.(\w+)=(\S+)", shown.stdout))
    # Of 8 x 8 panel pixels: their gaps are spread over the mask pixel.
    lies = {"scale": 15.06, "bin": 5, "sensor": (32, 32), "pixel_side": 1.0}
    expected = model_noise(PixelNoise(1.3e7, 2.0, 0.0, 10400.0, 12), **lies)
    assert options.pop("kind") == "camera" and set(options) == set(expected)
    for name, value in expected.items():
        assert float(options[name]) == pytest.approx(value, rel=2e-3), name
    device = dict(re.findall(r"--config\.device\.(\w+)=(\S+)", shown.stdout))
    assert device == {"levels": "256", "panel_pixels": "8", "fill_factor": "0.93"}
    panel = bench_file.Modulator(gray_2pi=300, bits=8)  # which does not reach 2 pi
    options = device_options(bench_file.Bench(modulator=panel))
    assert as_flags(options) == "--config.device.levels=256 --config.device.phase_range=5.341"


def test_geometry_looks_at_what_the_panel_is_to_show(tmp_path):
    def bench(line):
        (tmp_path / "bench.toml").write_text(EXAMPLE.replace("[camera]", f"{line}\n\n[camera]"))
        return ("geometry", "--bench", "bench.toml", "--pixels=32")

    said = call(*bench("grating = 12"), cwd=tmp_path).stdout
    # lambda f / (12 p) and its 3.45 um pixels.
    assert "1.11 mm, 321 camera pixels" in said and "zero_order=0" in said
    assert "none.bmp" in refusal(*bench('correction = "none.bmp"'), cwd=tmp_path)
    np.save(tmp_path / "flat.npy", np.zeros((1080, 1080)))
    assert "1080 x 1920" in refusal(*bench('correction = "flat.npy"'), cwd=tmp_path)
    measured = EXAMPLE.replace("gray_2pi = 256", 'table = "slm.csv"')
    (tmp_path / "bench.toml").write_text(measured)
    asked = ("geometry", "--bench=bench.toml", "--pixels=32")
    assert "slm.csv" in refusal(*asked, cwd=tmp_path)
    (tmp_path / "slm.csv").write_text("gray,phase (pi)\n0,0\n128,0.5\n256,1\n384,1.5\n511,2\n")
    assert "modulator.bits" in (said := refusal(*asked, cwd=tmp_path)) and "512" in said


def test_a_panel_that_is_not_the_run_s_is_told():
    config = presets.bench(presets.quickstart())  # with a crosstalk
    bench = bench_file.Bench(modulator=bench_file.Modulator(magnify=8))
    panel_note = bench_file.panel_note
    assert "--config.device.panel_pixels=8" in panel_note(bench, config)
    config.device.panel_pixels = 8
    assert panel_note(bench, config) == ""
    config.device.panel_pixels, config.device.crosstalk = 1, 0.0
    assert panel_note(bench, config) == panel_note(bench_file.Bench(), config) == ""
