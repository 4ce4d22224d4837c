"""Where results come from: time, commit, versions of packages, devices."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax_kdpr

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    """Returns the provenance of results: time, commit, versions and devices."""
    import jax  # not before: workers of a cluster, which read only versions, start quickly

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu": _processor(),
        "cpu_count": os.cpu_count(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of this package and of `PACKAGES`, without importing them."""
    found = {"jax_kdpr": jax_kdpr.__version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    """Returns the name of the processor, as far as the system tells it."""
    with suppress(OSError):  # the file exists on Linux only
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if named:
            return named[1]
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Returns the commit of the source tree, "+" appended if it was changed.

    Outside git, as in a folder that launch/pack_for_gpu.sh made, it is KDPR_COMMIT, or "" if that
    is not set. A repository that contains this file without tracking it, such as the project whose
    .venv it is in, does not count.
    """

    def git(*command: str) -> str:
        words = ["git", "-C", str(Path(__file__).parent), *command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("KDPR_COMMIT", "")
