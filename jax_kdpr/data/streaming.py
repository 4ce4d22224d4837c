"""Images that do not fit into memory: other processes read them batch by batch during training.

Training is the same, bit for bit, as with images in memory: `epoch_order` gives the order of an
epoch, and the images are those that `inspection.read_all` would make.
"""

import hashlib
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import processes, runtime, signals
from jax_kdpr.core.errors import InputError, StoppedError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Key
from jax_kdpr.data.batches import epoch_order
from jax_kdpr.data.image_files import Facts, ImageFiles
from jax_kdpr.data.inspection import SKIPPING, Inspection, in_range

WORKERS = 8  # most processes that read; one core stays free
AHEAD = 3  # items per worker that are ready or being made
AHEAD_BYTES = 2**30  # limit for them; one per worker is always allowed
CHUNK_BYTES = 2**22  # limit for the images that are inspected in one call
SAMPLE, SAMPLE_NUMBERS = 4096, 2**27  # limits of `sources.Dataset.train`: images, pixels


@runtime_checkable
class Series(Protocol):
    """Items that workers make by their number; the series itself is sent to the workers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


@contextmanager
def in_workers(series: Series, *, first: int = 0, item_bytes: int = 1) -> Iterator[Iterator[Any]]:
    """Opens the items of a series from `first` on, in order; other processes make them ahead.

    Args:
        series: The series.
        first: Number of the first item.
        item_bytes: Approximate size of an item.

    Raises:
        InputError: If this process may not start others, or is itself still being started by
            another one.
        StoppedError: From the iterator, if a worker has died.
        Exception: From the iterator, whatever the series raises.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # while it starts
        raise InputError(
            "data.memory: images are read by processes that begin by importing the script: put "
            'what it does under if __name__ == "__main__":, or raise data.memory'
        )
    if multiprocessing.current_process().daemon:
        raise InputError(
            "data.memory: images are read by processes, and this one, of a pool, may start none; "
            "start it otherwise, or raise data.memory"
        )
    workers = max(1, min(WORKERS, runtime.cpu_cores() - 1))
    ahead = max(workers, min(workers * AHEAD, AHEAD_BYTES // item_bytes))
    settings = {name: getattr(jax.config, name) for name in runtime.RANDOM_NUMBERS}
    with tempfile.NamedTemporaryFile() as file:
        # Not passed as an argument: Python writes arguments into a pipe of 64 KiB whose other end
        # it holds open, and would wait for ever for a process that died before reading them.
        pickle.dump((series, settings), file)
        file.flush()
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(), file.name),
        )
        try:
            yield _items(pool, iter(range(first, len(series))), ahead)
        finally:
            pool.shutdown(cancel_futures=True)


def _items(pool: ProcessPoolExecutor, numbers: Iterator[int], ahead: int) -> Iterator[Any]:
    asked: deque[Future] = deque()
    try:
        for number in itertools.islice(numbers, ahead):
            asked.append(_ask(pool, number))
        while asked:
            item = asked.popleft().result()
            for number in itertools.islice(numbers, 1):
                asked.append(_ask(pool, number))
            yield item
    except BrokenProcessPool as died:
        raise StoppedError(
            "a process that reads images has died: killed, for want of memory, or by a damaged "
            "file; what was saved is kept, run the same command again to go on"
        ) from died


