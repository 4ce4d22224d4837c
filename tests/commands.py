"""Commands of the package, each in a process of its own, as a user runs them."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from unittest import mock

# Most of the tests' time would go into compiling programs that run a few times: hence no LLVM
# optimisation, XLA's older emitters (a third of the time of those by MLIR), and one thread.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    QUICKLY_COMPILED += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )

# Processes are forks of one that has imported all that commands are made of: the most of the two to
# five seconds of a command that only refuses its input. What defines flags belongs to a command.
PACKAGE = Path(__file__).parents[1] / "jax_kdpr"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.glob("*/**/*.py"))
        if "flags.DEFINE" not in path.read_text()
    ]
)


def user_environment(**variables: str) -> dict[str, str]:
    """Of a process on the CPU that decides on its devices itself; compiled quickly."""
    return os.environ | {"XLA_FLAGS": QUICKLY_COMPILED, "JAX_PLATFORMS": "cpu"} | variables


def run(
    module: str, *arguments: str | Path, cwd: Path | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m jax_kdpr.MODULE ARGUMENTS`."""
    return run_program(f"jax_kdpr.{module}", *arguments, cwd=cwd, check=check)


def run_program(
    module: str, *arguments: str | Path, cwd: Path | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m MODULE ARGUMENTS`, of the package or of the tests."""
    command = [module, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / "out", Path(folder) / "err"]
        place = (user_environment(), cwd or Path.cwd(), streams)
        process = FORKS.Process(target=_run_module, args=(command, *place))
        with mock.patch.dict(os.environ, user_environment()):  # what the imports of the first see
            process.start()
        process.join(600)
        process.kill()
        process.join()
        assert process.exitcode is not None
        done = subprocess.CompletedProcess(
            command, process.exitcode, *(stream.read_text() for stream in streams)
        )
    if check:
        done.check_returncode()
    return done


def _run_module(
    command: list[str], environment: dict[str, str], cwd: Path, streams: list[Path]
) -> None:
    """What a forked process does: `python -m` with its output in two files."""
    for number, stream in enumerate(streams, start=1):
        opened = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = command
    sys.path.insert(0, str(cwd))
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
