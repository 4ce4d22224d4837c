"""The user's own images: PNG, TIFF and NPY files, and array stacks."""

from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from helpers import image_ids, rejection, same
from oracles import resized
from PIL import Image

from jax_kdpr.data import sources
from jax_kdpr.data.batches import take_batch
from jax_kdpr.data.image_files import Preparation
from jax_kdpr.data.inspection import read_images
from jax_kdpr.data.sources import DataOptions, from_arrays

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
RAMP8 = np.round(RAMP * 255).astype(np.uint8)
RAMP16 = np.round(RAMP * 65535).astype(np.uint16)
STACK = np.random.default_rng(0).random((5, 12, 12)).astype(np.float32)


def read(source, *, subfolders=False, **wanted):
    return read_images(source, Preparation(**{"size": 8} | wanted), subfolders=subfolders)[0]


def picture(pixels, **options):
    return lambda path: Image.fromarray(pixels).save(path, **options)


def tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options)


def npy(pixels):
    return lambda path: np.save(path, pixels)


@pytest.mark.parametrize(
    ("name", "write", "steps"),
    [
        ("a.png", picture(RAMP8), 255),
        ("a.tif", tiff(RAMP16), 65535),
        ("a.npy", npy(RAMP), 1e7),
    ],
)
def test_each_format_keeps_its_grey_levels(tmp_path, name, write, steps):
    write(tmp_path / name)
    (image,) = read(tmp_path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, RAMP, atol=0.51 / steps)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_rgb_becomes_luminance(tmp_path, name):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128]])
    rgb = np.repeat(colours.astype(np.uint8)[:, None], 5, axis=1)
    (picture(rgb) if name == "a.png" else tiff(rgb, photometric="rgb"))(tmp_path / name)
    grey = read(tmp_path, size=5)[0]
    luminance = np.array([0.299, 0.587, 0.114, 1.0, 128 / 255])
    np.testing.assert_allclose(grey, np.repeat(luminance[:, None], 5, axis=1), atol=0.51 / 255)


def test_folder_of_mixed_sizes_and_formats_is_read_by_name(tmp_path):
    Image.fromarray(np.full((30, 12), 51, np.uint8)).save(tmp_path / "b.PNG")
    np.save(tmp_path / "a.npy", RAMP)
    tifffile.imwrite(tmp_path / "c.tiff", np.full((5, 5), 1.0, np.float32))
    (tmp_path / "notes.txt").write_text("not an image")
    one, two, three = read(tmp_path)
    np.testing.assert_array_equal(one, RAMP.astype(np.float32))
    np.testing.assert_allclose(two, 0.2, atol=1e-6)
    np.testing.assert_allclose(three, 1.0, atol=1e-6)


def test_one_file_holds_many_images(tmp_path):
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["one"], file["two"] = STACK[::-1], STACK
    np.testing.assert_array_equal(read(tmp_path / "stack.h5::/two", size=12), STACK)


def test_shrinking_an_image_file_is_antialiased(tmp_path):
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2
    np.save(tmp_path / "a.npy", checkerboard.astype(np.float32))
    small = read(tmp_path, size=16)[0]
    np.testing.assert_allclose(small, 0.5, atol=0.05)  # point sampling gives 0 or 1


@pytest.mark.parametrize("size", [4, 5, 8, 13])
def test_image_files_are_resized_linearly(tmp_path, size):
    image = np.random.default_rng(0).random((8, 11)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    np.testing.assert_allclose(read(tmp_path, size=size)[0], resized(image, size), atol=1e-5)


def test_float_out_of_range_is_refused_and_rescale_stretches_it(tmp_path):
    np.save(tmp_path / "a.npy", RAMP * 300 - 20)
    message = rejection(read, tmp_path)
    assert "a.npy" in message and "data.rescale" in message and "[-20, 280]" in message
    np.testing.assert_allclose(read(tmp_path, rescale=True)[0], RAMP, atol=1e-6)
    np.save(tmp_path / "a.npy", np.full((8, 8), 3.0))
    assert np.all(read(tmp_path, rescale=True) == 0.0)  # a flat one has no NaN


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.array([[0.5, np.nan]] * 2), "finite"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((4, 2, 2), np.uint8), "(4, 2, 2)"),
    ],
)
def test_image_that_cannot_be_used_is_named(tmp_path, image, says):
    np.save(tmp_path / "bad.npy", image)
    message = rejection(read, tmp_path)
    assert "bad.npy" in message and says in message


