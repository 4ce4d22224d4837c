"""Where images come from: procedural scenes, Fashion-MNIST, image files; and batches of them."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from skimage.morphology import convex_hull_image

from jax_kdpr.data import fashion_mnist, sources
from jax_kdpr.data.batches import epoch_order, take_batch
from jax_kdpr.data.image_files import read_images
from jax_kdpr.data.scenes import BLOCK, draw_scenes
from jax_kdpr.errors import InputError

FASHION_MNIST = os.environ.get(sources.DATA_DIR_VARIABLE)
needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST, reason=f"{sources.DATA_DIR_VARIABLE} is not set"
)


def rejection(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def same(one, other) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def triangle_matrix(old: int, new: int) -> np.ndarray:
    """Linear resizing of a row of pixels as a matrix, antialiased where it shrinks."""
    width = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    distance = np.abs(np.arange(old)[None] - centres[:, None]) / width
    weights = np.maximum(1.0 - distance, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(image: np.ndarray, new: int) -> np.ndarray:
    rows, columns = (triangle_matrix(old, new) for old in image.shape)
    return rows @ image @ columns.T


# Procedural scenes


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return np.asarray(draw_scenes(jax.random.key(0), count=128, size=32))


def test_scenes_depend_on_the_key_alone(scenes):
    more = draw_scenes(jax.random.key(0), count=BLOCK + 20, size=32)
    assert more.shape == (BLOCK + 20, 32, 32)
    assert same(more[:128], scenes)
    other = draw_scenes(jax.random.key(1), count=128, size=32)
    assert np.abs(np.asarray(other) - scenes).max(axis=(1, 2)).min() > 0.1


def test_scenes_are_all_different(scenes):
    assert len({scene.tobytes() for scene in scenes}) == len(scenes)


def test_scenes_show_one_object_on_an_empty_background(scenes):
    assert scenes.min() >= 0.0 and scenes.max() <= 1.0
    body = scenes > 0.05
    area = body.mean(axis=(1, 2))
    assert area.min() > 0.1 and area.max() < 0.7
    assert (scenes < 1e-3).mean(axis=(1, 2)).min() > 0.25
    assert scenes.max(axis=(1, 2)).min() > 0.4


def test_scenes_have_sharp_edges(scenes):
    step = np.abs(np.diff(scenes, axis=2)).max(axis=(1, 2))
    assert step.min() > 0.3
    blobs = ndimage.gaussian_filter(scenes, (0, 2, 2))
    assert np.abs(np.diff(blobs, axis=2)).max() < 0.3  # what the bound above tells apart


def test_scenes_have_holes_and_dents(scenes):
    body = scenes > 0.05
    holes = [ndimage.binary_fill_holes(one).sum() - one.sum() for one in body]
    assert 0.2 < np.mean(np.array(holes) >= 4) < 0.8
    solidity = [one.sum() / convex_hull_image(one).sum() for one in body]
    assert np.median(solidity) < 0.92  # a disc or a convex blob has 1


def test_scenes_have_texture_inside(scenes):
    inner = [ndimage.binary_erosion(one > 0.05, iterations=2) for one in scenes]
    spread = [one[core].std() for one, core in zip(scenes, inner, strict=True) if core.any()]
    assert np.percentile(spread, 10) > 0.04


def test_scenes_have_fine_detail(scenes):
    frequency = np.fft.fftfreq(32)
    fine = np.hypot(frequency[:, None], frequency) > 0.15  # cycles a pixel

    def share(images):
        power = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
        return np.median(power[:, fine].sum(axis=1) / power.sum(axis=(1, 2)))

    assert share(scenes) > 0.06
    assert share(ndimage.gaussian_filter(scenes, (0, 2, 2))) < 0.02


def load_scenes(**options):
    defaults = {"train_images": 8, "validation_images": 8, "test_images": 8, "seed": 3}
    return sources.load(source="scenes", size=32, **defaults | options)


def test_scenes_are_fresh_every_epoch_and_never_seen_in_validation():
    data = load_scenes()
    assert same(data.train(0), data.train(0))
    assert same(data.train(1), load_scenes().train(1))
    sets = [data.train(0), data.train(1), data.validation, data.test]
    images = [image.tobytes() for images in sets for image in np.asarray(images)]
    assert len(set(images)) == len(images) == 32


def test_scenes_differ_by_seed_and_digests_tell():
    data = load_scenes()
    assert data.digest == load_scenes().digest
    assert not same(data.test, load_scenes(seed=4).test)
    others = [load_scenes(seed=4), load_scenes(test_images=9), load_scenes(train_images=9)]
    assert len({data.digest, *(other.digest for other in others)}) == 4


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_scenes_need_a_count(split):
    message = rejection(load_scenes, **{f"{split}_images": 0})
    assert message.startswith(f"data.{split}_images: ")


# Fashion-MNIST


def write_idx(path: Path, images: np.ndarray, *, magic: int = 2051) -> tuple[str, int]:
    """Writes a gzipped IDX file; returns its (MD5, number of images)."""
    packed = gzip.compress(struct.pack(">IIII", magic, *images.shape) + images.tobytes())
    path.write_bytes(packed)
    return hashlib.md5(packed).hexdigest(), len(images)


@pytest.fixture
def small_folder(tmp_path, monkeypatch):
    """A folder laid out like Fashion-MNIST, with few images: (folder, train, test)."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (12, 4))
    names = list(fashion_mnist.FILES)
    facts = [write_idx(tmp_path / names[0], train), write_idx(tmp_path / names[1], test)]
    monkeypatch.setattr(fashion_mnist, "FILES", dict(zip(names, facts, strict=True)))
    return tmp_path, train, test


