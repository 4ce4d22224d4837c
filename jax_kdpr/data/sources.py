"""One data set from any source: training images per epoch, fixed validation and test images."""

import dataclasses
import hashlib
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
SCENE_COUNTS = {"train": 1024, "validation": 256, "test": 512}  # of procedural scenes, by default

OF_FOLDERS = ("fashion_mnist", "images")
OF_FILES = ("data.source", ("images",))
ROUNDS = 4  # of looking at all files
HELD_SHARE = 0.5  # of a device's memory that the images of files may take
HOST_SHARE = 1 / 8  # likewise of the machine's: while they are read it needs four times as much
SAMPLE, BLOCKS = 2, 4  # scenes of `Dataset.sample`, and its blocks a side


class Dataset(NamedTuple):
    """Images as held on the device, at the size and type they came in."""

    train: Callable[[int], RawImages]
    """train(epoch) -> that epoch's training images, in a fixed order; of a `stream` the first
    ones, `streaming.SAMPLE` at most."""
    train_size: int
    validation: RawImages
    test: RawImages
    digest: str
    """SHA-256 that tells one data set, split and subset from another."""
    held_back_digest: str
    """The same of validation and test images alone: what no training may have seen."""
    offset: float = 0.0
    """Radians that were added to all phases, source "images" only."""
    sample: tuple[float, ...] = ()
    """Means of blocks of the first validation scenes, source "scenes" only.

    Their digests are of what they are drawn with, since pixels differ by rounding from machine to
    machine; this tells whether they are drawn alike."""
    stream: Stream | None = None
    """Training images that do not fit into memory."""


Source = Callable[["DataOptions", float], Dataset]
"""source(options, phase_range) -> its data set; `from_arrays` makes one of arrays."""
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
        "folder or array file; empty takes KDPR_DATA_DIR",
        when=("data.source", OF_FOLDERS),
    )
    tfds_manual_dir: str = option(
        "",
        "for TensorFlow Datasets, when no files are given",
        when=("data.source", ("fashion_mnist",)),
    )
    size: int = option(
        32, "height and width of scene and masks", unit="pixels", within=Range(11, 8192)
    )  # the SSIM window
    seed: int = option(0, "of the split, or of the procedural scenes", within=SEEDS)
    train_images: int = option(
        0, "training images, at most; 0: all of the split", within=Range(0, 10_000_000)
    )
    validation_images: int = option(0, "likewise, of validation", within=Range(0, 10_000_000))
    test_images: int = option(0, "likewise, of the test", within=Range(0, 10_000_000))
    validation_fraction: float = option(0.1, "share of all images", within=SHARE, when=OF_FILES)
    test_fraction: float = option(0.1, "likewise", within=SHARE, when=OF_FILES)
    rescale: bool = option(
        False,
        "stretch each image to [0, 1] by itself; else 1 is scene.phase_range",
        when=OF_FILES,
    )
    fit: str = option(
        "stretch",
        "how image files that are not square become so",
        choices=image_files.FITS,
        when=OF_FILES,
    )
    unit: str = option(
        "fraction",
        "of values of image files: 1 is scene.phase_range, or phases",
        choices=image_files.UNITS,
        when=OF_FILES,
    )
    subfolders: bool = option(
        False, "take the images in folders of data.dir as well", when=OF_FILES
    )
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
    named: str = "data.dir",
    remedy: str = "give its path",
) -> Dataset:
    """Loads a data set.

    Args:
        options: Where it lies, and what of it is wanted.
        phase_range: Radians that an image's value 1 stands for; 0 where it is no phase.
        named: What `dir` comes from, and
        remedy: what to do, where nothing is there.

    Raises:
        InputError: If the files are missing or unusable, or a split would be empty.
    """
    if options.source in OF_FOLDERS and not options.dir:
        options = dataclasses.replace(options, dir=os.environ.get(DATA_DIR_VARIABLE, ""))
        named = DATA_DIR_VARIABLE
    if options.dir:
        require_there(options.dir, named=named, remedy=remedy)
    with blaming([options.source]):
        dataset = SOURCES[options.source](options, phase_range)
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data.source: expected a Dataset of {options.source}, got {type(dataset).__name__}; "
            "make one by from_arrays"
        )
    return dataset


