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
from helpers import image_config, image_ids, rejection, same, tiny_config
from oracles import resized
from scipy import ndimage
from skimage.morphology import convex_hull_image

from jax_kdpr.data import fashion_mnist, sources
from jax_kdpr.data.batches import epoch_order, take_batch
from jax_kdpr.data.scenes import BLOCK, draw_scenes
from jax_kdpr.data.sources import DataOptions
from jax_kdpr.runs.run import load_data

FASHION_MNIST = os.environ.get(sources.DATA_DIR_VARIABLE)
needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST, reason=f"{sources.DATA_DIR_VARIABLE} is not set"
)


# Procedural scenes


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return np.asarray(draw_scenes(jax.random.key(0), count=128, size=32))


def test_scenes_depend_on_the_key_alone_and_are_all_different(scenes):
    more = draw_scenes(jax.random.key(0), count=BLOCK + 20, size=32)
    assert more.shape == (BLOCK + 20, 32, 32)
    assert same(more[:128], scenes)
    other = draw_scenes(jax.random.key(1), count=128, size=32)
    assert np.abs(np.asarray(other) - scenes).max(axis=(1, 2)).min() > 0.1
    assert len({scene.tobytes() for scene in scenes}) == len(scenes)


def test_scenes_show_one_textured_object_with_holes_and_dents_on_an_empty_background(scenes):
    assert scenes.min() >= 0.0 and scenes.max() <= 1.0
    body = scenes > 0.05
    area = body.mean(axis=(1, 2))
    assert area.min() > 0.1 and area.max() < 0.7
    assert (scenes < 1e-3).mean(axis=(1, 2)).min() > 0.25
    assert scenes.max(axis=(1, 2)).min() > 0.4
    holes = [ndimage.binary_fill_holes(one).sum() - one.sum() for one in body]
    assert 0.2 < np.mean(np.array(holes) >= 4) < 0.8
    solidity = [one.sum() / convex_hull_image(one).sum() for one in body]
    assert np.median(solidity) < 0.92  # a disc or a convex blob has 1
    inner = [ndimage.binary_erosion(one, iterations=2) for one in body]
    spread = [one[core].std() for one, core in zip(scenes, inner, strict=True) if core.any()]
    assert np.percentile(spread, 10) > 0.04


def test_scenes_have_sharp_edges_and_fine_detail(scenes):
    blobs = ndimage.gaussian_filter(scenes, (0, 2, 2))  # what the bounds tell apart
    assert np.abs(np.diff(scenes, axis=2)).max(axis=(1, 2)).min() > 0.3
    assert np.abs(np.diff(blobs, axis=2)).max() < 0.3
    frequency = np.fft.fftfreq(32)
    fine = np.hypot(frequency[:, None], frequency) > 0.15  # cycles a pixel

    def share(images):
        power = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
        return np.median(power[:, fine].sum(axis=1) / power.sum(axis=(1, 2)))

    assert share(scenes) > 0.06 and share(blobs) < 0.02


def load_scenes(**options):
    defaults = {"train_images": 8, "validation_images": 8, "test_images": 8, "seed": 3}
    return sources.load(DataOptions(source="scenes", size=32, **defaults | options))


def test_scenes_are_fresh_every_epoch_never_seen_in_validation_and_set_by_their_seed():
    data, again, reseeded = load_scenes(), load_scenes(), load_scenes(seed=4)
    assert same(data.train(0), data.train(0)) and same(data.train(1), again.train(1))
    sets = [data.train(0), data.train(1), data.validation, data.test]
    images = [image.tobytes() for images in sets for image in np.asarray(images)]
    assert len(set(images)) == len(images) == 32
    assert not same(data.test, reseeded.test) and data.digest == again.digest
    others = [reseeded, load_scenes(test_images=9), load_scenes(train_images=9)]
    assert len({data.digest, *(other.digest for other in others)}) == 4


def test_scenes_have_default_counts():
    data = load_scenes(train_images=0, validation_images=0, test_images=0)
    assert (data.train_size, len(data.validation), len(data.test)) == (1024, 256, 512)


# Fashion-MNIST


def write_idx(path: Path, images: np.ndarray) -> str:
    """Writes a gzipped IDX file; returns its MD5."""
    packed = gzip.compress(struct.pack(">IIII", 2051, *images.shape) + images.tobytes())
    path.write_bytes(packed)
    return hashlib.md5(packed).hexdigest()