def test_idx_files_are_read_as_they_are(small_folder):
    folder, train, test = small_folder
    read = fashion_mnist.read_folder(folder)
    assert same(read[0], train) and same(read[1], test)


def test_missing_folder_is_named(tmp_path):
    message = rejection(fashion_mnist.read_folder, tmp_path / "nowhere")
    assert "data.dir" in message and "nowhere" in message


@pytest.mark.parametrize("name", fashion_mnist.FILES)
def test_missing_file_is_named(small_folder, name):
    folder, *_ = small_folder
    (folder / name).unlink()
    message = rejection(fashion_mnist.read_folder, folder)
    assert name in message and "missing" in message


@pytest.mark.parametrize("name", fashion_mnist.FILES)
@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:100], lambda b: b + b"\0"])
def test_truncated_or_changed_file_is_named(small_folder, name, damage):
    folder, *_ = small_folder
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    message = rejection(fashion_mnist.read_folder, folder)
    assert str(path) in message
    assert fashion_mnist.FILES[name][0] in message  # the MD5 that was expected
    assert hashlib.md5(path.read_bytes()).hexdigest() in message  # the one that was found


def test_one_flipped_bit_is_noticed(small_folder):
    folder, *_ = small_folder
    path = folder / "t10k-images-idx3-ubyte.gz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert path.name in rejection(fashion_mnist.read_folder, folder)


@pytest.mark.parametrize("magic", [2049, 0])
def test_a_file_that_is_no_idx_images_is_named(small_folder, monkeypatch, magic):
    folder, train, _ = small_folder
    name = "train-images-idx3-ubyte.gz"
    facts = write_idx(folder / name, train, magic=magic)
    monkeypatch.setitem(fashion_mnist.FILES, name, facts)
    assert name in rejection(fashion_mnist.read_folder, folder)


def load_fashion_mnist(**options):
    return sources.load(source="fashion_mnist", size=28, **options)


