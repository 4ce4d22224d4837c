"""What a panel shows besides a mask: its light is that of the mask, on a panel that is not flat."""

import json
from unittest import mock

import commands
import numpy as np
import pytest
import tifffile
from helpers import ROOT, rejection
from mask_exports import PANEL, SIZE, shown_by, tiny
from PIL import Image
from scipy.ndimage import gaussian_filter

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.lab.bench_file import Bench, Modulator
from jax_kdpr.lab.masks.export import export_masks
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.lab.masks.shown import (
    Addition,
    ShownOptions,
    _falls,
    add,
    grating_note,
    plan_addition,
)
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.optics.mask_files.reading import read_mask_file, read_phases

SHAPE = (40, 60)
UNEVEN = (
    9 * gaussian_filter(np.random.default_rng(5).standard_normal(SHAPE), 8) / 0.035
)  # radians, several turns
WINDOW = np.s_[4:36, 14:46]  # of a mask of 16 pixels, magnified twice
RISING = np.linspace(0, 6.6, 256)


def corrections(path, falling=False):
    """The maker's bitmap, 256 levels a turn, of what makes the panel of `UNEVEN` flat."""
    turns = (UNEVEN if falling else -UNEVEN) / (2 * np.pi)
    Image.fromarray(np.round(256 * turns).astype(int).astype(np.uint8)).save(path)
    return str(path)


def exported(folder, options, asked):
    config = tiny()
    run, wanted = shown_by(config, folder / "run")
    plan = plan_export(
        MaskFormat(**{"format": "slm", "panel": PANEL, "magnify": 2, **options}), config
    )
    addition = plan_addition(asked, plan, size=SIZE)
    (path,) = export_masks(plan, wanted, run, output=folder, addition=addition)
    return path, wanted[0], plan


FALLING = RISING[::-1]
ROUNDED = 2 * np.pi * np.round(FALLING / (2 * np.pi), 2)  # as written in waves, two decimals
TURNED = {"flip_vertical": True, "rotate": 90}


@pytest.mark.parametrize("kind", ["levels", "floats"])
@pytest.mark.parametrize(
    ("options", "turn", "step"),
    [
        ({}, 256, 256),
        ({"gray_2pi": 217}, 217, 217),
        ({"falling": True}, -256, 256),
        ({"sign": "direct"}, 256, 256),
        ({"tile": True}, 256, 256),
        (TURNED, 256, 256),
        ({"table": tuple(RISING.tolist())}, RISING, 242),
        ({"table": tuple(FALLING.tolist())}, FALLING, 242),
        ({"table": tuple(ROUNDED.tolist())}, ROUNDED, 100),
        ({"table": tuple((ROUNDED % (2 * np.pi)).tolist())}, ROUNDED, 100),
    ],
    ids=lambda value: next(iter(value), "256") if isinstance(value, dict) else "",
)
def test_an_uneven_panel_shows_the_mask_on_a_grating(tmp_path, options, turn, step, kind):
    """The panel adds `UNEVEN` to the phase of its gray level: light is the mask's on a ramp."""
    falls = "falling" in options or (isinstance(turn, np.ndarray) and turn[0] > turn[-1])
    file = tmp_path / "cal.bmp"
    if kind == "floats":
        file = tmp_path / "cal.npy"
        np.save(file, -UNEVEN)
    else:
        corrections(file, falls)
    path, mask, _ = exported(
        tmp_path / "out", options, ShownOptions(correction=str(file), grating=3.0)
    )
    gray = np.asarray(Image.open(path.with_name("shown-0.png"))).astype(int)
    added = turn[gray] if isinstance(turn, np.ndarray) else 2 * np.pi * gray / turn
    sign = -1 if "sign" in options else 1  # "direct": the panel multiplies by e^{-j p}
    light = np.exp(sign * 1j * (added + UNEVEN))
    mask = np.rot90(mask[::-1]) if options is TURNED else mask
    operator = np.kron(np.exp(-1j * mask), np.ones((2, 2)))
    operator = np.tile(operator, (2, 2))[:40, :60] if "tile" in options else operator
    operator = operator * np.exp(sign * 2j * np.pi * np.arange(operator.shape[1]) / 3)
    inside = (light if "tile" in options else light[WINDOW]) / operator
    off = np.angle(inside / inside.mean())  # a constant phase is seen by no camera
    assert np.abs(off).max() < 2.2 * np.pi / step + np.pi / 256
    if "tile" not in options:
        outside = light[:3] / light[0, 0]
        assert np.abs(np.angle(outside)).max() < 4.2 * np.pi / step + np.pi / 128


