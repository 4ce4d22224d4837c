"""What depends on the machine and not on the experiment: cores, memory, compiled programs.

Each `choose_*` turns the option 0 ("the machine decides") into a number; what it returns changes
how fast a run is, and its results by rounding at most.
"""

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.whole_files import obstacle

# An FFT in a thread of XLA's pool shares its work with the pool's other threads, and waits for
# them: with as many devices as threads, each waits for the others for ever (jaxlib 0.11.2, since
# openxla/xla pull 46347). A kernel that keeps to its thread cannot.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# What JAX draws from a key depends on these.
RANDOM_NUMBERS = {"jax_default_prng_impl": "threefry2x32", "jax_threefry_partitionable": True}
CPU_DEVICES = 8  # at most: every device holds a copy of the data
CPU_EVAL_BATCH = 128
GPU_EVAL_BATCH = 1024
EVAL_BYTES = 4 * 2**30  # of features at full resolution, in one evaluation batch
GPU_SCAN_STEPS = 64  # enough to hide the host; a signal waits for one such chunk
GPU_SCAN_BYTES = 2**28  # of images of one such chunk
TARGETS_SHARE = 0.25  # of a device's memory that cached distillation targets may take
# What a container may take of its machine's memory, bytes (cgroups of version 2 and 1).
CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
CPU_CACHE = 2**20  # bytes that a core has close at hand (L2 of today's servers)
STORED_SHARE = 0.25  # that the gradient of a system's part may keep of what it could make again
_elsewhere: int | None = None  # memory of the GPU that stands in for this machine's devices


def set_up() -> None:
    """Prepares JAX for a command line; must run before its first computation.

    * Each CPU core, up to `CPU_DEVICES`, becomes one device of one thread: XLA runs a convolution
      of 64 features or fewer on a single one anyway, and a batch spread over two cores is up to
      twice as fast.
    * Compiled programs are kept in ~/.cache/jax_kdpr (or $XDG_CACHE_HOME, or where
      JAX_COMPILATION_CACHE_DIR says), if that can be written.
    * Random numbers are those of `RANDOM_NUMBERS`, and floats have 32 bits, whatever the
      environment says: a seed means one run.

    Raises:
        InputError: If the devices that JAX_PLATFORMS asks for are not there.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in given:
        if ONE_THREAD.partition("=")[0] not in given:
            os.environ["XLA_FLAGS"] = f"{given} {ONE_THREAD}".strip()
        jax.config.update("jax_num_cpu_devices", min(cpu_cores(), CPU_DEVICES))
    jax.config.update("jax_compilation_cache_dir", _cache_folder())
    jax.config.update("jax_enable_x64", False)
    for name, value in RANDOM_NUMBERS.items():
        jax.config.update(name, value)
    try:
        jax.devices()
    except Exception as failure:  # JAX raises many kinds
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX_PLATFORMS: no device of {asked!r} can be used here ({type(failure).__name__}: "
            f"{str(failure)[:200]}); unset it, or install what it needs (README.md, Install)"
        ) from failure


def _cache_folder() -> str | None:
    """Where compiled programs are kept; None where nothing can be."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return None if obstacle(Path(folder)) else folder
    own = user_cache()
    return None if own is None else str(own)


def user_cache() -> Path | None:
    """Returns the package's folder in the user's cache; None where nothing can be kept."""
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(home, "jax_kdpr")
    return folder if os.path.isabs(home) and not obstacle(folder) else None  # or there is no home


def random_numbers() -> dict[str, object]:
    """Returns which of the settings of `RANDOM_NUMBERS` are others now, with their values."""
    now = {name: getattr(jax.config, name) for name in RANDOM_NUMBERS}
    return {name: value for name, value in now.items() if value != RANDOM_NUMBERS[name]}


def cpu_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def on_cpu() -> bool:
    """Returns whether computations run on the CPU by default."""
    return _elsewhere is None and jax.default_backend() == "cpu"


@contextmanager
def standing_in(memory: int) -> Iterator[None]:
    """Makes every choice inside as for a GPU of so many bytes: programs are compiled for one."""
    global _elsewhere
    _elsewhere, before = memory, _elsewhere
    try:
        yield
    finally:
        _elsewhere = before


