"""What a training makes of bench.toml: device, lengths, and the noise of its camera."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from benches import EXAMPLE
from commands import call
from helpers import rejection

import jax_kdpr as kdpr
from jax_kdpr.config import checks, presets
from jax_kdpr.config.schema import with_values
from jax_kdpr.core import options
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.bench_options import PixelNoise, as_flags, device_options, model_noise, on_bench
from jax_kdpr.lab.frames.geometry import Window, default_geometry, to_sensor
from jax_kdpr.lab.frames.measured import blank_image, pixel_side
from jax_kdpr.lab.frames.simulated_bench import make_bench, write_bench
from jax_kdpr.runs.run import untrained


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
        inner, reading = geometry.in_window(window), {"sampling": "points", "axis": (0, 0)}
        return to_sensor(window.join(frame), inner, sensor, **reading, pixel_side=side)

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


def example_bench(tmp_path, text=EXAMPLE) -> bench_file.Bench:
    (tmp_path / "bench.toml").write_text(text)
    return bench_file.read_bench(tmp_path / "bench.toml")


def test_a_config_on_a_bench_has_its_modulator_and_its_noise(tmp_path):
    config = presets.bench(presets.quickstart())  # sampled twice a fringe
    found, set_options, notes = on_bench(config, example_bench(tmp_path))
    assert config == presets.bench(presets.quickstart()) and notes == []
    assert (found.device.levels, found.device.panel_pixels) == (256, 8)
    # Gaps of many panel pixels are spread over the mask pixel, which fills its square.
    lies = {"scale": 7.529, "bin": 5, "sensor": (64, 64), "pixel_side": 1.0}
    expected = model_noise(PixelNoise(1.3e7, 2.0, 0.0, 10400.0, 12), **lies)
    for name, value in expected.items():
        assert getattr(found.noise, name) == pytest.approx(value, rel=2e-3), name
    of_device = ("levels", "phase_range", "table", "panel_pixels", "fill_factor")
    assert set(set_options) == {
        *(f"device.{name}" for name in of_device),
        *(f"noise.{name}" for name in ("kind", *expected)),
    }
    differing = options.differences(found, config, ignore=tuple(set_options))
    assert differing == []


@pytest.mark.parametrize("magnify", [1, 2])
@pytest.mark.parametrize("crosstalk", [0.0, 0.3])
def test_the_noise_is_that_of_frames_whose_envelope_reconstruct_divides_out(
    tmp_path, magnify, crosstalk
):
    text = EXAMPLE.replace("magnify = 8", f"magnify = {magnify}").replace(
        "8e-6", f"{64e-6 / magnify}"
    )
    config = presets.bench(presets.quickstart())
    config.device.crosstalk = crosstalk
    found = on_bench(config, example_bench(tmp_path, text))[0]
    side = pixel_side(untrained(checks.ready(found)))
    assert side == (0.93**0.5 if magnify == 1 and not crosstalk else 1.0)
    lies = {"scale": 7.529, "bin": 5, "sensor": (64, 64), "pixel_side": side}
    expected = model_noise(PixelNoise(1.3e7, 2.0, 0.0, 10400.0, 12), **lies)
    assert found.noise.photons == pytest.approx(expected["photons"], rel=2e-3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"device.phase_range": 3.0}, {"device.levels": 256, "device.phase_range": 2 * np.pi}),
        ({"device.levels": 0, "device.table": (0.0, 1.0, 3.0)}, {"device.table": ()}),
        ({"noise.kind": "gaussian", "noise.snr_db": 20.0}, {"noise.kind": "camera"}),
        ({"noise.kind": "none"}, {"noise.kind": "camera"}),
    ],
    ids=str,
)
def test_the_file_goes_before_the_config_whatever_that_says(tmp_path, before, after):
    config = with_values(presets.bench(presets.quickstart()), {"noise.kind": "none"})
    config.noise = type(config.noise)()
    found, set_options, _ = on_bench(with_values(config, before), example_bench(tmp_path))
    checks.ready(found)
    values = options.flatten(found)
    for path, value in after.items():
        assert values[path] == value and path in set_options


def test_as_flags_options_are_the_same_run(tmp_path):
    text = EXAMPLE.replace("532e-9", "532.1234e-9").replace("0.93", "0.9312345")
    config = presets.quickstart()
    config.propagation.kind = "fresnel"
    bench = example_bench(tmp_path, text.replace("focal_length = 0.2", "distance = 0.312345678"))
    found, set_options, _ = on_bench(config, bench)
    values = options.flatten(found)
    said = dict(re.findall(r"--config\.(\S+)=(\S+)", as_flags(set_options)))
    assert {"propagation.distance", "device.fill_factor", "noise.bits"} <= set(said)
    for path, text in said.items():
        assert type(values[path])(text) == values[path], path


def test_python_says_what_the_file_has_set_and_warns(tmp_path, capsys):
    (tmp_path / "bench.toml").write_text(EXAMPLE.replace("full_well = 10400", ""))
    config = presets.quickstart()
    with pytest.warns(UserWarning, match="camera.full_well"):
        found = kdpr.on_bench(config, tmp_path / "bench.toml")
    assert "--config.device.levels=256" in capsys.readouterr().out
    assert config == presets.quickstart() != found and found.device.levels == 256
    (tmp_path / "bench.toml").write_text("")
    with pytest.warns(UserWarning):
        kdpr.on_bench(config, tmp_path / "bench.toml")
    assert "says nothing that a training reads" in capsys.readouterr().out


def test_what_the_command_line_says_goes_before_the_bench(tmp_path):
    config, bench = presets.quickstart(), example_bench(tmp_path)
    config.device.phase_range, config.noise.kind = 3.0, "none"
    kept = ["device.phase_range", "noise.kind", "device.fill_factor"]
    found, set_options, _ = on_bench(config, bench, kept=kept)
    assert list(set_options) == ["device.panel_pixels"]
    assert found.device.phase_range == 3.0 and found.device.fill_factor == 1.0
    bright = example_bench(tmp_path, EXAMPLE.replace("photons = 1.3e7", ""))
    assert on_bench(config, bright, kept=kept)[2] == []  # nothing is taken that nobody reads
    config.noise.kind, config.noise.photons = "camera", 5e5
    found, _, notes = on_bench(config, bright, kept=["noise.photons"])
    assert found.noise.photons == 5e5 and found.noise.bits == 13 and notes == []


def test_a_panel_is_what_its_levels_reach(tmp_path):
    config = presets.bench(presets.quickstart())
    short = example_bench(tmp_path, EXAMPLE.replace("gray_2pi = 256", "gray_2pi = 319"))
    device = on_bench(config, short)[0].device
    assert device.levels == 256 and device.phase_range == pytest.approx(
        2 * np.pi * 255 / 319, rel=1e-3
    )
    over = example_bench(tmp_path, EXAMPLE.replace("gray_2pi = 256", "gray_2pi = 210"))
    assert on_bench(config, over)[0].device.levels == 210
    (tmp_path / "slm.csv").write_text("gray,phase (pi)\n0,0\n1,0.5\n2,1.4\n")
    measured = example_bench(tmp_path, EXAMPLE.replace("gray_2pi = 256", 'table = "slm.csv"'))
    device = on_bench(config, measured)[0].device
    assert device.levels == 0 and device.table == pytest.approx((0.0, 1.5 * np.pi, 0.6 * np.pi))


def test_a_grating_leaves_no_zero_order():
    panels = (bench_file.Modulator(magnify=4, grating=period) for period in (6.0, -6.0, None))
    beside = {"device.zero_order": 0.0, "device.gaps": "absorbing", "device.crosstalk": 0.0}
    for panel in panels:
        options = device_options(bench_file.Bench(modulator=panel))
        kept = {path: value for path, value in options.items() if path in beside}
        assert kept == (beside if panel.grating else {})


def test_a_near_field_has_the_lengths_of_the_bench(tmp_path):
    config = presets.quickstart()
    config.propagation.kind = "fresnel"
    near = EXAMPLE.replace("focal_length = 0.2", "distance = 0.3")
    space = on_bench(config, example_bench(tmp_path, near))[0].propagation
    assert (space.wavelength, space.pitch, space.distance) == pytest.approx((532e-9, 64e-6, 0.3))
    _, set_options, notes = on_bench(config, example_bench(tmp_path))  # it has a lens
    assert "distance" in notes[0] and "noise.kind" not in set_options


def test_a_bench_without_a_lens_and_masks_beyond_the_panel_are_told(tmp_path):
    near = EXAMPLE.replace("focal_length = 0.2", "distance = 0.3")
    message = rejection(on_bench, presets.quickstart(), example_bench(tmp_path, near))
    assert "--config.propagation.kind=fresnel" in message
    said = call("geometry", "--bench=bench.toml", "--pixels=32", cwd=tmp_path)
    assert said.returncode == 2 and "--propagation" in said.stderr
    big = EXAMPLE.replace("magnify = 8", "magnify = 60")
    (*_, note) = on_bench(presets.quickstart(), example_bench(tmp_path, big))[2]
    assert "1920, more than the panel of 1080 x 1920" in note
    said = call("geometry", "--bench=bench.toml", "--pixels=32", cwd=tmp_path)
    assert note in said.stdout
    bright = EXAMPLE.replace("photons = 1.3e7", "photons = 1e14").replace("magnify = 8", "")
    message = rejection(on_bench, presets.quickstart(), example_bench(tmp_path, bright))
    assert "it sets noise.photons" in message and "do not fit the chip" in message
    for wrong in (tmp_path, tmp_path / "none.toml"):
        assert "give the path of a bench.toml" in rejection(bench_file.read_bench, wrong)


def test_a_bench_of_unknown_light_leaves_the_noise_and_says_so(tmp_path):
    config = presets.bench(presets.quickstart())
    dark = EXAMPLE.replace("bits = 12", "").replace("full_well = 10400", "")
    found, _, (note,) = on_bench(config, example_bench(tmp_path, dark))
    assert found.noise == config.noise and "camera.full_well, camera.bits" in note
    config.device.levels = "many"  # a config file is Python
    assert "device.levels" in rejection(on_bench, config, example_bench(tmp_path))


def test_train_on_a_bench_says_what_it_sets_and_keeps_what_it_is_told(tmp_path):
    (tmp_path / "bench.toml").write_text(EXAMPLE.replace("full_well = 10400", ""))
    place = Path(__file__).parents[1] / "configs" / "bench_consistent" / "e2e.py"
    # Refused after the bench was read, before anything is compiled: no --workdir.
    arguments = (f"--config={place}", "--bench=bench.toml", "--config.device.levels=64")
    said = call("train", *arguments, cwd=tmp_path)
    assert said.returncode == 2 and "--workdir" in said.stderr
    assert "--config.device.panel_pixels=8 --config.device.fill_factor=0.93\n" in said.stdout
    assert "levels" not in said.stdout and "does not say camera.full_well" in said.stderr


@pytest.mark.slow
def test_without_photons_the_frame_is_well_exposed(tmp_path):
    """Seen by the camera that `simulate_bench` draws, pixel by pixel."""
    bench = example_bench(tmp_path, EXAMPLE.replace("photons = 1.3e7", ""))
    config = presets.bench(presets.quickstart())
    found, _, (note,) = on_bench(config, bench)
    photons = float(re.findall(r"photons: (\S+) are taken", note)[0])
    for other in ({"seed": 5}, {"regime": "teacher", "masks.snapshots": 4}):  # the same light
        assert on_bench(with_values(config, other), bench)[0].noise == found.noise
    plain = {"vignetting": 0.0, "hot": 0.0, "dead": 0.0, "read_noise": 0.0}
    peaks = []
    for seed in range(5):
        run = untrained(checks.ready(with_values(found, {"seed": seed}))).on_one_device()
        camera = make_bench(run, scale=7.529)._replace(photons=photons, full_well=10400.0, **plain)
        folder = tmp_path / str(seed)
        write_bench(folder, run, blank_image(run.camera)[None], camera, seed=0)
        frame = tifffile.imread(folder / "calibration" / "blank_00.tif")
        peaks.append((frame.max() - 64) / (4095 - 64))  # of what the offset leaves
    # Between samples the pattern may be brighter than at them, and masks differ.
    assert 0.6 < np.median(peaks) < 0.95, peaks