@pytest.fixture
def small_folder(tmp_path, monkeypatch):
    """A folder laid out like Fashion-MNIST, with few images: (folder, train, test)."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (12, 4))
    pairs = zip(fashion_mnist.FILES, (train, test), strict=True)
    digests = {name: write_idx(tmp_path / name, images) for name, images in pairs}
    monkeypatch.setattr(fashion_mnist, "FILES", digests)
    return tmp_path, train, test


def flip_one_bit(packed: bytes) -> bytes:
    place = len(packed) // 2
    return packed[:place] + bytes([packed[place] ^ 1]) + packed[place + 1 :]


@pytest.mark.parametrize("name", fashion_mnist.FILES)
@pytest.mark.parametrize(
    "damage", [None, lambda b: b[:-100], lambda b: b[:100], lambda b: b + b"\0", flip_one_bit]
)
def test_a_missing_truncated_or_changed_file_is_named(small_folder, name, damage):
    folder, train, test = small_folder
    read = fashion_mnist.read_folder(folder)
    assert same(read[0], train) and same(read[1], test)
    path = folder / name
    packed = path.read_bytes()
    path.unlink()
    if damage is None:
        assert name in rejection(fashion_mnist.read_folder, folder)
        return
    path.write_bytes(damage(packed))
    message = rejection(fashion_mnist.read_folder, folder)
    digests = fashion_mnist.FILES[name], hashlib.md5(path.read_bytes()).hexdigest()
    assert all(said in message for said in (str(path), *digests))  # expected and found


def test_a_missing_folder_is_named(tmp_path):
    for there in (tmp_path / "nowhere", tmp_path):
        message = rejection(fashion_mnist.read_folder, there)
        assert "data.dir" in message and str(there) in message


def load_fashion_mnist(**options):
    return sources.load(DataOptions(source="fashion_mnist", size=28, **options))


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
def test_fashion_mnist_is_the_published_one_split_in_two_disjoint_halves(published):
    read = fashion_mnist.read_folder(Path(FASHION_MNIST))
    assert same(read[0], published[0]) and same(read[1], published[1])
    # What the data set's authors and its users state: mean 0.2860, standard deviation 0.3530.
    assert abs(read[0].mean() / 255 - 0.2860) < 1e-4
    assert abs(read[0].std() / 255 - 0.3530) < 1e-4
    data = load_fashion_mnist(dir=FASHION_MNIST, seed=5)
    assert [data.train_size, len(data.validation), len(data.test)] == [30_000, 30_000, 10_000]
    assert data.train(0).dtype == jnp.uint8
    train, validation = image_ids([data.train(0), data.validation], published[0])
    assert not train & validation and len(train | validation) == 60_000
    assert image_ids([data.test], published[1]) == [set(range(10_000))]


def test_the_split_is_set_by_its_seed(small_folder):
    folder, *_ = small_folder
    counts = {"train_images": 5, "validation_images": 4, "test_images": 3}
    data, again, other, smaller = (
        load_fashion_mnist(dir=str(folder), **counts | changes)
        for changes in ({"seed": 5}, {"seed": 5}, {"seed": 6}, {"seed": 5, "train_images": 2})
    )
    assert same(data.train(0), again.train(1)) and same(data.validation, again.validation)
    assert data.digest == again.digest
    assert not same(data.train(0), other.train(0)) and same(data.test, other.test)
    assert same(smaller.train(0), data.train(0)[:2])
    assert len({data.digest, other.digest, smaller.digest}) == 3


@needs_fashion_mnist
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tfds_gives_the_same_data_set(tmp_path, monkeypatch):
    """Prepares from the folder with no network, as `data.tfds_manual_dir` does."""
    if not os.environ.get("KDPR_REQUIRE_TFDS"):  # set by .ci/run, where a skip must not pass
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


# Batches


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_integer_pixels_are_scaled_by_their_type_and_others_taken_as_they_are(dtype, white):
    images = (np.random.default_rng(0).uniform(size=(5, 4, 4)) * white).astype(dtype)
    batch = take_batch(jnp.asarray(images), jnp.array([3, 3, 0]), size=4, channels=1)
    assert batch.shape == (3, 4, 4, 1) and batch.dtype == jnp.float32
    np.testing.assert_allclose(batch[..., 0], images[[3, 3, 0]] / white, atol=1e-7)


@pytest.mark.gpu
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


def test_a_data_folder_that_nothing_reads_or_that_is_gone_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nothing reads it" in rejection(load_data, Path("run"), tiny_config(), data_dir="x")
    message = rejection(load_data, Path("run"), image_config("images"))
    assert "--data_dir" in message and "'images'" in message and str(tmp_path) in message
