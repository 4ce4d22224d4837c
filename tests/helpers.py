"""Small things that several test files do."""

import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.optics.propagation import FreeSpace, PropagationOptions
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.runs.run import Run

ROOT = Path(__file__).parents[1]  # of the repository


def rejection(call, *arguments, **options) -> str:
    """Returns the one line of the InputError that a call must raise."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def same(one, other) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def packed_tiff(values: np.ndarray, bits: int) -> bytes:
    """An uncompressed TIFF of a few bits a pixel, by its specification."""
    places = np.arange(bits)[::-1]
    rows = np.packbits(values[..., None] >> places & 1 == 1, axis=None)
    assert values.shape[1] * bits % 8 == 0
    data = rows.tobytes() + b"\0" * (rows.size % 2)
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, rows.size)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return start + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def image_ids(splits, originals) -> list[set[int]]:
    """Returns which of the original images each split holds; fails if one is none of them."""
    index = {image.tobytes(): i for i, image in enumerate(originals)}
    assert len(index) == len(originals)
    found = [[index[image.tobytes()] for image in np.asarray(split)] for split in splits]
    assert all(len(set(ids)) == len(ids) for ids in found)
    return [set(ids) for ids in found]


def tiny_config(**changes) -> Config:
    """A run of seconds; changes are named section__field."""
    config = Config()
    config.data.size = 16
    config.data.train_images = 64
    config.data.validation_images = config.data.test_images = 32
    config.net.widths = (8, 16)
    config.spectral.iterations = 5
    config.optim.mask_lr = config.optim.net_lr = 2e-2
    config.optim.schedule = "cosine"
    config.train.batch_size = 16
    config.train.eval_batch_size = 16
    config.train.epochs = 3
    for path, value in changes.items():
        section, name = path.split("__")
        setattr(getattr(config, section), name, value)
    return config


def assert_equal_trees(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def image_config(folder, **changes) -> Config:
    """A tiny run on all images of a folder."""
    return tiny_config(
        data__source="images",
        data__dir=str(folder),
        data__train_images=0,
        data__validation_images=0,
        data__test_images=0,
        train__epochs=2,
        **changes,
    )


def student_config(folder, teacher, **changes) -> Config:
    """A tiny student of the run in `teacher`; every loss has a weight."""
    config = image_config(folder, distill__teacher=str(teacher), **changes)
    config.regime = "student"
    config.loss.alpha, config.loss.beta = 0.6, 0.2
    return config


def untrained_run(config: Config, workdir) -> Run:
    """A run for measured data with the masks and the network that a training starts from."""
    system = build_system(config)
    variables = system.init(jax.random.key(0))
    return Run(workdir, config, system, variables, "digest", 1)


def free_space(shape: tuple[int, int], *, oversample: int = 1, **options) -> FreeSpace:
    """What lies between masks and sensor; options of `PropagationOptions`."""
    space = PropagationOptions(**options)
    return space.propagator.space(shape, oversample, space)
