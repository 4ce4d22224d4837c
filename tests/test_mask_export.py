"""Masks of a trained run as files: what may be asked for, what they hold, what is said of them."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from helpers import rejection
from mask_exports import PANEL, SIZE, lands, tiny
from PIL import Image

from jax_kdpr.lab.masks.export import export_masks, magnify_warning
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.optics.device import DeviceOptions, written_phases
from jax_kdpr.optics.lookup_table import device_table, read_table
from jax_kdpr.optics.mask_files.coding import circle_distance
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.optics.mask_files.reading import read_mask_file, sidecar_path
from jax_kdpr.optics.masks import init_phases


def refusal(format="slm", config=None, **options) -> str:
    return rejection(plan_export, MaskFormat(format=format, **options), config or tiny())


RELIEF = {"format": "height", "wavelength": 6e-7}
PIXELS = {"mask_pitch": 16e-6, "pixel_pitch": 8e-6}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"format": "npy", "panel": PANEL}, "--panel format npy"),
        ({"format": "height", "bits": 10}, "--bits format height"),
        ({"index": 1.5}, "--index format slm"),
        ({"format": "csv", "stack": True}, "--stack csv"),
        ({"format_file": "npy"}, "--format_file npy"),
        ({"panel": (15, 60)}, "--panel 16x16 15x60"),
        (PIXELS | {"mask_pitch": 20e-6}, "--mask_pitch 2.5 --magnify"),
        ({"mask_pitch": 16e-6}, "--pixel_pitch --magnify"),
        (PIXELS | {"magnify": 3}, "--magnify 2 3"),
        (PIXELS | {"magnify": 1}, "--magnify 2 1"),
        ({"rotate": 45}, "--rotate 90 45"),
        ({"tile": True}, "--tile --panel"),
        ({"panel": PANEL, "tile": True, "background": 7}, "--background --tile"),
        ({"panel": PANEL, "background": 256}, "--background [0, 255] 256"),
        ({"panel": PANEL, "background": 4, "table": (0.0, 2.0, 4.0, 6.0)}, "--background [0, 3] 4"),
        ({"format": "height", "index": 1.5}, "--wavelength 635e-9"),
        (RELIEF, "--index --reflection neither"),
        (RELIEF | {"index": 1.5, "reflection": True}, "--index both"),
        (RELIEF | {"reflection": True, "levels": 1}, "--levels [2, 65536] 1"),
    ],
    ids=str,
)
def test_requests_that_are_refused(request_, says):
    message = refusal(**request_)
    assert [words for words in says.split() if words not in message] == [], message


def test_a_device_of_limited_range_is_asked_for_no_more(trained, tmp_path):
    reach = 1.5 * math.pi
    config = tiny(phase_range=reach)
    assert "340" in refusal(config=config)
    assert "--sign" in refusal(config=config, sign="direct", gray_2pi=340)
    drawn = init_phases(jax.random.key(3), snapshots=1, height=SIZE, width=SIZE)
    phases = np.asarray(written_phases(drawn, DeviceOptions(phase_range=reach)))
    plan = plan_export(MaskFormat(format="slm", gray_2pi=340), config)
    (file,) = export_masks(plan, phases, trained, output=tmp_path)
    gray = np.asarray(Image.open(file), float)
    assert gray.max() <= 255
    # What the panel adds, p = -phi, is the nearest of its levels everywhere.
    added = np.exp(2j * np.pi * gray / 340)
    assert np.abs(np.angle(added * np.exp(1j * phases[0]))).max() <= 1.01 * np.pi / 340


def test_a_table_leaves_no_place_for_other_levels():
    table = tuple(level / 100 for level in range(300))
    assert "--bits 9" in refusal(table=table)
    assert "--table" in refusal(table=table[:200], falling=True)
    assert "device.table" in refusal(config=tiny(table=(0.0, 1.0)), gray_2pi=217)


def test_lengths_of_the_run_are_taken_and_not_contradicted():
    config = tiny()
    config.propagation.kind = "fresnel"
    config.propagation.wavelength, config.propagation.pitch = 635e-9, 16e-6
    plan = plan_export(MaskFormat(format="slm", pixel_pitch=8e-6), config)
    assert (plan.wavelength, plan.mask_pitch, plan.magnify) == (635e-9, 16e-6, 2)
    message = refusal(config=config, wavelength=532e-9)
    assert "--wavelength" in message and "6.35e-07" in message


def test_a_mask_pixel_has_the_panel_pixels_it_was_trained_for():
    config = tiny(panel_pixels=6)
    for asked, magnify in (({}, 6), ({"magnify": 2}, 2), (PIXELS, 2)):
        assert plan_export(MaskFormat(format="slm", **asked), config).magnify == magnify
        said = magnify_warning(
            plan_export(MaskFormat(format="slm", **asked), config), config.device
        )
        assert ("--magnify 6" in said) == (magnify != 6)
    assert plan_export(MaskFormat(format="npy"), config).magnify == 0
    plan = plan_export(MaskFormat(format="slm", magnify=6), tiny())  # trained for no panel
    assert not magnify_warning(plan, tiny().device)


def test_the_panel_does_to_light_what_the_operator_does(export, phases):
    paths = export(panel=PANEL, magnify=2, background=200)
    assert [path.name for path in paths] == ["slm-0.png", "slm-1.png", "slm-2.png"]
    for path, mask in zip(paths, phases, strict=True):
        with Image.open(path) as opened:
            panel = np.asarray(opened)
        assert panel.shape == PANEL and panel[0, 0] == 200
        shown = panel[4:36, 14:46]
        light = np.exp(2j * np.pi * shown / 256)  # a panel adds phase: e^{+j p}
        operator = np.repeat(np.repeat(np.exp(-1j * mask), 2, axis=0), 2, axis=1)
        assert np.abs(np.angle(light / operator)).max() < math.pi / 256 + 1e-5


def test_the_sidecar_states_every_convention(export, trained):
    how = {"bits": 10, "falling": True, "sign": "direct", "flip_vertical": True, "rotate": 90}
    path = export(panel=PANEL, **how)[1]
    sidecar = json.loads(sidecar_path(path).read_text())
    assert sidecar["masks_in_file"] == [1] and sidecar["masks_of_run"] == 3
    origin = {"checkpoint_digest": trained.digest, "folder": str(trained.workdir)}
    assert origin.items() <= sidecar["run"].items()
    assert 0 < sidecar["largest_phase_error_rad"] <= math.pi / 1024 + 1e-5
    for words in ("0 to 1023", "p = 2 pi (1023 - g) / 1024", "p = phi", "row 12, column 22"):
        assert words in sidecar["about"]


@pytest.mark.parametrize("format", ["npy", "tiff"])
def test_a_stack_holds_all_masks(export, phases, format):
    (path,) = export(format, stack=True)
    found = read_mask_file(path)
    assert path.name == f"phases.{format}" and found.numbers == [0, 1, 2]
    assert circle_distance(found.phases, phases.astype(float)).max() < 2e-6


@pytest.mark.parametrize("sign", ["conjugate", "direct"])
def test_levels_of_the_run_are_landed_on_exactly(tmp_path, sign):
    path, wanted = lands(tiny(levels=16), tmp_path, sign=sign)
    levels = np.asarray(Image.open(path))
    assert set(np.unique(levels)) <= set(range(0, 256, 16))
    assert circle_distance(read_mask_file(path).phases, wanted.astype(float)).max() < 1e-5
    message = rejection(lands, tiny(levels=10), tmp_path / "new", sign=sign)  # no divisor of 256
    assert "--gray_2pi" in message and not (tmp_path / "new").exists()
    path, wanted = lands(tiny(levels=10), tmp_path / "other", sign=sign, gray_2pi=250)
    assert set(np.unique(np.asarray(Image.open(path)))) <= set(range(0, 250, 25))
    # A panel that reaches 2 pi at gray level 210 is close enough to 256 levels.
    path, wanted = lands(tiny(levels=256), tmp_path / "close", sign=sign, gray_2pi=210)
    distance = circle_distance(read_mask_file(path).phases, wanted.astype(float)).max()
    assert 1e-3 < distance <= 1.01 * math.pi / 210


@pytest.mark.parametrize("sign", ["conjugate", "direct"])
def test_the_table_of_the_run_gives_its_own_gray_levels(tmp_path, sign):
    table = tuple(np.random.default_rng(0).uniform(0, 5.5, 40).tolist())
    path, wanted = lands(tiny(table=table), tmp_path, sign=sign)
    levels = np.asarray(Image.open(path))
    np.testing.assert_allclose(np.array(table)[levels], wanted[0], atol=1e-6)
    assert circle_distance(read_mask_file(path).phases, wanted.astype(float)).max() < 1e-5


def test_a_measured_table_serves_training_and_export(tmp_path):
    file = tmp_path / "slm.csv"
    adds = np.random.default_rng(0).uniform(0, 5.5, 40)
    rows = [f"{gray},{phase}" for gray, phase in enumerate(adds)]
    file.write_text("\n".join(["gray,phase (rad)", *rows]))
    trained_on = device_table(file)
    path, wanted = lands(tiny(table=trained_on), tmp_path / "a", table=read_table(file))
    light = np.exp(1j * adds[np.asarray(Image.open(path))])
    np.testing.assert_allclose(light, np.exp(-1j * wanted[0]), atol=1e-5)
    # Run on what the panel adds as if it were taken away: the default sign would be wrong.
    message = rejection(lands, tiny(table=read_table(file)), tmp_path / "b", table=read_table(file))
    assert "lookup_table.device_table" in message and "--sign direct" in message
    lands(tiny(table=read_table(file)), tmp_path / "b", table=read_table(file), sign="direct")
    # Ideal levels are on no measured panel: the nearest must do.
    path, wanted = lands(tiny(levels=16), tmp_path / "c", table=read_table(file))
    error = json.loads(sidecar_path(path).read_text())["largest_phase_error_rad"]
    assert 0.01 < error < math.pi


def test_files_of_others_stay(export, trained, phases, tmp_path):
    export("npy", stack=True)
    export("npy", stack=True)  # the same run again
    path = tmp_path / "phases.npy"
    before = path.read_bytes()
    plan = plan_export(MaskFormat(format="npy", stack=True), tiny())
    other = dataclasses.replace(trained, digest="another", workdir=tmp_path / "other")
    arguments = {"output": tmp_path}
    message = rejection(export_masks, plan, phases + 1, other, **arguments)
    assert "belongs to the run" in message and "--output" in message
    sidecar_path(path).unlink()
    assert "cannot be read" in rejection(export_masks, plan, phases + 1, other, **arguments)
    assert path.read_bytes() == before
    arguments["output"] = path / "below"
    assert "no folder" in rejection(export_masks, plan, phases, other, **arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["phases.npy"]
