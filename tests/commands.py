"""Commands of the package, each in a process of its own, as a user runs them."""

import atexit
import contextlib
import importlib
import io
import itertools
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

from absl import app, flags
from compiling import QUICKLY_COMPILED

# Commands in processes of their own cannot read the bytecode of modules that were imported under
# jaxtyping's hook: they would end with a KeyError.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# Processes are forks of one that has imported all that commands are made of: the most of the two to
# five seconds of a command that only refuses its input. What defines flags belongs to a command.
PACKAGE = Path(__file__).parents[1] / "jax_kdpr"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.glob("*/**/*.py"))
        if "from absl import flags" not in path.read_text()
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


def call(
    module: str, *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Does in this process what `run` does: for what a command refuses, in milliseconds.

    Without signals and devices of its own, and with no flags but its own: commands share names.
    """
    import jax

    from jax_kdpr.core import runtime, signals

    name, out, err = f"jax_kdpr.{module}", io.StringIO(), io.StringIO()
    command = [name, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        for place in (
            mock.patch.dict(flags.FLAGS._flags()),
            mock.patch.object(sys, "argv", command),
            mock.patch.object(
                app, "run", lambda main, flags_parser: sys.exit(main(flags_parser(sys.argv)))
            ),
            *(mock.patch.object(signals, each) for each in ("take_over", "all_done")),
            mock.patch.object(runtime, "set_up"),
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            stack.enter_context(place)
        cache = "jax_enable_compilation_cache"  # which a benchmark does without
        stack.callback(jax.config.update, cache, getattr(jax.config, cache))
        warnings.simplefilter("ignore", DeprecationWarning)  # of reading a config file
        _hide_flags_except(module)
        imported, code = sys.modules.pop(name, None), 0
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        finally:
            flags.FLAGS.unparse_flags()
            flags.FLAGS.mark_as_parsed()
            if imported:
                sys.modules[name] = imported
    assert isinstance(code, int)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def refusal(module: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Returns the one line with which a command that is called so refuses what it is given."""
    done = call(module, *arguments, cwd=cwd)
    (line,) = [said for said in done.stderr.splitlines() if not said.startswith("WARNING")]
    assert done.returncode == 2 and line.startswith("error: "), done
    return line.removeprefix("error: ").removeprefix("flag ")


def import_flags(module: str) -> None:
    """Imports the flag modules of a command, so that what is patched later is not kept there."""
    with mock.patch.dict(flags.FLAGS._flags()):
        _hide_flags_except(module)


def _hide_flags_except(module: str) -> None:
    """Leaves what other packages define, and what the modules that a command names share."""
    owners = ["jax_kdpr.interface.cli", *(f"jax_kdpr.interface.{one}" for one in _shared(module))]
    known = flags.FLAGS._flags()

    def defined() -> dict[str, list[flags.Flag]]:
        found = flags.FLAGS.flags_by_module_dict()
        return {name: found[name] for name in [*found] if name.startswith("jax_kdpr.")}

    for flag in itertools.chain(*defined().values()):
        known.pop(flag.name, None)
    for owner in owners:
        importlib.import_module(owner)
        shared = [flag for flag in defined().get(owner, []) if not flag.name.startswith("config")]
        known |= {flag.name: flag for flag in shared}


def _shared(module: str) -> dict[str, None]:
    """Rooms of flags that a module names, each after those that it names itself."""
    text = (PACKAGE / f"{module}.py").read_text()
    lines = re.findall(
        r"^from jax_kdpr.interface(?: import (.*)|\.(\w+) import)", text, re.MULTILINE
    )
    named = [name for line in lines for name in ", ".join(line).split(", ") if "flags" in name]
    found: dict[str, None] = {}
    for name in named:
        found |= _shared(f"interface/{name}") | {name: None}
    return found


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