def fashion_mnist_images(options: DataOptions, phase_range: float) -> Dataset:
    """The paper's split: the 60,000 in two halves, the official test set as it is."""
    if options.dir:
        train, test = fashion_mnist.read_folder(Path(options.dir))
    else:
        manual = options.tfds_manual_dir
        train, test = fashion_mnist.read_tfds(Path(manual) if manual else None)
    # One order whatever copy they came from, so that a seed means one split.
    train, test = (fashion_mnist.in_byte_order(images) for images in (train, test))
    test = test[np.random.default_rng(0).permutation(len(test))]  # the same for every seed
    order = np.random.default_rng(options.seed).permutation(len(train))
    half = len(train) // 2
    splits = {"train": train[order[:half]], "validation": train[order[half:]], "test": test}
    return from_arrays(splits, options)


def own_images(options: DataOptions, phase_range: float) -> Dataset:
    """Files of the user's own, split at random: `data.image_files`."""
    if not options.dir:
        raise InputError(
            "data.dir: source images needs a folder of images or one array file, got none; "
            f"set data.dir or {DATA_DIR_VARIABLE}"
        )
    wanted = image_files.Preparation(
        options.size, options.fit, options.unit, options.rescale, phase_range
    )
    files = image_files.ImageFiles(Path(options.dir), wanted, subfolders=options.subfolders)
    is_stream = not _fits(len(files), options)
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
    """Bytes of images that are held."""
    shares = HELD_SHARE * runtime.device_memory(), HOST_SHARE * runtime.host_memory()
    return options.memory * 2**30 or min(shares)


def _fits(count: int, options: DataOptions) -> bool:
    """Whether so many images are held: by each device, where several share a memory."""
    return 4 * count * options.size**2 * runtime.sharing_memory() <= _memory(options)


def _streamed_images(files: image_files.ImageFiles, options: DataOptions) -> Dataset:
    """A data set of which the training images stay where they are, as that of the arrays."""

    def splits(usable: np.ndarray) -> dict[str, np.ndarray]:
        limits, orders = _counts(options), _split(len(usable), options)
        return {name: usable[order][: limits[name] or None] for name, order in orders.items()}

    held = sum(len(splits(np.arange(len(files)))[name]) for name in ("validation", "test"))
    if not _fits(held, options):
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

    def look() -> np.ndarray:  # as bytes: two digests, the offset, and whether each is usable
        offset, usable = 0.0, np.ones(len(files), bool)
        for _ in range(ROUNDS):  # again, where what was found changes the split or the phases
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
    if processes.several():  # what the first one looked at must be what each one reads
        processes.require_same(data=_digest(kept))
    fitting = max(2, streaming.SAMPLE_NUMBERS // options.size**2)

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
    """Raises InputError where neither file nor folder is at `path`, which `named` gave.

    Of HDF5 a dataset may follow the file.
    """
    name, _ = split_dataset(path)
    if not Path(name).exists():
        below = "" if Path(name).is_absolute() else f" below {Path.cwd()}"
        raise InputError(f"{named}: no file or folder {name!r}{below}; {remedy}")


def procedural_scenes(options: DataOptions, phase_range: float) -> Dataset:
    """Scenes that are drawn, exactly as many as asked for: `data.scenes`; new ones every epoch."""
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
        # Other settings of the random numbers draw other scenes; the usual ones go without saying.
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
    """Makes a data set of arrays, for any source that has all of its images at once.

    Args:
        splits: "train", "validation" and "test": [n h w], floats in [0, 1], or integers of which
            the largest of their type is 1. They are resized to `options.size` batch by batch.
        options: At most so many of each are kept, the first ones.
    """
    for name, images in splits.items():
        top = 1.0 if images.dtype.kind == "f" else np.inf
        if images.ndim != 3 or not len(images) or images.min() < 0 or images.max() > top:
            raise InputError(
                f"data.source: {options.source}: expected {name} images [n h w], floats in [0, 1] "
                f"or integers, got {images.dtype} {list(images.shape)}"
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
    """The numbers of the images of each split, of so many images of files."""
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
