"""One data set from any source: training images per epoch, fixed validation and test images."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import processes, runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import SEEDS, SHARE, Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.registry import Registry, blaming
from jax_kdpr.core.types import RawImages
from jax_kdpr.data import fashion_mnist, image_files, streaming
from jax_kdpr.data.inspection import read_all
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.data.scenes import SCENES_VERSION, draw_scenes
from jax_kdpr.data.streaming import Stream

DATA_DIR_VARIABLE = "KDPR_DATA_DIR"
SCENE_COUNTS = {"train": 1024, "validation": 256, "test": 512}  # procedural, by default

OF_FOLDERS = ("fashion_mnist", "images")
OF_FILES = ("data.source", ("images",))
ROUNDS = 4  # at most so many passes over all files
HELD_SHARE = 0.5  # share of a device's memory that images from files may take
HOST_SHARE = 1 / 8  # the same of the host's memory; reading them takes four times as much
SAMPLE, BLOCKS = 2, 4  # of `Dataset.sample`: scenes, and blocks per side


class Dataset(NamedTuple):
    """Images on the device, in the size and type of their source."""

    train: Callable[[int], RawImages]
    """train(epoch) -> that epoch's training images, in a fixed order; with a `stream` only the
    first ones, at most `streaming.SAMPLE`."""
    train_size: int
    validation: RawImages
    test: RawImages
    digest: str
    """SHA-256 that tells one data set, split and subset from another."""
    held_back_digest: str
    """The same for validation and test images alone, which no training may have seen."""
    offset: float = 0.0
    """Radians that were added to all phases (source "images" only)."""
    sample: tuple[float, ...] = ()
    """Block means of the first validation scenes (source "scenes" only).

    The digests of scenes cover only what they are drawn from, since pixels differ by rounding
    between machines. The sample tells whether the scenes are drawn alike."""
    stream: Stream | None = None
    """Training images that do not fit into memory."""


Source = Callable[["DataOptions", float], Dataset]
"""source(options, phase_range) -> data set; `from_arrays` makes one from arrays."""
SOURCES: Registry[Source] = Registry(
    "source",
    {
        "scenes": f"{__name__}:procedural_scenes",
        "fashion_mnist": f"{__name__}:fashion_mnist_images",
        "images": f"{__name__}:own_images",
    },
)


@section
class DataOptions:
    """Images: `data.sources.load`."""

    source: str = option("scenes", "where images come from", choices=SOURCES)
    dir: str = option(
        "",
        "folder or array file; empty: KDPR_DATA_DIR",
        when=("data.source", OF_FOLDERS),
    )
    tfds_manual_dir: str = option(
        "",
        "IDX files for TFDS to prepare, if dir is empty",
        when=("data.source", ("fashion_mnist",)),
    )
    size: int = option(
        32, "height and width of scene and masks", unit="pixels", within=Range(11, 8192)
    )  # 11: the SSIM window
    seed: int = option(0, "seed of the split, or of procedural scenes", within=SEEDS)
    train_images: int = option(
        0, "most training images; 0: all of the split", within=Range(0, 10_000_000)
    )
    validation_images: int = option(
        0, "most validation images; 0: all of the split", within=Range(0, 10_000_000)
    )
    test_images: int = option(
        0, "most test images; 0: all of the split", within=Range(0, 10_000_000)
    )
    validation_fraction: float = option(
        0.1, "share held for validation", within=SHARE, when=OF_FILES
    )
    test_fraction: float = option(0.1, "share held for the test", within=SHARE, when=OF_FILES)
    rescale: bool = option(
        False,
        "stretch each image to [0, 1]; else 1 means scene.phase_range",
        when=OF_FILES,
    )
    fit: str = option(
        "stretch",
        "how to make images square that are not",
        choices=image_files.FITS,
        when=OF_FILES,
    )
    unit: str = option(
        "fraction",
        "unit of values: fraction of scene.phase_range, or radians",
        choices=image_files.UNITS,
        when=OF_FILES,
    )
    subfolders: bool = option(False, "also take the images in subfolders of dir", when=OF_FILES)
    skip_unreadable: bool = option(
        False, "leave out image files that cannot be read, and say how many", when=OF_FILES
    )
    memory: float = option(
        0.0,
        "what all images, used or not, may take; more are read while training; 0: half of the "
        "device's, an eighth of the machine's at most",
        unit="GiB",
        within=Range(0, 1e6),
        when=OF_FILES,
    )


def load(
    options: DataOptions,
    *,
    phase_range: float = 0.0,
    channels: int = 1,
    named: str = "data.dir",
    remedy: str = "give its path",
) -> Dataset:
    """Loads a data set.

    Args:
        options: Where the data lie, and which of them to use.
        phase_range: Radians that an image's value 1 stands for; 0 if images are not phases.
        channels: Of a scene. Image files are its channels by turns, and are split scene by scene.
        named: The option or flag that gave `dir`, for messages.
        remedy: What to do if nothing is there, for messages.

    Raises:
        InputError: If the files are missing or unusable, or a split would be empty.
    """
    if options.source in OF_FOLDERS and not options.dir:
        options = dataclasses.replace(options, dir=os.environ.get(DATA_DIR_VARIABLE, ""))
        named = DATA_DIR_VARIABLE
    if options.dir:
        require_there(options.dir, named=named, remedy=remedy)
    with blaming([options.source]):
        if options.source == "images":
            dataset = own_images(options, phase_range, channels)
        else:
            dataset = SOURCES[options.source](options, phase_range)
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data.source: expected a Dataset of {options.source}, got {type(dataset).__name__}; "
            "make one by from_arrays"
        )
    if dataset.test.ndim == 4 and dataset.test.shape[-1] != channels:
        raise InputError(
            f"data.source: {options.source} has scenes of {dataset.test.shape[-1]} channels, "
            f"expected {channels}, as scene.kind has"
        )
    return dataset


def fashion_mnist_images(options: DataOptions, phase_range: float) -> Dataset:
    """Returns the paper's split: two halves of the 60,000 images, and the official test set."""
    if options.dir:
        train, test = fashion_mnist.read_folder(Path(options.dir))
    else:
        manual = options.tfds_manual_dir
        train, test = fashion_mnist.read_tfds(Path(manual) if manual else None)
    # The order must not depend on the copy, so that a seed means one split.
    train, test = (fashion_mnist.in_byte_order(images) for images in (train, test))
    test = test[np.random.default_rng(0).permutation(len(test))]  # the same for every seed
    order = np.random.default_rng(options.seed).permutation(len(train))
    half = len(train) // 2
    splits = {"train": train[order[:half]], "validation": train[order[half:]], "test": test}
    return from_arrays(splits, options)


