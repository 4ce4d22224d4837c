"""Images that do not fit: read batch by batch in worker processes, while the device is at work.

What is trained is the same to the bit as from memory: the order of an epoch is `epoch_order`'s, and
images are those that `inspection.read_all` would make. [Grain](https://github.com/google/grain)
runs the workers; the extra `stream` brings it.
"""

import hashlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jax_kdpr.core import processes, runtime
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Key
from jax_kdpr.data.batches import epoch_order
from jax_kdpr.data.image_files import Facts, ImageFiles
from jax_kdpr.data.inspection import Inspection, in_range

WORKERS = 8  # processes that read, at most; there is one core less
AHEAD = 4  # batches that each has ready
CHUNK = 64  # images that are looked at in one go
SAMPLE = 4096  # training images, at most, of which a prior and their mean are made


@runtime_checkable
class Series(Protocol):
    """What workers make, number by number. It is sent to them."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def require_grain() -> Any:
    """Returns Grain.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import grain  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError(
            "data.memory: these images are read while training, which needs Grain, and it is not "
            "installed; pip install -e '.[stream]', or raise data.memory"
        ) from missing
    return grain


@contextmanager
def in_workers(series: Series, *, first: int = 0) -> Iterator[Iterator[Any]]:
    """Opens the items of a series from `first` on, in order, made ahead by other processes.

    Arrays should be sent as bytes: of those Grain holds none in shared memory, which it would
    leave behind.
    """
    grain = require_grain()
    if not flags.FLAGS.is_parsed():  # outside of a command; Grain has some too
        flags.FLAGS.mark_as_parsed()
    workers = max(1, min(WORKERS, runtime.cpu_cores() - 1))
    items = grain.MapDataset.source(series)[first:].to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    )
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    made = iter(items.mp_prefetch(options, worker_init_fn=_begin))
    try:
        yield made
    finally:
        made.close()


def _begin(number: int, workers: int) -> None:
    """In a worker: signals are for the process that started it, with which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # no worker takes a GPU
    for name, value in runtime.RANDOM_NUMBERS.items():
        jax.config.update(name, value)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Order(NamedTuple):
    """Which images a training takes, step by step."""

    key: np.ndarray  # data of the key of all orders
    batch_size: int
    channels: int  # of a scene: two take the image that follows too (`batches.take_batch`)
    steps: int  # of the whole training
    share: tuple[int, int] = (0, 1)  # of each batch: which part, of how many


class Batches:
    """The images of one step after the other: float32 [b c h w], as bytes."""

    def __init__(self, stream: "Stream", order: Order):
        self.stream, self.order = stream, order
        self._epoch: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> bytes:
        order, numbers = self.order, self.stream.numbers
        epoch, place = divmod(step, len(numbers) // order.batch_size)
        if self._epoch is None or self._epoch[0] != epoch:
            key = jax.random.wrap_key_data(jnp.asarray(order.key))
            self._epoch = epoch, np.asarray(epoch_order(key, epoch, len(numbers)))
        part, parts = order.share
        size = order.batch_size // parts
        start = place * order.batch_size + part * size
        rows = self._epoch[1][start : start + size, None] + np.arange(order.channels)
        return self.stream.read(numbers[rows.ravel() % len(numbers)]).tobytes()

    def array(self, batches: list[bytes]) -> np.ndarray:
        """Returns batches that were read as one array [s b c h w]."""
        side, order = self.stream.files.wanted.size, self.order
        shape = (len(batches), order.batch_size // order.share[1], order.channels, side, side)
        return np.frombuffer(b"".join(batches), np.float32).reshape(shape)


class Stream(NamedTuple):
    """Training images that stay in their files."""

    files: ImageFiles
    numbers: np.ndarray  # of the training images among the files
    offset: float  # radians that are added to phases

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Reads some of the files: float32 [n h w] in [0, 1].

        Raises:
            InputError: If one cannot be read any more.
        """
        images = np.stack([self.files.read(int(number))[0] for number in numbers])
        return in_range(images, self.files.wanted, self.offset)

    def batches(self, key: Key, *, batch_size: int, channels: int, steps: int) -> Batches:
        """Returns a training's batches, of which each process takes its share."""
        share = (jax.process_index(), jax.process_count()) if processes.several() else (0, 1)
        key_data = np.asarray(jax.random.key_data(key))
        return Batches(self, Order(key_data, batch_size, channels, steps, share))


class _Inspected:
    """Chunks of files, looked at: a list of (their bytes, what is told of them), or of failures."""

    def __init__(self, files: ImageFiles, numbers: np.ndarray, offset: float):
        self.files, self.numbers, self.offset = files, numbers, offset

    def __len__(self) -> int:
        return -(-len(self.numbers) // CHUNK)

    def __getitem__(self, chunk: int) -> list[tuple[bytes, Facts] | InputError]:
        return [self._one(n) for n in self.numbers[chunk * CHUNK : (chunk + 1) * CHUNK]]

    def _one(self, number: int) -> tuple[bytes, Facts] | InputError:
        try:
            image, facts = self.files.read(int(number))
        except InputError as failure:
            return failure
        return in_range(image, self.files.wanted, self.offset).tobytes(), facts


def inspect(
    files: ImageFiles, splits: dict[str, np.ndarray], *, offset: float, skip: bool
) -> tuple[Inspection, bytes, bytes]:
    """Reads every file once, and keeps none.

    Args:
        files: The images.
        splits: The numbers of the "train", "validation" and "test" images.
        offset: Radians that are added to phases.
        skip: As of `inspection.read_images`.

    Returns:
        What was found; and `sources.digest_of` of all splits, and of those that are held back.

    Raises:
        InputError: If one cannot be read, and none may be skipped.
    """
    found = Inspection(files, skip=skip)
    whole, held_back = hashlib.sha256(), hashlib.sha256()
    parts = {"train": (whole,), "validation": (whole, held_back), "test": (whole, held_back)}
    used = np.concatenate([splits[name] for name in parts])
    rest = np.setdiff1d(np.arange(len(files)), used)
    side = files.wanted.size
    with progress(total=len(files), desc="looking at images", unit="image") as bar:
        with in_workers(_Inspected(files, np.concatenate([used, rest]), offset)) as chunks:
            looked_at = itertools.chain.from_iterable(chunks)
            for name, hashes in {**parts, "": ()}.items():
                numbers = splits.get(name, rest)
                for digest in hashes:
                    digest.update(header(name, (len(numbers), side, side), "float32"))
                for number, one in zip(numbers, looked_at, strict=False):
                    bar.update()
                    if isinstance(one, InputError):
                        found.leave_out(int(number), one)
                        continue
                    found.add(one[1])
                    for digest in hashes:
                        digest.update(one[0])
    return found, whole.digest(), held_back.digest()


def header(name: str, shape: tuple[int, ...], dtype: object) -> bytes:
    """Returns what a digest of arrays has before the bytes of each."""
    return f"{name} {shape} {dtype}".encode()