def test_fashion_mnist_is_found_through_the_environment(small_folder, monkeypatch):
    folder, *_ = small_folder
    monkeypatch.setenv(sources.DATA_DIR_VARIABLE, "nowhere")
    assert load_fashion_mnist(dir=str(folder)).train_size == 6  # the option comes first
    monkeypatch.setenv(sources.DATA_DIR_VARIABLE, str(folder))
    data = load_fashion_mnist()
    assert [data.train_size, len(data.validation), len(data.test)] == [6, 6, 4]


def test_counts_larger_than_a_split_keep_all_of_it(small_folder):
    folder, *_ = small_folder
    whole = load_fashion_mnist(dir=str(folder))
    more = load_fashion_mnist(dir=str(folder), train_images=7, validation_images=100, test_images=5)
    assert same(more.train(0), whole.train(0))
    assert same(more.validation, whole.validation) and same(more.test, whole.test)
    assert more.digest == whole.digest


def image_ids(splits, originals) -> list[set[int]]:
    """Returns which of the original images each split holds; fails if one is none of them."""
    index = {image.tobytes(): i for i, image in enumerate(originals)}
    assert len(index) == len(originals)
    found = [[index[image.tobytes()] for image in np.asarray(split)] for split in splits]
    assert all(len(set(ids)) == len(ids) for ids in found)
    return [set(ids) for ids in found]