def test_gaps_in_float_files_are_no_colours(tmp_path):
    """NaN differs from itself."""
    gap = np.where(RAMP == RAMP[2, 3], np.nan, RAMP).astype(np.float32)
    for name, pixels in (("grey.tif", gap), ("rgb.npy", np.stack([gap] * 3, axis=-1))):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        if name.endswith("tif"):
            tifffile.imwrite(folder / name, pixels)
        else:
            np.save(folder / name, pixels)
        assert "not finite numbers" in rejection(read, folder)


def test_a_folder_without_images_or_with_a_stack_is_refused(tmp_path):
    message = rejection(read, tmp_path)
    assert message.startswith("data.dir: ") and ".png" in message
    tifffile.imwrite(tmp_path / "stack.tif", STACK)
    assert "stack.tif" in rejection(read, tmp_path, size=12)


def test_one_image_is_no_stack(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    np.save(tmp_path / "a.npy", colours)
    message = rejection(read, tmp_path / "a.npy", size=4)
    assert "a.npy" in message and "(60, 80, 3)" in message


def load_images(path, **options):
    defaults = {"size": 5, "seed": 0, "validation_fraction": 0.2, "test_fraction": 0.3}
    return sources.load(DataOptions(source="images", dir=str(path), **defaults | options))


@pytest.fixture
def stack(tmp_path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 5), np.uint8)
    np.save(tmp_path / "stack.npy", images)
    return tmp_path / "stack.npy"


def test_more_images_than_memory_holds_are_refused_before_the_first_is_read(tmp_path):
    path = tmp_path / "many.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (10**6, 2, 3, 1))
    message = rejection(read, path, size=1024)
    assert "data.dir, data.size" in message and "7,812.5 GiB" in message  # twice, as float32


def test_images_are_split_by_fraction_and_counts_keep_the_first(stack):
    data = load_images(stack)
    assert [data.train_size, len(data.validation), len(data.test)] == [10, 4, 6]
    originals = read(stack, size=5)
    ids = image_ids([data.train(0), data.validation, data.test], originals)
    assert set.union(*ids) == set(range(20))
    again, other = load_images(stack), load_images(stack, seed=1)
    assert same(data.test, again.test) and data.digest == again.digest
    assert not same(data.test, other.test) and data.digest != other.digest
    fewer = load_images(stack, train_images=3, validation_images=2, test_images=1)
    assert same(fewer.train(0), data.train(0)[:3])
    assert same(fewer.validation, data.validation[:2]) and same(fewer.test, data.test[:1])
    images = np.load(stack)
    images[0, 0, 0] ^= 1  # one pixel
    np.save(stack, images)
    assert load_images(stack).digest != data.digest


def test_splits_and_places_that_cannot_be_are_refused(stack, tmp_path, monkeypatch):
    message = rejection(load_images, stack, validation_fraction=0.6, test_fraction=0.4)
    assert "data.validation_fraction" in message and "data.test_fraction" in message
    np.save(tmp_path / "two.npy", np.zeros((2, 5, 5)))
    message = rejection(load_images, tmp_path / "two.npy")
    assert message.startswith("data.") and "2 image" in message
    variable = sources.DATA_DIR_VARIABLE
    monkeypatch.delenv(variable, raising=False)
    message = rejection(load_images, "")
    assert message.startswith("data.dir: ") and variable in message
    monkeypatch.setenv(variable, "/nowhere/a")
    assert rejection(load_images, "").startswith(f"{variable}: ")
    message = rejection(load_images, "/nowhere/b")  # not from the variable
    assert message.startswith("data.dir: ") and "'/nowhere/b'" in message
    assert variable not in message


