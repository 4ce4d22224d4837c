"""The user's own images: PNG, TIFF and NPY files, and array stacks."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from helpers import image_ids, rejection, same
from oracles import resized
from PIL import Image

from jax_kdpr.core.choices import Fit, Unit
from jax_kdpr.data import sources
from jax_kdpr.data.image_files import Preparation, read_images


def read(source, *, subfolders=False, **wanted):
    return read_images(source, Preparation(**wanted), subfolders=subfolders)[0]


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def write_png8(path):
    Image.fromarray(np.round(RAMP * 255).astype(np.uint8)).save(path / "a.png")


def write_png16(path):
    Image.fromarray(np.round(RAMP * 65535).astype(np.uint16)).save(path / "a.png")


def write_tiff(dtype, scale):
    def write(path):
        values = np.round(RAMP * scale) if scale > 1 else RAMP
        tifffile.imwrite(path / "a.tif", values.astype(dtype))

    return write


def write_npy(dtype, scale):
    def write(path):
        values = np.round(RAMP * scale) if scale > 1 else RAMP
        np.save(path / "a.npy", values.astype(dtype))

    return write


@pytest.mark.parametrize(
    ("write", "steps"),
    [
        (write_png8, 255),
        (write_png16, 65535),
        (write_tiff(np.uint8, 255), 255),
        (write_tiff(np.uint16, 65535), 65535),
        (write_tiff(np.float32, 1), 1e7),
        (write_npy(np.uint8, 255), 255),
        (write_npy(np.uint16, 65535), 65535),
        (write_npy(np.float64, 1), 1e7),
    ],
)
def test_each_format_keeps_its_grey_levels(tmp_path, write, steps):
    write(tmp_path)
    images = read(tmp_path, size=8)
    assert images.dtype == np.float32 and images.shape == (1, 8, 8)
    np.testing.assert_allclose(images[0], RAMP, atol=0.51 / steps)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_rgb_becomes_luminance(tmp_path, name):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128]])
    rgb = np.repeat(colours.astype(np.uint8)[:, None], 5, axis=1)
    if name == "a.png":
        Image.fromarray(rgb).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, rgb, photometric="rgb")
    grey = read(tmp_path, size=5)[0]
    luminance = np.array([0.299, 0.587, 0.114, 1.0, 128 / 255])
    np.testing.assert_allclose(grey, np.repeat(luminance[:, None], 5, axis=1), atol=0.51 / 255)


def test_folder_of_mixed_sizes_and_formats_is_read_by_name(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(np.full((30, 12), 51, np.uint8)).save(tmp_path / "b.PNG")
    np.save(tmp_path / "a.npy", rng.random((8, 8)))
    tifffile.imwrite(tmp_path / "c.tiff", np.full((5, 5), 1.0, np.float32))
    (tmp_path / "notes.txt").write_text("not an image")
    images = read(tmp_path, size=8)
    assert images.shape == (3, 8, 8)
    np.testing.assert_array_equal(images[0], np.load(tmp_path / "a.npy").astype(np.float32))
    np.testing.assert_allclose(images[1], 0.2, atol=1e-6)
    np.testing.assert_allclose(images[2], 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["stack.npy", "stack.npz"])
def test_one_array_file_holds_many_images(tmp_path, name):
    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    np.save(tmp_path / name, stack) if name == "stack.npy" else np.savez(tmp_path / name, stack)
    images = read(tmp_path / name, size=8)
    np.testing.assert_allclose(images, stack / 255, atol=1e-6)


def test_shrinking_an_image_file_is_antialiased(tmp_path):
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2
    np.save(tmp_path / "a.npy", checkerboard.astype(np.float32))
    small = read(tmp_path, size=16)[0]
    np.testing.assert_allclose(small, 0.5, atol=0.05)  # point sampling gives 0 or 1


@pytest.mark.parametrize("size", [4, 5, 8, 13])
def test_image_files_are_resized_linearly(tmp_path, size):
    image = np.random.default_rng(0).random((8, 11)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    small = read(tmp_path, size=size)[0]
    np.testing.assert_allclose(small, resized(image, size), atol=1e-5)


def test_float_out_of_range_is_refused_and_rescale_stretches_it(tmp_path):
    np.save(tmp_path / "a.npy", RAMP * 300 - 20)
    message = rejection(read, tmp_path, size=8)
    assert "a.npy" in message and "data.rescale" in message and "[-20, 280]" in message
    stretched = read(tmp_path, size=8, rescale=True)[0]
    np.testing.assert_allclose(stretched, RAMP, atol=1e-6)


def test_rescale_leaves_no_nan_in_a_flat_image(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 8), 3.0))
    assert np.all(read(tmp_path, size=8, rescale=True) == 0.0)


def write_noise(path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    if path.suffix == ".png":
        Image.fromarray(noise).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, noise, compression="zlib")
    else:
        np.save(path, noise)


@pytest.mark.parametrize("name", ["bad.png", "bad.tif", "bad.npy"])
@pytest.mark.parametrize("kept", [0.0, 0.002, 0.04, 0.5, 0.9])
def test_truncated_image_is_named(tmp_path, name, kept):
    write_noise(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    assert name in rejection(read, tmp_path, size=8)


@pytest.mark.parametrize("name", ["bad.png", "bad.tif", "bad.npy", "bad.npz"])
@pytest.mark.parametrize("content", [b"this is no image" * 8, b"PK\3\4" + b"\1" * 99])
def test_foreign_bytes_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    source = tmp_path / name if name == "bad.npz" else tmp_path
    assert name in rejection(read, source, size=8)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.array([[0.5, np.nan]] * 2), "finite"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((4, 2, 2), np.uint8), "(4, 2, 2)"),
        (np.zeros(4, np.uint8), "(4,)"),
        (np.zeros((0, 4), np.uint8), "(0, 4)"),
    ],
)
def test_image_that_cannot_be_used_is_named(tmp_path, image, says):
    np.save(tmp_path / "bad.npy", image)
    message = rejection(read, tmp_path, size=8)
    assert "bad.npy" in message and says in message


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "bad.npy" in rejection(read, tmp_path, size=8)


def test_no_images_at_all(tmp_path):
    message = rejection(read, tmp_path, size=8)
    assert message.startswith("data.dir: ") and ".png" in message


def test_array_files_that_are_no_stack(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4, 4)), b=np.zeros((2, 4, 4)))
    message = rejection(read, tmp_path / "two.npz", size=4)
    assert "two.npz" in message and "one array" in message
    for name, array in (("flat", np.zeros((4, 4))), ("none", np.zeros((0, 4, 4)))):
        np.save(tmp_path / f"{name}.npy", array)
        message = rejection(read, tmp_path / f"{name}.npy", size=4)
        assert f"{name}.npy" in message and str(array.shape) in message


def load_images(path, **options):
    defaults = {"size": 5, "seed": 0, "validation_fraction": 0.2, "test_fraction": 0.3}
    return sources.load(source="images", dir=str(path), **defaults | options)


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


def test_images_are_split_by_fraction(stack):
    data = load_images(stack)
    assert [data.train_size, len(data.validation), len(data.test)] == [10, 4, 6]
    originals = read(stack, size=5)
    ids = image_ids([data.train(0), data.validation, data.test], originals)
    assert set.union(*ids) == set(range(20))
    again, other = load_images(stack), load_images(stack, seed=1)
    assert same(data.test, again.test) and data.digest == again.digest
    assert not same(data.test, other.test) and data.digest != other.digest


def test_digest_tells_one_changed_pixel(stack):
    before = load_images(stack).digest
    images = np.load(stack)
    images[0, 0, 0] ^= 1
    np.save(stack, images)
    assert load_images(stack).digest != before


def test_image_counts_keep_the_first_of_each_split(stack):
    data = load_images(stack)
    fewer = load_images(stack, train_images=3, validation_images=2, test_images=1)
    assert same(fewer.train(0), data.train(0)[:3])
    assert same(fewer.validation, data.validation[:2]) and same(fewer.test, data.test[:1])


def test_too_few_images_for_three_splits(tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((2, 5, 5)))
    message = rejection(load_images, tmp_path / "two.npy")
    assert message.startswith("data.") and "2 image" in message


def test_fractions_that_leave_nothing_to_train_on(stack):
    message = rejection(load_images, stack, validation_fraction=0.6, test_fraction=0.4)
    assert "data.validation_fraction" in message and "data.test_fraction" in message
    assert "lower" in message


def test_images_need_a_folder(monkeypatch):
    monkeypatch.delenv(sources.DATA_DIR_VARIABLE, raising=False)
    message = rejection(load_images, "")
    assert message.startswith("data.dir: ") and sources.DATA_DIR_VARIABLE in message


def test_what_names_a_folder_that_is_not_there_is_named(monkeypatch):
    """Its variable only where the folder comes from there."""
    monkeypatch.setenv(sources.DATA_DIR_VARIABLE, "/nowhere/a")
    assert rejection(load_images, "").startswith(f"{sources.DATA_DIR_VARIABLE}: ")
    message = rejection(load_images, "/nowhere/b")
    assert message == "data.dir: no file or folder '/nowhere/b'; give its path"


def write_plain(path):
    Image.fromarray(np.round(RAMP * 255).astype(np.uint8)).save(path)


def write_lzw(path):
    Image.fromarray(np.round(RAMP * 255).astype(np.uint8)).save(path, compression="tiff_lzw")


def write_white_is_zero(path):
    levels = 65535 - np.round(RAMP * 65535).astype(np.uint16)
    tifffile.imwrite(path, levels, photometric="miniswhite")


def write_inverted_palette(path):
    image = Image.fromarray(np.round((1 - RAMP) * 255).astype(np.uint8), mode="L").convert("P")
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    image.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("lzw.tif", write_lzw),
        ("white.tif", write_white_is_zero),
        ("palette.tif", write_inverted_palette),
        ("palette.png", write_inverted_palette),
        ("plain.bmp", write_plain),
    ],
)
def test_common_variants_of_formats_keep_their_grey_levels(tmp_path, name, write):
    write(tmp_path / name)
    (image,) = read(tmp_path, size=8)
    np.testing.assert_allclose(image, RAMP, atol=0.5 / 255 + 1e-6)


def test_a_tiff_stack_is_many_images(tmp_path):
    stack = np.random.default_rng(0).random((5, 12, 12)).astype(np.float32)
    tifffile.imwrite(tmp_path / "stack.tif", stack)
    np.testing.assert_array_equal(read(tmp_path / "stack.tif", size=12), stack)
    first, *others = [Image.fromarray(image) for image in stack]
    first.save(tmp_path / "stack.tif", compression="tiff_lzw", save_all=True, append_images=others)
    np.testing.assert_array_equal(read(tmp_path / "stack.tif", size=12), stack)
    assert "give the stack itself" in rejection(read, tmp_path, size=12)


def test_what_is_left_aside_or_dark_is_said(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "dark.tif", np.full((12, 12), 4095, np.uint16))
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "._dark.tif").write_bytes(b"of a file manager")
    read(tmp_path, size=12)
    said = capsys.readouterr().err
    assert "1 entries" in said and "1 of 1 images never exceed" in said


@pytest.mark.parametrize(
    ("fit", "wanted"),
    [
        ("crop", lambda image: image[:, 4:12]),
        ("pad", lambda image: np.pad(image, [(4, 4), (0, 0)])),
    ],
)
def test_what_is_not_square_is_cropped_or_padded(tmp_path, fit, wanted):
    image = np.random.default_rng(0).random((8, 16)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    square = wanted(image)
    (found,) = read(tmp_path, size=len(square), fit=Fit(fit))
    np.testing.assert_array_equal(found, square)
    (found,) = read(tmp_path, size=4, fit=Fit(fit))
    np.testing.assert_allclose(found, resized(square, 4), atol=1e-5)


def test_phases_in_radians_keep_their_differences(tmp_path, capsys):
    phases = np.random.default_rng(0).uniform(-1.2, 1.5, (3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", phases)
    options = {"size": 8, "unit": Unit.RADIANS}
    images = read(tmp_path / "a.npy", **options, phase_range=3.0)
    shown = 3.0 * images
    np.testing.assert_allclose(shown - shown[0, 0, 0], phases - phases[0, 0, 0], atol=1e-6)
    assert f"{-phases.min():.4g} added to all" in capsys.readouterr().out
    message = rejection(read, tmp_path / "a.npy", **options, phase_range=2.0)
    assert "scene.phase_range" in message and f"{phases.min():.4g} to {phases.max():.4g}" in message
    np.save(tmp_path / "a.npy", np.abs(phases))
    images = read(tmp_path / "a.npy", **options, phase_range=2.0)
    np.testing.assert_allclose(2.0 * images, np.abs(phases), atol=1e-6)
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    message = rejection(read, tmp_path / "a.npy", **options, phase_range=2.0)
    assert "data.unit=radians" in message and "float .tif" in message


def test_folders_below_are_searched_on_request(tmp_path):
    for number, name in enumerate(["b/1.npy", "a/c/2.npy", ".hidden/3.npy"]):
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, np.full((8, 8), number / 4))
    assert "data.subfolders" in rejection(read, tmp_path, size=8)
    images = read(tmp_path, size=8, subfolders=True)
    assert images[:, 0, 0].tolist() == [0.25, 0.0]


def test_a_line_says_what_was_read(tmp_path, capsys):
    Image.fromarray(np.full((8, 16), 51, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4, 3), (0, 51, 51), np.uint8)).save(tmp_path / "b.png")
    read(tmp_path, size=8, phase_range=np.pi)
    assert capsys.readouterr().out == (
        "data: 2 PNG 4 x 4 to 8 x 16, 1 in colour made grey -> 8 x 8 (stretch), "
        "values 0.141 to 0.2 (mean 0.17) = 0.444 to 0.628 rad\n"
    )


def test_a_colour_image_is_one_image_and_no_stack(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    np.save(tmp_path / "a.npy", colours)
    for name in ("a.tif", "a.npy"):
        assert "(60, 80, 3)" in rejection(read, tmp_path / name, size=8)


def test_images_lie_in_hdf5(tmp_path):
    stack = np.random.default_rng(0).random((5, 12, 12)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = stack, stack[::-1]
    np.testing.assert_array_equal(read(Path(f"{tmp_path}/a.h5::/two"), size=12), stack[::-1])