@pytest.fixture(scope="module")
def published() -> tuple[np.ndarray, np.ndarray]:
    """The published images, read by other means than ours."""
    arrays = []
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        with gzip.open(Path(FASHION_MNIST) / f"{name}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read()[16:], np.uint8)
        arrays.append(pixels.reshape(count, 28, 28))
    return arrays[0], arrays[1]


@needs_fashion_mnist
def test_fashion_mnist_is_the_published_one(published):
    read = fashion_mnist.read_folder(Path(FASHION_MNIST))
    assert same(read[0], published[0]) and same(read[1], published[1])
    # What the data set's authors and its users state: mean 0.2860, standard deviation 0.3530.
    assert abs(read[0].mean() / 255 - 0.2860) < 1e-4
    assert abs(read[0].std() / 255 - 0.3530) < 1e-4


@needs_fashion_mnist
def test_fashion_mnist_is_split_in_two_disjoint_halves(published):
    data = load_fashion_mnist(dir=FASHION_MNIST, seed=5)
    assert [data.train_size, len(data.validation), len(data.test)] == [30_000, 30_000, 10_000]
    assert data.train(0).dtype == jnp.uint8
    train, validation = image_ids([data.train(0), data.validation], published[0])
    assert not train & validation
    assert len(train | validation) == 60_000
    assert image_ids([data.test], published[1]) == [set(range(10_000))]


@needs_fashion_mnist
def test_fashion_mnist_split_is_set_by_its_seed():
    counts = {"train_images": 500, "validation_images": 300, "test_images": 100}
    data = load_fashion_mnist(dir=FASHION_MNIST, seed=5, **counts)
    again = load_fashion_mnist(dir=FASHION_MNIST, seed=5, **counts)
    other = load_fashion_mnist(dir=FASHION_MNIST, seed=6, **counts)
    smaller = load_fashion_mnist(dir=FASHION_MNIST, seed=5, **counts | {"train_images": 200})
    assert same(data.train(0), again.train(1)) and same(data.validation, again.validation)
    assert data.digest == again.digest
    assert not same(data.train(0), other.train(0))
    assert same(data.test, other.test)
    assert same(smaller.train(0), data.train(0)[:200])
    assert len({data.digest, other.digest, smaller.digest}) == 3


@needs_fashion_mnist
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tfds_gives_the_same_data_set(tmp_path, monkeypatch):
    """Prepares from the folder with no network, as `data.tfds_manual_dir` does."""
    pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv(sources.DATA_DIR_VARIABLE)
    read = fashion_mnist.read_tfds(Path(FASHION_MNIST))
    assert [images.shape for images in read] == [(60_000, 28, 28), (10_000, 28, 28)]
    for ours, files in zip(read, fashion_mnist.read_folder(Path(FASHION_MNIST)), strict=True):
        assert ours.dtype == np.uint8
        assert {image.tobytes() for image in ours} == {image.tobytes() for image in files}
    # The same split too: a run made from one copy goes on, and is evaluated, with the other.
    counts = {"train_images": 500, "validation_images": 300, "test_images": 100}
    data = load_fashion_mnist(tfds_manual_dir=FASHION_MNIST, **counts)
    assert data.digest == load_fashion_mnist(dir=FASHION_MNIST, **counts).digest


# The user's own images


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
    images = read_images(tmp_path, size=8, rescale=False)
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
    grey = read_images(tmp_path, size=5, rescale=False)[0]
    luminance = np.array([0.299, 0.587, 0.114, 1.0, 128 / 255])
    np.testing.assert_allclose(grey, np.repeat(luminance[:, None], 5, axis=1), atol=0.51 / 255)


def test_folder_of_mixed_sizes_and_formats_is_read_by_name(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(np.full((30, 12), 51, np.uint8)).save(tmp_path / "b.PNG")
    np.save(tmp_path / "a.npy", rng.random((8, 8)))
    tifffile.imwrite(tmp_path / "c.tiff", np.full((5, 5), 1.0, np.float32))
    (tmp_path / "notes.txt").write_text("not an image")
    images = read_images(tmp_path, size=8, rescale=False)
    assert images.shape == (3, 8, 8)
    np.testing.assert_array_equal(images[0], np.load(tmp_path / "a.npy").astype(np.float32))
    np.testing.assert_allclose(images[1], 0.2, atol=1e-6)
    np.testing.assert_allclose(images[2], 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["stack.npy", "stack.npz"])
def test_one_array_file_holds_many_images(tmp_path, name):
    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    np.save(tmp_path / name, stack) if name == "stack.npy" else np.savez(tmp_path / name, stack)
    images = read_images(tmp_path / name, size=8, rescale=False)
    np.testing.assert_allclose(images, stack / 255, atol=1e-6)


def test_shrinking_an_image_file_is_antialiased(tmp_path):
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2
    np.save(tmp_path / "a.npy", checkerboard.astype(np.float32))
    small = read_images(tmp_path, size=16, rescale=False)[0]
    np.testing.assert_allclose(small, 0.5, atol=0.05)  # point sampling gives 0 or 1


@pytest.mark.parametrize("size", [4, 5, 8, 13])
def test_image_files_are_resized_linearly(tmp_path, size):
    image = np.random.default_rng(0).random((8, 11)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    small = read_images(tmp_path, size=size, rescale=False)[0]
    np.testing.assert_allclose(small, resized(image, size), atol=1e-5)


def test_float_out_of_range_is_refused_and_rescale_stretches_it(tmp_path):
    np.save(tmp_path / "a.npy", RAMP * 300 - 20)
    message = rejection(read_images, tmp_path, size=8, rescale=False)
    assert "a.npy" in message and "data.rescale" in message and "[-20, 280]" in message
    stretched = read_images(tmp_path, size=8, rescale=True)[0]
    np.testing.assert_allclose(stretched, RAMP, atol=1e-6)


def test_rescale_leaves_no_nan_in_a_flat_image(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 8), 3.0))
    assert np.all(read_images(tmp_path, size=8, rescale=True) == 0.0)


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
    assert name in rejection(read_images, tmp_path, size=8, rescale=False)


@pytest.mark.parametrize("name", ["bad.png", "bad.tif", "bad.npy", "bad.npz"])
@pytest.mark.parametrize("content", [b"this is no image" * 8, b"PK\3\4" + b"\1" * 99])
def test_foreign_bytes_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    source = tmp_path / name if name == "bad.npz" else tmp_path
    assert name in rejection(read_images, source, size=8, rescale=False)


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
    message = rejection(read_images, tmp_path, size=8, rescale=False)
    assert "bad.npy" in message and says in message


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "bad.npy" in rejection(read_images, tmp_path, size=8, rescale=False)


@pytest.mark.parametrize(
    ("name", "says"), [("", ".png"), ("nowhere", "nowhere"), ("nowhere.npy", "nowhere.npy")]
)
def test_no_images_at_all(tmp_path, name, says):
    message = rejection(read_images, tmp_path / name, size=8, rescale=False)
    assert message.startswith("data.dir: ") and says in message


def test_array_files_that_are_no_stack(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4, 4)), b=np.zeros((2, 4, 4)))
    message = rejection(read_images, tmp_path / "two.npz", size=4, rescale=False)
    assert "two.npz" in message and "one array" in message
    for name, array in (("flat", np.zeros((4, 4))), ("none", np.zeros((0, 4, 4)))):
        np.save(tmp_path / f"{name}.npy", array)
        message = rejection(read_images, tmp_path / f"{name}.npy", size=4, rescale=False)
        assert f"{name}.npy" in message and str(array.shape) in message