def test_a_table_with_dead_levels_falls_if_its_phase_does():
    for ends, falls in (((6.2, 0.0), True), ((0.0, 6.2), False)):
        table = np.concatenate([np.full(140, ends[0]), np.linspace(*ends, 116)])
        plan = MaskFormat(format="slm", table=tuple(table.tolist()))
        assert _falls(plan) == falls


def test_the_mask_file_stays_as_it_is_and_the_sidecar_names_what_was_added(tmp_path):
    file = corrections(tmp_path / "cal.bmp")
    alone, *_ = exported(tmp_path / "a", {}, ShownOptions())
    path, *_ = exported(tmp_path / "b", {}, ShownOptions(correction=file))
    assert path.read_bytes() == alone.read_bytes()
    said = json.loads((tmp_path / "b" / "slm-0.png.json").read_text())["shown"]
    assert said["file"] == "shown-0.png" and "cal.bmp" in said["adds"]
    assert said["largest_phase_error_rad"] < 1.01 * np.pi / 256
    # Without a correction, that of an earlier export would be of another mask.
    exported(tmp_path / "b", {}, ShownOptions())
    assert sorted(one.name for one in (tmp_path / "b").glob("*.*")) == [
        *("slm-0.png", "slm-0.png.json")
    ]


def test_files_that_were_not_written_here_stay(tmp_path):
    shown, asked = tmp_path / "shown-0.png", ShownOptions(grating=3.0)
    shown.write_bytes(b"mine")
    assert "not what this command" in rejection(exported, tmp_path, {}, asked)
    shown.unlink()
    exported(tmp_path, {}, asked)
    exported(tmp_path, {}, asked)
    shown.write_bytes(b"changed")
    assert "not what this command" in rejection(exported, tmp_path, {}, asked)
    exported(tmp_path, {}, ShownOptions())  # writes none
    assert shown.read_bytes() == b"changed"