def choose_devices(requested: int, *batch_sizes: int) -> int:
    """Returns how many devices to spread batches over: on a CPU all that divide them, else one.

    Of several processes it is all that they have.

    Raises:
        InputError: If more are asked for than there are, or several processes cannot share out a
            batch.
    """
    if jax.process_count() > 1:
        return _devices_of_all(requested, batch_sizes)
    there = jax.local_device_count()
    if requested > there:
        raise InputError(
            f"train.devices: expected at most the {there} device(s) of this machine, got "
            f"{requested}"
        )
    if requested or not on_cpu():
        return requested or 1
    common = math.gcd(*batch_sizes)
    return max(n for n in range(1, there + 1) if common % n == 0)


def _devices_of_all(requested: int, batch_sizes: Sequence[int]) -> int:
    there = jax.device_count()
    each = Counter(device.process_index for device in jax.devices()).values()
    if len(set(each)) > 1:
        raise InputError(
            f"--coordinator: expected as many devices in each process, got {min(each)} to "
            f"{max(each)}; hide some by CUDA_VISIBLE_DEVICES"
        )
    if requested not in (0, there):
        raise InputError(
            f"train.devices: expected 0, or all {there} devices of the {jax.process_count()} "
            f"processes, got {requested}"
        )
    for name, size in zip(("batch_size", "eval_batch_size"), batch_sizes, strict=True):
        if size % there:
            raise InputError(
                f"train.{name}: expected a multiple of the {there} devices of the "
                f"{jax.process_count()} processes, got {size}"
            )
    return there


def choose_eval_batch(requested: int, *, size: int, features: int, devices: int = 1) -> int:
    """Returns how many images to evaluate at a time: a multiple of the `devices` asked for.

    As many as `EVAL_BYTES` hold, 6 maps of `features` float32 numbers a pixel each (two
    convolutions, and the decoder's joined input), but no more than `GPU_EVAL_BATCH`, or
    `CPU_EVAL_BATCH`.
    """
    if requested:
        return requested
    fitting = max(1, EVAL_BYTES // (size * size * features * 6 * 4))
    most = CPU_EVAL_BATCH if on_cpu() else GPU_EVAL_BATCH
    return -(-min(most, 2 ** (fitting.bit_length() - 1)) // devices) * devices


def choose_scan_steps(requested: int, steps_per_epoch: int, *, step_bytes: int = 0) -> int:
    """Returns how many training steps one call of the device makes.

    1 on a CPU, where XLA runs convolutions inside a loop tens of times slower. Elsewhere about
    `GPU_SCAN_STEPS`, and if possible a divisor of the epoch, so that one program does; of images
    that are read while training, `step_bytes` a step, no more than `GPU_SCAN_BYTES` hold.
    """
    if requested or on_cpu():
        return min(requested or 1, steps_per_epoch)
    limit = min(GPU_SCAN_STEPS, steps_per_epoch)
    if step_bytes:
        limit = max(1, min(limit, GPU_SCAN_BYTES // step_bytes))
    divisor = max(n for n in range(1, limit + 1) if steps_per_epoch % n == 0)
    return divisor if 4 * divisor >= limit else limit


def peak_memory() -> int | None:
    """Returns the most bytes that this process has held on the default device; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def device_memory() -> int:
    """Returns the bytes of the default device; on a CPU those of the machine, or its container."""
    if _elsewhere is not None:
        return _elsewhere
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory()


def sharing_memory() -> int:
    """Returns how many devices share one memory: all of a CPU's."""
    return jax.local_device_count() if on_cpu() else 1


def fits(needed: int) -> bool:
    """Whether so many bytes are few enough to be kept for a gradient rather than made again.

    They are those of all devices together, held against the memory of one: a CPU's share one.
    """
    return needed <= STORED_SHARE * device_memory()


def host_memory() -> int:
    """Returns the bytes of the machine's memory, or of those that its container may take."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # none, or "max"
            machine = min(machine, int(Path(limit).read_text()))
    return machine


def require_memory(options: str, needed: int) -> None:
    """Raises `InputError` if what `options` ask for, in bytes, is more than there is."""
    if needed > (there := device_memory()):
        raise InputError(
            f"{options}: ask for at least {needed / 2**30:,.1f} GiB of memory, there are "
            f"{there / 2**30:,.1f} GiB; lower one of them"
        )