def own_images(options: DataOptions, phase_range: float, channels: int = 1) -> Dataset:
    """Returns a random split of the scenes of the user's own image files (`data.image_files`)."""
    if not options.dir:
        raise InputError(
            "data.dir: source images needs a folder of images or one array file, got none; "
            f"set data.dir or {DATA_DIR_VARIABLE}"
        )
    wanted = image_files.Preparation(
        options.size, options.fit, options.unit, options.rescale, phase_range, channels=channels
    )
    files = image_files.ImageFiles(Path(options.dir), wanted, subfolders=options.subfolders)
    is_stream = not _fits(len(files) * channels, options)
    if processes.several():
        processes.require_same(images=files.listing(), memory=is_stream)
    if is_stream:
        return _streamed_images(files, options)
    found = read_all(files, skip=options.skip_unreadable)
    splits = {
        name: found.images[order] for name, order in _split(len(found.images), options).items()
    }
    return from_arrays(splits, options)._replace(offset=found.offset)


def _memory(options: DataOptions) -> float:
    """Returns how many bytes of images may be held."""
    shares = HELD_SHARE * runtime.device_memory(), HOST_SHARE * runtime.host_memory()
    return options.memory * 2**30 or min(shares)


def _fits(count: int, options: DataOptions) -> bool:
    """Returns whether `count` images may be held, once for each device that shares the memory."""
    return 4 * count * options.size**2 * runtime.sharing_memory() <= _memory(options)