def load_images(path, **options):
    defaults = {"size": 4, "seed": 0, "validation_fraction": 0.2, "test_fraction": 0.3}
    return sources.load(source="images", dir=str(path), **defaults | options)


@pytest.fixture
def stack(tmp_path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    np.save(tmp_path / "stack.npy", images)
    return tmp_path / "stack.npy"


def test_images_are_split_by_fraction(stack):
    data = load_images(stack)
    assert [data.train_size, len(data.validation), len(data.test)] == [10, 4, 6]
    originals = read_images(stack, size=4, rescale=False)
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
    np.save(tmp_path / "two.npy", np.zeros((2, 4, 4)))
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


# Batches


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_pixels_are_scaled_by_their_type(dtype, white):
    images = jnp.asarray(np.random.default_rng(0).integers(0, white + 1, (5, 4, 4), dtype))
    batch = take_batch(images, jnp.array([3, 0]), size=4, channels=1)
    assert batch.shape == (2, 4, 4, 1) and batch.dtype == jnp.float32
    np.testing.assert_allclose(batch[..., 0], np.asarray(images)[[3, 0]] / white, atol=1e-7)


def test_float_pixels_are_taken_as_they_are():
    images = jax.random.uniform(jax.random.key(0), (5, 4, 4))
    batch = take_batch(images, jnp.array([4, 4, 1]), size=4, channels=1)
    np.testing.assert_array_equal(batch[..., 0], images[jnp.array([4, 4, 1])])


@pytest.mark.parametrize("size", [3, 4, 12, 16])
def test_batches_are_resized_linearly(size):
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8))
    batch = take_batch(images, jnp.array([2, 0]), size=size, channels=1)
    for taken, index in zip(batch, (2, 0), strict=True):
        expected = resized(np.asarray(images[index]), size)
        np.testing.assert_allclose(taken[..., 0], expected, atol=1e-6)


def test_shrinking_a_batch_is_antialiased():
    checkerboard = jnp.asarray((np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8))
    batch = take_batch(checkerboard[None], jnp.array([0]), size=8, channels=1)
    np.testing.assert_allclose(batch, 0.5, atol=0.05)


def test_second_channel_is_the_image_that_follows():
    images = jax.random.uniform(jax.random.key(0), (5, 4, 4))
    batch = take_batch(images, jnp.array([1, 4]), size=4, channels=2)
    np.testing.assert_array_equal(batch[0], np.stack([images[1], images[2]], axis=-1))
    np.testing.assert_array_equal(batch[1], np.stack([images[4], images[0]], axis=-1))


def test_epoch_order_is_a_permutation_of_its_own():
    key = jax.random.key(0)
    orders = [np.asarray(epoch_order(key, epoch, 50)) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 3
    assert same(epoch_order(key, 1, 50), orders[1])
    assert not same(epoch_order(jax.random.key(1), 1, 50), orders[1])