def test_what_is_left_aside_or_dark_is_said(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "dark.tif", np.full((12, 12), 4095, np.uint16))
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "._dark.tif").write_bytes(b"of a file manager")
    read(tmp_path, size=12)
    said = capsys.readouterr().err
    assert "1 entries" in said and "1 of 1 images" in said


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_what_is_not_square_is_cropped_or_padded(tmp_path, fit):
    image = np.random.default_rng(0).random((8, 16)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    square = image[:, 4:12] if fit == "crop" else np.pad(image, [(4, 4), (0, 0)])
    (found,) = read(tmp_path, size=len(square), fit=fit)
    np.testing.assert_array_equal(found, square)
    (found,) = read(tmp_path, size=4, fit=fit)
    np.testing.assert_allclose(found, resized(square, 4), atol=1e-5)


def test_phases_in_radians_keep_their_differences(tmp_path, capsys):
    phases = np.random.default_rng(0).uniform(-1.2, 1.5, (3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", phases)
    options = {"unit": "radians", "phase_range": 2.0}
    shown = 3.0 * read(tmp_path / "a.npy", **options | {"phase_range": 3.0})
    np.testing.assert_allclose(shown - shown[0, 0, 0], phases - phases[0, 0, 0], atol=1e-6)
    assert f"{-phases.min():.4g} added" in capsys.readouterr().out
    message = rejection(read, tmp_path / "a.npy", **options)
    assert "scene.phase_range" in message and f"{phases.min():.4g} to {phases.max():.4g}" in message
    np.save(tmp_path / "a.npy", np.abs(phases))
    images = read(tmp_path / "a.npy", **options)
    np.testing.assert_allclose(2.0 * images, np.abs(phases), atol=1e-6)
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    assert "data.unit=radians" in rejection(read, tmp_path / "a.npy", **options)


def test_folders_below_are_searched_on_request(tmp_path):
    for number, name in enumerate(["b/1.npy", "a/c/2.npy", ".hidden/3.npy"]):
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, np.full((8, 8), number / 4))
    assert "data.subfolders" in rejection(read, tmp_path)
    assert read(tmp_path, subfolders=True)[:, 0, 0].tolist() == [0.25, 0.0]


def test_a_line_says_what_was_read(tmp_path, capsys):
    Image.fromarray(np.full((8, 16), 51, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4, 3), (0, 51, 51), np.uint8)).save(tmp_path / "b.png")
    read(tmp_path, phase_range=np.pi)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    for words in ("2 PNG 4 x 4 to 8 x 16, 1 in colour", "0.141 to 0.2 ", "0.444 to 0.628 rad"):
        assert words in said


def test_complex_scenes_are_pairs_that_stay_together(tmp_path, capsys):
    """Phase and amplitude by turns: each pair has a number of its own, whatever the split."""
    numbers = np.arange(40) // 2 / 40
    pages = numbers[:, None, None] + np.where(np.arange(40) % 2, 0.5, 0.0)[:, None, None]
    np.save(tmp_path / "pairs.npy", (pages + np.zeros((40, 12, 12))).astype(np.float32))
    options = DataOptions(source="images", dir=str(tmp_path / "pairs.npy"), size=12)
    data = sources.load(options, channels=2)
    assert data.train_size == 16 and data.test.shape == data.validation.shape == (2, 12, 12, 2)
    scenes = take_batch(data.train(0), jnp.arange(16), size=12, channels=2)
    np.testing.assert_allclose(scenes[..., 1] - scenes[..., 0], 0.5, atol=1e-6)
    said = capsys.readouterr().out
    assert "20 pairs of NPY" in said and "of phase 0 to 0.475, of amplitude 0.5 to 0.975" in said
    assert (
        "phase pairs.npy[0], amplitude pairs.npy[1]" in said or "phase [0], amplitude [1]" in said
    )
    small = take_batch(data.train(0), jnp.arange(3), size=11, channels=2)
    assert small.shape == (3, 11, 11, 2)
    np.save(tmp_path / "pairs.npy", np.zeros((39, 12, 12), np.float32))
    assert "phase and its amplitude" in rejection(sources.load, options, channels=2)
    arrays = {name: np.zeros((3, 12, 12, 2)) for name in ("train", "validation", "test")}
    assert from_arrays(arrays, options).test.shape == (3, 12, 12, 2)


def test_pairs_in_a_folder_have_the_order_of_frames(tmp_path):
    """2 before 10, as those of --truth: the second of each is brighter by a half."""
    for number in range(40):
        value = number // 2 / 40 + 0.5 * (number % 2)
        np.save(tmp_path / f"img{number + 1}.npy", np.full((12, 12), value, np.float32))
    options = DataOptions(source="images", dir=str(tmp_path), size=12)
    scenes = np.asarray(sources.load(options, channels=2).train(0))
    np.testing.assert_allclose(scenes[..., 1] - scenes[..., 0], 0.5, atol=1e-6)
