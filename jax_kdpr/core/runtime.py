"""What depends on the machine and not on the experiment: devices, memory, compiled programs.

Each `choose_*` function turns the option value 0 ("the machine decides") into a number. That number
determines how fast a run is, and changes its results by no more than rounding.
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

# An FFT in a thread of XLA's pool shares its work with the other threads of the pool, and waits for
# them. With as many devices as threads, they wait for each other for ever (jaxlib 0.11.2, since
# openxla/xla pull 46347). This flag keeps a kernel in its own thread, where it cannot deadlock.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
SHORTEST_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Settings that the random numbers drawn from a key depend on.
RANDOM_NUMBERS = {"jax_default_prng_impl": "threefry2x32", "jax_threefry_partitionable": True}
CPU_DEVICES = 8  # upper limit: every device holds a copy of the data
CPU_EVAL_BATCH = 128
GPU_EVAL_BATCH = 1024
EVAL_BYTES = 4 * 2**30  # limit of the features at full resolution in one evaluation batch
GPU_SCAN_STEPS = 64  # enough to hide the host's work; a signal waits for the end of such a call
GPU_SCAN_BYTES = 2**28  # limit of the images of one such call
TARGETS_SHARE = 0.25  # share of a device's memory that cached distillation targets may take
# Files with the memory limit of a container, in bytes (cgroups version 2 and version 1).
CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
CPU_CACHE = 2**20  # bytes of the cache of a core (L2 of today's servers)
STORED_SHARE = 0.25  # share of memory for values that a gradient stores but could recompute
_elsewhere: int | None = None  # bytes of the GPU that `standing_in` assumes


def require_32_bits() -> None:
    """Refuses JAX's 64-bit mode, in which random streams and checkpoints are others.

    Raises:
        InputError: If it is on.
    """
    if jax.dtypes.canonicalize_dtype(float) == "float64":
        raise InputError(
            "jax_enable_x64: runs are trained, restored and drawn in 32 bits; leave it off, or "
            "call within `with jax.enable_x64(False):`"
        )


def set_up() -> None:
    """Prepares JAX for a command; must run before the first computation.

    * Each CPU core, up to `CPU_DEVICES`, becomes a device with one thread. XLA runs a convolution
      of 64 features or fewer in a single thread anyway, and a batch spread over two cores is up to
      twice as fast.
    * Compiled programs are kept in JAX_COMPILATION_CACHE_DIR or else in the folder jax_kdpr of
      $XDG_CACHE_HOME or ~/.cache, if that folder can be written to. JAX would leave out those that
      compile in less than a second; together the hundred of a command take several.
    * The settings `RANDOM_NUMBERS` and 32-bit floats apply whatever the environment says, so that a
      seed means one run.

    Raises:
        InputError: If the devices that JAX_PLATFORMS asks for are not available.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in given:
        if ONE_THREAD.partition("=")[0] not in given:
            os.environ["XLA_FLAGS"] = f"{given} {ONE_THREAD}".strip()
        jax.config.update("jax_num_cpu_devices", min(cpu_cores(), CPU_DEVICES))
    jax.config.update("jax_compilation_cache_dir", _cache_folder())
    if SHORTEST_VARIABLE not in os.environ:
        jax.config.update(SHORTEST_VARIABLE.lower(), 0)
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
    """Returns the folder for compiled programs; None if it cannot be written to."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return None if obstacle(Path(folder)) else folder
    own = user_cache()
    return None if own is None else str(own)


def user_cache() -> Path | None:
    """Returns the package's folder in the user's cache; None if it cannot be written to."""
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(home, "jax_kdpr")
    # The path stays relative if there is no home folder.
    return folder if os.path.isabs(home) and not obstacle(folder) else None


def random_numbers() -> dict[str, object]:
    """Returns the present values of the settings that now differ from `RANDOM_NUMBERS`."""
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
    """Makes all choices in the context as for a GPU of `memory` bytes, to compile for it."""
    global _elsewhere
    _elsewhere, before = memory, _elsewhere
    try:
        yield
    finally:
        _elsewhere = before


def choose_devices(requested: int, *batch_sizes: int) -> int:
    """Returns how many devices to spread batches over.

    By default, a CPU takes the largest number that divides all batches, and other hardware one.
    Several processes always use all their devices.

    Raises:
        InputError: If more devices are requested than there are, or a batch cannot be divided among
            several processes.
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
    """Returns how many images to evaluate at a time: unless `requested`, a multiple of `devices`.

    It is the largest power of two for which `EVAL_BYTES` hold 6 maps of `features` float32 numbers
    per pixel (two convolutions, and the joined input of the decoder), but at most `GPU_EVAL_BATCH`
    or `CPU_EVAL_BATCH`; then rounded up.
    """
    if requested:
        return requested
    fitting = max(1, EVAL_BYTES // (size * size * features * 6 * 4))
    most = CPU_EVAL_BATCH if on_cpu() else GPU_EVAL_BATCH
    return -(-min(most, 2 ** (fitting.bit_length() - 1)) // devices) * devices


def choose_scan_steps(requested: int, steps_per_epoch: int, *, step_bytes: int = 0) -> int:
    """Returns how many training steps one call of the device makes.

    On a CPU it is 1, since XLA runs convolutions inside a loop tens of times slower there.
    Elsewhere it is about `GPU_SCAN_STEPS`, if possible a divisor of the epoch, so that one compiled
    program is enough. Images that are read while training, `step_bytes` per step, must fit into
    `GPU_SCAN_BYTES`.
    """
    if requested or on_cpu():
        return min(requested or 1, steps_per_epoch)
    limit = min(GPU_SCAN_STEPS, steps_per_epoch)
    if step_bytes:
        limit = max(1, min(limit, GPU_SCAN_BYTES // step_bytes))
    divisor = max(n for n in range(1, limit + 1) if steps_per_epoch % n == 0)
    return divisor if 4 * divisor >= limit else limit


def peak_memory() -> int | None:
    """Returns the peak memory of this process on the default device, in bytes; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def device_memory() -> int:
    """Returns the memory of the default device, in bytes; on a CPU, `host_memory`."""
    if _elsewhere is not None:
        return _elsewhere
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory()


def sharing_memory() -> int:
    """Returns how many devices share one memory: on a CPU all of them, else one."""
    return jax.local_device_count() if on_cpu() else 1


def fits(needed: int) -> bool:
    """Returns whether a gradient may store `needed` bytes instead of recomputing them.

    The limit is a share of the memory of one device. Devices of a CPU share their memory, so
    `needed` must count all of them.
    """
    return needed <= STORED_SHARE * device_memory()


def host_memory() -> int:
    """Returns the memory of the machine in bytes, or the limit of its container if lower."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            machine = min(machine, int(Path(limit).read_text()))
    return machine


def require_memory(options: str, needed: int) -> None:
    """Raises `InputError` if the `needed` bytes, which `options` ask for, exceed the memory."""
    if needed > (there := device_memory()):
        raise InputError(
            f"{options}: ask for at least {needed / 2**30:,.1f} GiB of memory, there are "
            f"{there / 2**30:,.1f} GiB; lower one of them"
        )