def test_a_killed_export_can_be_repeated(tmp_path, monkeypatch):
    asked = ShownOptions(grating=3.0)
    exported(tmp_path, {}, asked)
    for killed in ("write_json", "write_whole"):
        with monkeypatch.context() as patch:
            module = json_files if killed == "write_json" else whole_files
            patch.setattr(module, killed, mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                exported(tmp_path, {}, ShownOptions(grating=2.5))
        exported(tmp_path, {}, asked)
    assert (tmp_path / "shown-0.png").exists()


def test_a_panel_without_2_pi_gets_the_nearer_end():
    plan = plan_export(MaskFormat(format="slm", gray_2pi=512), tiny())
    rest = Addition(np.full((4, 4), 1.9 * np.pi), "")
    levels, missed = add(np.zeros((4, 4), np.uint8), rest, plan)
    assert not levels.any() and missed == pytest.approx(0.1 * np.pi)


@pytest.mark.parametrize(
    ("asked", "options", "says"),
    [
        ({"correction_2pi": 217}, {}, "--correction_2pi --correction"),
        ({"grating": 1.5}, {}, "--grating 2 1.5 longer"),
        ({"grating": -4.0}, {}, "--grating below 4 -4 shorter"),
        ({"grating": 2.0}, {"magnify": 1, "panel": None}, "--grating magnify"),
        ({"grating": 8.0}, {"format": "npy"}, "--grating slm"),
        ({"correction": "none.bmp"}, {}, "--correction none.bmp"),
        ({"correction": "small.png"}, {}, "40 x 60 5 x 6 file of this panel"),
        ({"correction": "turned.png"}, {}, "60 x 40 transposed x.'"),
        ({"correction": "small.png"}, {"panel": None}, "32 x 32 mask alone --panel"),
        ({"correction": "deep.png"}, {}, "--correction_2pi uint16"),
        ({"correction": "deep.png", "correction_2pi": 1000}, {}, "1000 1023"),
        ({"correction": "floats.npy", "correction_2pi": 256}, {}, "radians"),
        ({"correction": "nan.npy"}, {}, "finite"),
        ({"correction": "gray.npy"}, {}, "whole numbers 255 uint8"),
        ({"correction": "many.npy"}, {}, "one image 2 of"),
    ],
    ids=str,
)
def test_what_cannot_be_added_is_one_line(tmp_path, monkeypatch, asked, options, says):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save("small.png")
    Image.fromarray(np.full(SHAPE, 1023, np.uint16)).save("deep.png")
    np.save("floats.npy", np.zeros(SHAPE))
    Image.fromarray(np.zeros(SHAPE[::-1], np.uint8)).save("turned.png")
    np.save("gray.npy", np.full(SHAPE, 255.0))
    np.save("nan.npy", np.full(SHAPE, np.nan))
    np.save("many.npy", np.zeros((2, *SHAPE)))
    form = {"format": "slm", "panel": PANEL, "magnify": 2} | options
    form = form if form["format"] == "slm" else options
    plan = plan_export(MaskFormat(**form), tiny())
    message = rejection(plan_addition, ShownOptions(**asked), plan, size=SIZE)
    assert [words for words in says.split() if words not in message] == [], message


def test_where_a_grating_sends_the_pattern_is_said():
    """lambda / (period pitch) = 532e-9 / 48e-6, by a lens of 0.2 m; sinc^2(1/6) of the light."""
    panel = Modulator(pixel_pitch=8e-6)
    bench = Bench(wavelength=532e-9, focal_length=0.2, modulator=panel)
    bench.camera.pixel_pitch = 3.45e-6
    said = grating_note(bench, 6.0, 4)
    for words in (
        "11.1 mrad",
        "2.22 mm",
        "643 camera pixels",
        "0.667 of its widths",
        "91%",
        "to larger",
    ):
        assert words in said, said
    assert "to smaller" in grating_note(bench, -6.0, 4)
    assert "to smaller" in grating_note(bench, 6.0, 4, sign="direct")
    assert "mrad" not in grating_note(Bench(), 6.0, 4)


def test_what_was_read_is_said_and_another_level_of_2_pi_is_suspected(tmp_path, capsys):
    plan = plan_export(MaskFormat(format="slm", panel=PANEL, magnify=2), tiny())

    def said(values, **asked):
        Image.fromarray(values).save(tmp_path / "cal.png")
        asked = ShownOptions(correction=str(tmp_path / "cal.png"), **asked)
        plan_addition(asked, plan, size=SIZE)
        return capsys.readouterr()

    turns = -UNEVEN / (2 * np.pi) % 1
    found = said(np.floor(256 * turns).astype(np.uint8))
    assert "40 x 60, uint8, 0 to 255, where 256 is 2 pi" in found.out and not found.err
    scaled = np.floor(205 * turns).astype(np.uint8)
    assert "wraps at gray level 204" in (err := said(scaled).err) and "--correction_2pi 205" in err
    assert not said(scaled, correction_2pi=205).err
    for scale, doubted in ((1 / (2 * np.pi), True), (1.0, False)):  # turns, radians
        np.save(tmp_path / "cal.npy", 2 * np.pi * turns * scale)
        plan_addition(ShownOptions(correction=str(tmp_path / "cal.npy")), plan, size=SIZE)
        assert ("are they radians?" in capsys.readouterr().err) == doubted
    weak = np.round(100 + 30 * UNEVEN / np.abs(UNEVEN).max()).astype(np.uint8)  # it never wraps
    assert not said(weak).err


def test_what_is_shown_is_no_mask_file(tmp_path):
    path, *_ = exported(tmp_path, {}, ShownOptions(grating=3.0))
    shown = path.with_name("shown-0.png")
    for call, arguments in ((read_mask_file, (shown,)), (read_phases, ("masks.file", str(shown)))):
        assert f"give {path}" in rejection(call, *arguments)


@pytest.mark.parametrize(("magnify", "period"), [(4, 6), (8, 12)])
def test_a_grating_makes_a_panel_with_crosstalk_more_like_a_model_without(magnify, period):
    """Amplitudes of a panel sampled 8 times finer than its pixels, blurred by 0.3 of one.

    `train --bench` sets no crosstalk where there is a grating (docs/guides/masks.md).
    """
    size, fine = 16, 8
    mask = np.random.default_rng(0).uniform(0, 2 * np.pi, (size, size))
    panel = np.kron(mask, np.ones((magnify, magnify)))
    sides = 3 * len(panel) * fine  # with the padding
    ramp = 2 * np.pi * np.arange(len(panel)) / period
    half, middle = 3 * size // 2, sides // 2

    def amplitudes(phases, blur, place=0):
        drive = np.kron(np.mod(phases, 2 * np.pi), np.ones((fine, fine)))
        drive = gaussian_filter(drive, blur * fine, mode="nearest") if blur else drive
        field = np.fft.fftshift(np.fft.fft2(np.exp(1j * drive), (sides, sides)))
        columns = np.s_[middle + place - half : middle + place + half]
        return np.abs(field[middle - half : middle + half, columns])

    truth = amplitudes(panel + ramp, 0.3, 3 * len(panel) // period)
    off = {}
    for blur in (0.0, 0.3):
        model = amplitudes(panel, blur)
        scale = np.vdot(model, truth) / np.vdot(model, model)
        off[blur] = np.linalg.norm(scale * model - truth) / np.linalg.norm(truth)
    print(off)  # docs/guides/masks.md has them
    assert off[0.0] < 0.75 * off[0.3] < 0.2


def frame_of(file, uneven, phase, *, period=0.0):
    """A frame of a bench, sampled as finely as its panel: what our model knows nothing of.

    The panel is not flat, the beam is wider than the mask, and 2 % of the light pass unmodulated.
    """
    side, fine, join = 128, 2048, 8
    y, x = np.mgrid[:side, :side] / side - 0.5
    beam = np.exp(-(x**2 + y**2) / 0.6**2)
    panel = 2 * np.pi * np.asarray(Image.open(file)) / 217 + uneven
    shown = np.sqrt(0.98) * np.exp(1j * panel) + np.sqrt(0.02) * np.exp(1j * uneven)
    light = np.ones((side, side), complex)
    light[32:96, 32:96] = np.kron(np.exp(1j * phase), np.ones((4, 4)))
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(beam * light * shown, (fine, fine)))) ** 2
    envelope = np.sinc((np.arange(fine) - fine // 2) / fine) ** 2  # of square panel pixels
    pattern = pattern * envelope * envelope[:, None]
    joined = pattern.reshape(fine // join, join, -1, join).sum(axis=(1, 3))
    middle, moved = fine // join // 2, round(fine / join / period) if period else 0
    seen = joined[middle - 40 : middle + 40, middle + moved - 40 : middle + moved + 40]
    counts = np.clip(3000 * seen / np.percentile(seen, 99.5), 0, 4000)
    return np.random.default_rng(7).poisson(counts).astype(np.uint16)


@pytest.mark.slow
def test_on_a_bench_whose_panel_is_not_flat_what_is_shown_is_recognised(tmp_path, monkeypatch):
    """`calibrate` tells the mask it was given in the frame of what is to be shown, else not."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    uneven = 2 * np.pi * (3 * (x**2 + y**2) + 2 * x * y - 1.5 * x**3 + y)
    np.save("correction.npy", -uneven)
    np.save("mask.npy", np.random.default_rng(6).uniform(0, 2 * np.pi, (16, 16)).astype(np.float32))
    config = [
        f"--config={ROOT}/configs/bench/e2e.py",
        "--config.masks.start=file",
        "--config.masks.file=mask.npy",
        "--config.masks.oversample=1",
        "--config.device.panel_pixels=4",
        "--config.device.crosstalk=0",
        "--config.device.zero_order=0",
        "--config.data.size=16",
    ]
    panel = ["--format=slm", "--panel=128x128", "--magnify=4", "--gray_2pi=217"]
    (tmp_path / "bench.toml").write_text(
        "[modulator]\npanel = [128, 128]\nmagnify = 4\ngray_2pi = 217\n"
        'correction = "correction.npy"\ngrating = 6\n'
    )
    asked = {
        "nothing": panel,
        "correction": [*panel, "--correction=correction.npy"],
        "both": ["--format=slm", "--bench=bench.toml"],
    }
    # Without --bench and --magnify a mask pixel has the panel pixels of the config.
    alone = ["--format=slm", "--gray_2pi=217", "--output=alone"]
    assert "4 x 4 pixels show one" in commands.call("export_mask", *config, *alone).stdout
    scores, trusted = {}, {}
    for name, flags in asked.items():
        assert commands.call("export_mask", *config, *flags, f"--output={name}").returncode == 0
        file = f"{name}/{'slm' if name == 'nothing' else 'shown'}-0.png"
        period = 6.0 if name == "both" else 0.0
        tifffile.imwrite(f"{name}.tif", frame_of(file, uneven, np.zeros((16, 16)), period=period))
        commands.call(
            "calibrate", *config, f"--input={name}.tif", "--scale=4", f"--output={name}.json"
        )
        found = json.loads((tmp_path / f"{name}.json").read_text())
        scores[name], trusted[name] = found["score"], found["trusted"]
    print(scores)  # docs/guides/masks.md has them
    assert trusted == {"nothing": False, "correction": False, "both": True}
    assert scores["both"] > 0.85 > 0.7 > max(scores["nothing"], scores["correction"])
