"""One data set from any source: training images per epoch, fixed validation and test images."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import runtime
from jax_kdpr.core.choices import Fit, Unit
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import RawImages
from jax_kdpr.data import fashion_mnist, image_files
from jax_kdpr.data.pages.stacks import split_dataset
from jax_kdpr.data.scenes import SCENES_VERSION, draw_scenes

DATA_DIR_VARIABLE = "KDPR_DATA_DIR"
SCENE_COUNTS = {"train": 1024, "validation": 256, "test": 512}  # of procedural scenes, by default

SAMPLE, BLOCKS = 2, 4  # scenes of `Dataset.sample`, and its blocks a side


class Dataset(NamedTuple):
    """Images as held on the device, at the size and type they came in."""

    train: Callable[[int], RawImages]
    """train(epoch) -> that epoch's training images, in a fixed order."""
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


def load(
    *,
    source: str,
    size: int,
    seed: int = 0,
    dir: str = "",
    tfds_manual_dir: str = "",
    train_images: int = 0,
    validation_images: int = 0,
    test_images: int = 0,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    rescale: bool = False,
    fit: Fit = Fit.STRETCH,
    unit: Unit = Unit.FRACTION,
    subfolders: bool = False,
    phase_range: float = 0.0,
    named: str = "data.dir",
    remedy: str = "give its path",
) -> Dataset:
    """Loads the data set of `source`: "scenes", "fashion_mnist" or "images".

    Args:
        source: Where the images come from.
        size: Height and width that the system sees; image files of any size are resized here.
        seed: Of the split into train, validation and test, or of the procedural scenes.
        dir: Folder or array file; empty takes the environment variable KDPR_DATA_DIR.
        tfds_manual_dir: Lets TensorFlow Datasets prepare from this folder instead of a download.
        train_images: At most so many images of the split, as `validation_images` and
            `test_images`: the first of the shuffled split; 0 keeps all. Of procedural scenes
            exactly so many are drawn (per epoch, for training); 0 takes `SCENE_COUNTS`.
        validation_fraction: Share of the images held back for validation, source "images" only.
        test_fraction: Share of the images held back for the test, source "images" only.
        rescale: Stretch each image to [0, 1], source "images" only, as the four below.
        fit: How images that are not square become so.
        unit: Of their values.
        subfolders: Take the images in folders of the folder as well.
        phase_range: Radians that an image's value 1 stands for; 0 where it is no phase.
        named: What `dir` comes from, and
        remedy: what to do, where nothing is there.

    Raises:
        InputError: If the files are missing or unusable, or a split would be empty.
    """
    counts = {"train": train_images, "validation": validation_images, "test": test_images}
    if source == "scenes":
        return _procedural(counts, size=size, seed=seed)
    offset = 0.0
    if not dir:
        dir, named = os.environ.get(DATA_DIR_VARIABLE, ""), DATA_DIR_VARIABLE
    if dir:
        require_there(dir, named=named, remedy=remedy)
    if source == "fashion_mnist":
        if dir:
            train, test = fashion_mnist.read_folder(Path(dir))
        else:
            train, test = fashion_mnist.read_tfds(
                Path(tfds_manual_dir) if tfds_manual_dir else None
            )
        # One order whatever copy they came from, so that a seed means one split.
        train, test = (fashion_mnist.in_byte_order(images) for images in (train, test))
        test = test[np.random.default_rng(0).permutation(len(test))]  # the same for every seed
        # The paper's split: the 60,000 in two halves, the official test set as it is.
        order = np.random.default_rng(seed).permutation(len(train))
        half = len(train) // 2
        splits = {"train": train[order[:half]], "validation": train[order[half:]], "test": test}
    elif source == "images":
        if not dir:
            raise InputError(
                "data.dir: source images needs a folder of images or one array file, got none; "
                f"set data.dir or {DATA_DIR_VARIABLE}"
            )
        wanted = image_files.Preparation(size, fit, unit, rescale, phase_range)
        found = image_files.read_images(Path(dir), wanted, subfolders=subfolders)
        offset = found.offset
        splits = _split(found.images, seed, validation_fraction, test_fraction)
    else:
        raise ValueError(f"source: expected scenes, fashion_mnist or images, got {source!r}")
    kept = {name: images[: counts[name] or None] for name, images in splits.items()}
    return _from_arrays(kept)._replace(offset=offset)


def require_there(path: str, *, named: str, remedy: str = "give its path") -> None:
    """Raises InputError where neither file nor folder is at `path`, which `named` gave.

    Of HDF5 a dataset may follow the file.
    """
    name, _ = split_dataset(path)
    if not Path(name).exists():
        below = "" if Path(name).is_absolute() else f" below {Path.cwd()}"
        raise InputError(f"{named}: no file or folder {name!r}{below}; {remedy}")


def _procedural(counts: dict[str, int], *, size: int, seed: int) -> Dataset:
    counts = {name: count or SCENE_COUNTS[name] for name, count in counts.items()}
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


def _from_arrays(splits: dict[str, np.ndarray]) -> Dataset:
    on_device = {name: jnp.asarray(images) for name, images in splits.items()}
    return Dataset(
        train=lambda epoch: on_device["train"],
        train_size=len(on_device["train"]),
        validation=on_device["validation"],
        test=on_device["test"],
        digest=_digest(splits),
        held_back_digest=_digest({name: splits[name] for name in ("validation", "test")}),
    )


def _digest(splits: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, images in splits.items():
        total.update(f"{name} {images.shape} {images.dtype}".encode())
        total.update(np.ascontiguousarray(images).tobytes())
    return total.hexdigest()


def _split(images: np.ndarray, seed: int, validation: float, test: float) -> dict[str, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(images))
    held_back = [round(fraction * len(images)) for fraction in (validation, test)]
    if min(*held_back, len(images) - sum(held_back)) < 1:
        raise InputError(
            f"data.dir: {len(images)} image(s) leave a split empty (train, validation, test = "
            f"{len(images) - sum(held_back)}, {held_back[0]}, {held_back[1]}); add images, or "
            "lower data.validation_fraction and data.test_fraction if train is empty, or raise them"
        )
    validation_order, test_order, train_order = np.split(order, np.cumsum(held_back))
    return {
        "train": images[train_order],
        "validation": images[validation_order],
        "test": images[test_order],
    }
