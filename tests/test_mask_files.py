"""From phases to files and back: values from the formulae of panels and reliefs; round trips."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import rejection
from PIL import Image

from jax_kdpr.core.options import changed, shallow
from jax_kdpr.lab.masks.export import file_bytes
from jax_kdpr.optics.mask_files.coding import (
    circle_distance,
    decode,
    encode,
)
from jax_kdpr.optics.mask_files.format import MaskFormat
from jax_kdpr.optics.mask_files.layout import pick, place
from jax_kdpr.optics.mask_files.reading import read_mask_file, sidecar_path

TURN = 2 * math.pi
# Neither monotone nor a whole turn: 0.2 to 5.1 radians.
MEASURED = tuple((0.2 + 4.9 * np.random.default_rng(3).permutation(200) / 199).tolist())


def slm(**options) -> MaskFormat:
    return MaskFormat(format="slm", **options)


def height(**options) -> MaskFormat:
    return MaskFormat(format="height", **options)


def random_mask(height=6, width=5) -> np.ndarray:
    # Beyond one turn on both sides, as trained phases are.
    return np.random.default_rng(0).uniform(-7, 13, (height, width))


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("sign", ["conjugate", "direct"])
@pytest.mark.parametrize("falling", [False, True])
def test_levels_divide_the_circle(bits, sign, falling):
    coding = slm(sign=sign, bits=bits, falling=falling)
    mask = random_mask(40, 40)
    levels = encode(mask, coding)
    assert levels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert levels.max() < 2**bits  # right-justified where the container is larger
    # The panel adds 2 pi g / 2^bits, or as slmsuite has it 2 pi (2^bits - 1 - g) / 2^bits.
    g = levels.astype(float)
    shown = (2**bits - 1 - g if falling else g) * TURN / 2**bits
    light = np.exp(1j * shown) if sign == "conjugate" else np.exp(-1j * shown)
    assert np.abs(np.angle(light / np.exp(-1j * mask))).max() < math.pi / 2**bits + 3e-6
    assert circle_distance(decode(levels, coding), mask).max() < math.pi / 2**bits + 3e-6


@pytest.mark.parametrize(
    ("gray_2pi", "turns", "levels"),
    [
        (256, [0.999999, 255.49 / 256, 255.51 / 256, 0.51 / 256, -1e-9], [0, 255, 0, 1, 0]),
        (217, [0.999999, 216.49 / 217, 216.51 / 217, 0.51 / 217, -1e-9], [0, 216, 0, 1, 0]),
        (320, [0.85, 0.95], [255, 0]),  # 0.8 of a turn: what lies in the gap goes to its nearer end
    ],
)
def test_a_turn_may_end_below_or_above_the_last_level(gray_2pi, turns, levels):
    coding = slm(sign="direct", gray_2pi=gray_2pi)
    assert encode(np.array([turns]) * TURN, coding).tolist() == [levels]


@pytest.mark.parametrize(("sign", "factor"), [("conjugate", -1), ("direct", 1)])
def test_a_measured_table_gives_the_nearest_phase_on_the_circle(sign, factor):
    mask, coding = random_mask(30, 30), slm(sign=sign, table=MEASURED)
    distance = np.abs(np.angle(np.exp(1j * (factor * mask[..., None] - np.array(MEASURED)))))
    chosen = encode(mask, coding)
    found = np.take_along_axis(distance, chosen[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(found, distance.min(axis=-1), atol=1e-5)
    np.testing.assert_allclose(circle_distance(decode(chosen, coding), mask), found, atol=1e-9)
    levels = np.random.default_rng(1).permutation(200).reshape(10, 20)
    np.testing.assert_array_equal(encode(factor * np.array(MEASURED)[levels], coding), levels)
    assert "200" in rejection(decode, np.array([[3, 200]], np.uint8), coding)
    assert "float64" in rejection(decode, np.array([[0.5]]), coding)


def test_etch_levels_are_distinct_heights_on_the_circle():
    coding = height(sign="direct", wavelength=1e-6, index=1.5, levels=4)
    phases = np.array([[0.1, 0.9, 2.3, 3.3, 4.6, 6.2]])
    expected = np.array([[0, 1, 1, 2, 3, 0]]) * 2e-6 / 4
    np.testing.assert_allclose(encode(phases, coding), expected, rtol=1e-6)


@pytest.mark.parametrize("index", [1.46, 0.0])
def test_light_behind_a_relief_is_what_the_operator_makes_of_it(index):
    """By the length of its path, e^{j k z}: through the material, or up to the surface and back."""
    wavelength, phases = 6e-7, np.random.default_rng(0).uniform(0, 2 * np.pi, (4, 5))
    coding = height(wavelength=wavelength, index=index, reflection=not index)
    relief = encode(phases, coding).astype(float)
    turn = wavelength / (index - 1 if index else 2)
    assert relief.min() >= 0 and relief.max() < turn
    direct = encode(phases, changed(coding, sign="direct"))
    added = phases if index else -phases  # a mirror's surface nearer to the light takes phase away
    np.testing.assert_allclose(direct, added % TURN * turn / TURN, rtol=1e-5)
    top, k = 1e-5, 2 * np.pi / wavelength
    path = index * relief + (top - relief) if index else 2 * (top - relief)
    light = np.exp(1j * k * path) / np.exp(-1j * phases)
    np.testing.assert_allclose(light, light[0, 0], atol=1e-4)  # up to a constant phase
    np.testing.assert_allclose(circle_distance(decode(relief, coding), phases), 0.0, atol=1e-5)


def test_orientation_is_stated_row_0_at_the_top():
    mask = np.array([[1, 2, 3], [4, 5, 6]])
    assert place(mask, slm(flip_vertical=True)).tolist() == [[4, 5, 6], [1, 2, 3]]
    assert place(mask, slm(flip_horizontal=True)).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert place(mask, slm(rotate=90)).tolist() == [[3, 6], [2, 5], [1, 4]]
    # Flips come first.
    assert place(mask, slm(flip_vertical=True, rotate=90)).tolist() == [[6, 3], [5, 2], [4, 1]]


def test_place_on_the_panel():
    mask = np.array([[1, 2]])
    expected = np.full((5, 6), 9)
    expected[1:3, 1:5] = [1, 1, 2, 2]
    centred = slm(magnify=2, panel=(5, 6), background=9)
    np.testing.assert_array_equal(place(mask, centred), expected)
    assert place(mask, slm(panel=(2, 5), tile=True)).tolist() == [[1, 2, 1, 2, 1]] * 2


@pytest.mark.parametrize(
    "placed",
    [
        {},
        {"magnify": 3},
        *({"magnify": 2, "panel": (21, 30), "tile": way} for way in (False, True)),
    ],
)
def test_what_is_placed_is_found_again(placed):
    mask = np.random.default_rng(0).integers(0, 256, (6, 5))
    names = ("flip_vertical", "flip_horizontal", "rotate")
    for turn in itertools.product((False, True), (False, True), (0, 90, 180, 270)):
        layout = slm(**dict(zip(names, turn, strict=True)), **placed, background=7)
        np.testing.assert_array_equal(pick(place(mask, layout), layout, (6, 5)), mask)


def test_a_mask_that_does_not_lie_there_is_refused():
    layout = slm(magnify=3, panel=(40, 40))
    pixels = place(np.arange(30).reshape(6, 5), layout)
    assert "differ" in rejection(pick, np.roll(pixels, 1, axis=1), layout, (6, 5))
    assert "40 x 40 pixels" in rejection(pick, pixels[:39], layout, (6, 5))
    tiled = slm(panel=(40, 40), tile=True)
    pixels = place(np.arange(30).reshape(6, 5), tiled)
    pixels[20, 20] += 1  # outside the first copy
    assert "differ" in rejection(pick, pixels, tiled, (6, 5))


def save(path, mask, of) -> Path:
    """Writes a mask, and the least that a sidecar must say."""
    path.write_bytes(file_bytes(place(encode(mask, of), of), path.suffix))
    sidecar = {"format": shallow(of), "masks_in_file": [0], "mask_shape": list(mask.shape)}
    sidecar_path(path).write_text(json.dumps(sidecar))
    return path


PANEL = {"flip_horizontal": True, "rotate": 90, "magnify": 2, "panel": (30, 40)}
FILES = {
    "8 bit png": ("m.png", slm(**PANEL), math.pi / 256),
    "8 bit bmp": ("m.bmp", slm(format_file="bmp", **PANEL), math.pi / 256),
    "10 bit png": ("m.png", slm(bits=10, **PANEL), math.pi / 1024),
    "16 bit png": ("m.png", slm(bits=16, **PANEL), math.pi / 2**16),
    "10 bit tiff": ("m.tiff", slm(bits=10, **PANEL), math.pi / 1024),
    "falling": ("m.png", slm(falling=True, **PANEL), math.pi / 256),
    "table": ("m.png", slm(sign="direct", table=MEASURED, **PANEL), 0.7),  # the gap's half
    "height tiff": ("m.tiff", height(wavelength=6e-7, index=1.5), 0),
    "height csv": ("m.csv", height(wavelength=6e-7, reflection=True, rotate=180), 0),
    "height npy": ("m.npy", height(wavelength=6e-7, index=2.0, sign="direct"), 0),
    "etched": ("m.tiff", height(wavelength=6e-7, reflection=True, levels=16), math.pi / 16),
    "phase npy": ("m.npy", MaskFormat(format="npy", flip_vertical=True), 0),
    "phase csv": ("m.csv", MaskFormat(format="csv", sign="direct"), 0),
    "phase tiff": ("m.tiff", MaskFormat(format="tiff", rotate=270), 0),
}


@pytest.mark.parametrize("name", FILES)
def test_file_and_sidecar_give_the_mask_back(tmp_path, name):
    file, of, error = FILES[name]
    mask = random_mask()
    found = read_mask_file(save(tmp_path / file, mask, of))
    assert found.numbers == [0] and found.phases.shape == (1, 6, 5)
    assert circle_distance(found.phases[0], mask).max() < error + 3e-6


def test_phases_stay_below_a_turn_in_float32():
    direct = MaskFormat(format="npy", sign="direct")
    values = encode(np.array([[TURN - 1e-9, -1e-12, 1.0]]), direct)
    assert values.dtype == np.float32 and values.tolist() == [[0, 0, 1]]


def test_other_programs_see_what_is_meant(tmp_path):
    mask = np.array([[0.0, TURN / 4], [TURN / 2, 3 * TURN / 4]])
    png, tiff = (
        save(tmp_path / f"m.{end}", mask, slm(sign="direct", bits=10)) for end in ("png", "tiff")
    )
    csv = save(tmp_path / "m.csv", mask, MaskFormat(format="csv", sign="direct"))
    with Image.open(png) as opened:
        assert opened.mode == "I;16" and np.asarray(opened).tolist() == [[0, 256], [512, 768]]
    assert tifffile.imread(tiff).tolist() == [[0, 256], [512, 768]]
    np.testing.assert_allclose(np.loadtxt(csv, delimiter=","), mask, rtol=1e-6)


def test_damaged_files_are_one_line(tmp_path):
    path = save(tmp_path / "m.npy", random_mask(), MaskFormat(format="npy"))
    values = np.load(path)
    np.save(path, np.stack([values, values]))
    assert "1 mask(s)" in rejection(read_mask_file, path)
    np.save(path, np.where(values == values[0, 0], np.nan, values))
    assert "NaN" in rejection(read_mask_file, path)
    path.write_bytes(b"no array")
    assert "m.npy" in rejection(read_mask_file, path)
    sidecar_path(path).unlink()
    assert "m.npy.json" in rejection(read_mask_file, path)
