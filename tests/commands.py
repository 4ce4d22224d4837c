"""Commands of the package, each in a process of its own, as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

# Most of the tests' time would go into LLVM's optimisation of programs that run a few times.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0"


def user_environment(**variables: str) -> dict[str, str]:
    """Of a process on the CPU that decides on its devices itself; compiled quickly."""
    return os.environ | {"XLA_FLAGS": QUICKLY_COMPILED, "JAX_PLATFORMS": "cpu"} | variables


def run(
    module: str, *arguments: str | Path, cwd: Path | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m jax_kdpr.MODULE ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, "-m", f"jax_kdpr.{module}", *map(str, arguments)],
        cwd=cwd,
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=check,
    )