def _streamed_images(files: image_files.ImageFiles, options: DataOptions) -> Dataset:
    """Returns the same data set as from arrays, but its training images stay in their files."""

    def splits(usable: np.ndarray) -> dict[str, np.ndarray]:
        limits, orders = _counts(options), _split(len(usable), options)
        return {name: usable[order][: limits[name] or None] for name, order in orders.items()}

    held = sum(len(splits(np.arange(len(files)))[name]) for name in ("validation", "test"))
    if not _fits(held * files.wanted.channels, options):
        raise InputError(
            f"data.validation_images, data.test_images: expected at most what data.memory holds "
            f"({_memory(options) / 2**30:.2g} GiB), got {held:,} images of {options.size} x "
            f"{options.size}; lower them, or raise data.memory"
        )
    if files.source.suffix.lower() == ".npz":
        raise InputError(
            f"data.dir: {str(files.source)!r} is packed, and can only be read whole; save its "
            "array as .npy, or raise data.memory"
        )

    def look() -> np.ndarray:  # as bytes: two digests, the offset, whether each file is usable
        offset, usable = 0.0, np.ones(len(files), bool)
        for _ in range(ROUNDS):  # again if what was found changes the split or the offset
            numbers = splits(np.flatnonzero(usable))
            found, *digests = streaming.inspect(
                files, numbers, offset=offset, skip=options.skip_unreadable
            )
            before = offset, usable
            offset, usable = found.offset(), np.ones(len(files), bool)
            usable[list(found.skipped)] = False
            if offset == before[0] and np.array_equal(usable, before[1]):
                found.say("data")
                packed = b"".join([*digests, np.float64(offset).tobytes(), usable.tobytes()])
                return np.frombuffer(packed, np.uint8)
        raise InputError(f"data.dir: files of {str(files.source)!r} change while they are read")

    packed = processes.from_first(look, np.zeros(2 * 32 + 8 + len(files), np.uint8))
    digest, held_back = (packed[at : at + 32].tobytes().hex() for at in (0, 32))
    offset = float(packed[64:72].view(np.float64)[0])
    numbers = splits(np.flatnonzero(packed[72:]))
    stream = streaming.Stream(files, numbers["train"], offset)
    kept = {name: stream.read(numbers[name]) for name in ("validation", "test")}
    if processes.several():  # each must read what the first one inspected
        processes.require_same(data=_digest(kept))
    fitting = max(2, streaming.SAMPLE_NUMBERS // math.prod(files.wanted.shape))

    @cache
    def sample() -> RawImages:
        return jnp.asarray(stream.read(numbers["train"][: min(streaming.SAMPLE, fitting)]))

    return Dataset(
        train=lambda epoch: sample(),
        train_size=len(numbers["train"]),
        validation=jnp.asarray(kept["validation"]),
        test=jnp.asarray(kept["test"]),
        digest=digest,
        held_back_digest=held_back,
        offset=offset,
        stream=stream,
    )


def require_there(path: str, *, named: str, remedy: str = "give its path") -> None:
    """Raises `InputError` if there is neither a file nor a folder at `path`, which `named` gave.

    The name of an HDF5 file may be followed by that of a dataset.
    """
    name, _ = split_dataset(path)
    if not Path(name).exists():
        below = "" if Path(name).is_absolute() else f" below {Path.cwd()}"
        raise InputError(f"{named}: no file or folder {name!r}{below}; {remedy}")


def procedural_scenes(options: DataOptions, phase_range: float) -> Dataset:
    """Returns as many drawn scenes as requested (`data.scenes`); every epoch trains on new ones."""
    size, seed = options.size, options.seed
    counts = {name: count or SCENE_COUNTS[name] for name, count in _counts(options).items()}
    runtime.require_memory(
        "data.size, data.train_images, data.validation_images, data.test_images",
        4 * size**2 * sum(counts.values()),
    )
    train_key, validation_key, test_key = jax.random.split(jax.random.key(seed), 3)

    def train(epoch: int) -> RawImages:
        return draw_scenes(jax.random.fold_in(train_key, epoch), count=counts["train"], size=size)

    def digest(*facts: object) -> str:
        # Other random-number settings draw other scenes; the digest leaves out the usual settings.
        facts = (*facts, *runtime.random_numbers().items())
        known = repr(("scenes", SCENES_VERSION, size, seed, *facts))
        return hashlib.sha256(known.encode()).hexdigest()

    validation = draw_scenes(validation_key, count=counts["validation"], size=size)
    return Dataset(
        train=train,
        train_size=counts["train"],
        validation=validation,
        test=draw_scenes(test_key, count=counts["test"], size=size),
        digest=digest(counts),
        held_back_digest=digest(counts["validation"], counts["test"]),
        sample=_block_means(np.asarray(validation[:SAMPLE])),
    )


def _block_means(images: np.ndarray) -> tuple[float, ...]:
    blocks = [
        block
        for rows in np.array_split(images, min(BLOCKS, images.shape[1]), axis=1)
        for block in np.array_split(rows, min(BLOCKS, images.shape[2]), axis=2)
    ]
    means = np.stack([block.mean(axis=(1, 2), dtype=float) for block in blocks], axis=1)
    return tuple(round(float(mean), 3) for mean in means.ravel())


def from_arrays(splits: dict[str, np.ndarray], options: DataOptions) -> Dataset:
    """Makes a data set from arrays, for any source that has all of its images at once.

    Args:
        splits: "train", "validation" and "test": [n h w], floats in [0, 1], or integers, where
            the largest value of the type is 1. They are resized to `options.size` batch by batch.
            Complex scenes may be [n h w 2], phase and amplitude.
        options: Limits how many images of each split are kept; these are the first ones.
    """
    for name, images in splits.items():
        top = 1.0 if images.dtype.kind == "f" else np.inf
        fits = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 2)
        usable = fits and images.size and images.dtype.kind in "uif"
        if not usable or not (images.min() >= 0 and images.max() <= top):  # NaN too
            raise InputError(
                f"data.source: {options.source}: expected {name} images [n h w] or "
                f"[n h w 2], floats in [0, 1] or integers, got {images.dtype} {list(images.shape)}"
                + (f" from {images.min():.4g} to {images.max():.4g}" if usable else "")
            )
    splits = {name: splits[name][: count or None] for name, count in _counts(options).items()}
    on_device = {name: jnp.asarray(images) for name, images in splits.items()}
    return Dataset(
        train=lambda epoch: on_device["train"],
        train_size=len(on_device["train"]),
        validation=on_device["validation"],
        test=on_device["test"],
        digest=_digest(splits),
        held_back_digest=_digest({name: splits[name] for name in ("validation", "test")}),
    )


def _counts(options: DataOptions) -> dict[str, int]:
    return {name: getattr(options, f"{name}_images") for name in SCENE_COUNTS}


def _digest(splits: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, images in splits.items():
        total.update(streaming.header(name, images.shape, images.dtype))
        total.update(np.ascontiguousarray(images).data)
    return total.hexdigest()


def _split(count: int, options: DataOptions) -> dict[str, np.ndarray]:
    """Returns the indices of the images of each split, out of `count` images."""
    order = np.random.default_rng(options.seed).permutation(count)
    fractions = options.validation_fraction, options.test_fraction
    held_back = [round(fraction * count) for fraction in fractions]
    if min(*held_back, count - sum(held_back)) < 1:
        raise InputError(
            f"data.dir: {count} image(s) leave a split empty (train, validation, test = "
            f"{count - sum(held_back)}, {held_back[0]}, {held_back[1]}); add images, or "
            "lower data.validation_fraction and data.test_fraction if train is empty, or raise them"
        )
    validation, test, train = np.split(order, np.cumsum(held_back))
    return {"train": train, "validation": validation, "test": test}