def _ask(pool: ProcessPoolExecutor, number: int) -> Future:
    """Requests an item; a worker that this starts gets no Ctrl-C, since its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return pool.submit(_make, number)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_series: Any = None  # set in a worker


def _begin(parent: int, file: str) -> None:
    """Prepares a worker, which ends with the process that started it."""
    global _series

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        with suppress(OSError):
            os.unlink(file)  # the parent had no time to remove it
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")  # no worker takes a GPU
    try:
        with open(file, "rb") as opened:
            _series, settings = pickle.load(opened)
    except FileNotFoundError:  # the parent is gone
        os._exit(1)
    for name, value in settings.items():
        jax.config.update(name, value)


def _make(number: int) -> Any:
    return _series[number]


class Order(NamedTuple):
    """Which images each step of a training takes."""

    key: np.ndarray  # data of the key from which all epoch orders follow
    batch_size: int
    channels: int  # of a scene; the second may be the next image (`batches.take_batch`)
    steps: int  # number of steps of the whole training
    share: tuple[int, int] = (0, 1)  # of each batch: index of the part, number of parts


class Batches:
    """The series of the images of each step: float32 [b c h w]."""

    def __init__(self, stream: "Stream", order: Order):
        self.stream, self.order = stream, order
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def item_bytes(self) -> int:
        """Bytes of the images of one step."""
        order, size = self.order, self.stream.files.wanted.size
        return 4 * order.batch_size // order.share[1] * order.channels * size**2

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> np.ndarray:
        order, numbers = self.order, self.stream.numbers
        epoch, place = divmod(step, len(numbers) // order.batch_size)
        if self._epoch is None or self._epoch[0] != epoch:
            key = jax.random.wrap_key_data(jnp.asarray(order.key))
            self._epoch = epoch, np.asarray(epoch_order(key, epoch, len(numbers)))
        part, parts = order.share
        size = order.batch_size // parts
        start = place * order.batch_size + part * size
        rows = self._epoch[1][start : start + size]
        if self.stream.files.wanted.channels == order.channels > 1:
            return np.moveaxis(self.stream.read(numbers[rows]), -1, 1)
        rows = rows[:, None] + np.arange(order.channels)
        images = self.stream.read(numbers[rows.ravel() % len(numbers)])
        return images.reshape(size, order.channels, *images.shape[1:])


class Stream(NamedTuple):
    """Training images that stay in their files."""

    files: ImageFiles
    numbers: np.ndarray  # indices of the training images among the files
    offset: float  # radians that are added to phases

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Reads some of the scenes: float32 [n h w] or [n h w 2] in [0, 1].

        Raises:
            InputError: If a file can no longer be read.
        """
        images = np.stack([self.files.read(int(number))[0] for number in numbers])
        return in_range(images, self.files.wanted, self.offset)

    def batches(self, key: Key, *, batch_size: int, channels: int, steps: int) -> Batches:
        """Returns the batches of a training; each process gets its share of every batch."""
        share = (jax.process_index(), jax.process_count()) if processes.several() else (0, 1)
        key_data = np.asarray(jax.random.key_data(key))
        return Batches(self, Order(key_data, batch_size, channels, steps, share))


class _Chunks:
    """A series of chunks of files: for each file image bytes and `Facts`, or the error."""

    def __init__(self, files: ImageFiles, numbers: np.ndarray, used: int, offset: float):
        """Image bytes are made only of the first `used` files."""
        self.files, self.numbers, self.used, self.offset = files, numbers, used, offset
        self.length = max(1, CHUNK_BYTES // (4 * math.prod(files.wanted.shape)))

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.length)

    def __getitem__(self, chunk: int) -> list[tuple[bytes, tuple[Facts, ...]] | InputError]:
        first = chunk * self.length
        return [self._one(n) for n in range(first, min(first + self.length, len(self.numbers)))]

    def _one(self, place: int) -> tuple[bytes, tuple[Facts, ...]] | InputError:
        try:
            image, facts = self.files.read(int(self.numbers[place]))
        except InputError as failure:
            return failure
        if place >= self.used:
            return b"", facts
        return in_range(image, self.files.wanted, self.offset).tobytes(), facts


def inspect(
    files: ImageFiles, splits: dict[str, np.ndarray], *, offset: float, skip: bool
) -> tuple[Inspection, bytes, bytes]:
    """Reads every file once, and keeps no image.

    Args:
        files: The images.
        splits: The numbers of the "train", "validation" and "test" images.
        offset: Radians that are added to phases.
        skip: As in `inspection.read_images`.

    Returns:
        What was found, the digest of all splits, and that of validation and test images alone.

    Raises:
        InputError: If a file cannot be read, and `skip` is False.
    """
    found = Inspection(files, skip=skip, hint=SKIPPING)
    whole, held_back = hashlib.sha256(), hashlib.sha256()
    parts = {"train": (whole,), "validation": (whole, held_back), "test": (whole, held_back)}
    used = np.concatenate([splits[name] for name in parts])
    rest = np.setdiff1d(np.arange(len(files)), used)
    chunks = _Chunks(files, np.concatenate([used, rest]), len(used), offset)
    with ExitStack() as opened:
        bar = opened.enter_context(
            progress(total=len(files), desc="looking at images", unit="image")
        )
        if not processes.several():  # several answer a signal together, later
            opened.enter_context(signals.noting())
        looked_at = itertools.chain.from_iterable(opened.enter_context(in_workers(chunks)))
        for name, hashes in {**parts, "": ()}.items():
            numbers = splits.get(name, rest)
            for digest in hashes:
                digest.update(header(name, (len(numbers), *files.wanted.shape), "float32"))
            for number, one in zip(numbers, looked_at, strict=False):
                bar.update()
                signals.check()
                if isinstance(one, InputError):
                    found.leave_out(int(number), one)
                    continue
                found.add(one[1])
                for digest in hashes:
                    digest.update(one[0])
    return found, whole.digest(), held_back.digest()


def header(name: str, shape: tuple[int, ...], dtype: object) -> bytes:
    """Returns what precedes the bytes of each array in a digest of arrays."""
    return f"{name} {shape} {dtype}".encode()
