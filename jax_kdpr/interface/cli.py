"""What every command line shares: reading flags and config, and the one line of an input error."""

import difflib
import errno
import io
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from jax_kdpr.config import checks
from jax_kdpr.config import schema as config_lib
from jax_kdpr.core import options, runtime, signals, whole_files
from jax_kdpr.core.errors import InputError, StoppedError
from jax_kdpr.core.limits import Range, number_hint, require
from jax_kdpr.core.registry import allow
from jax_kdpr.interface.help_page import help_page
from jax_kdpr.runs import checkpoint

flags.DEFINE_list("allow_code", [], "Packages whose code a run folder may name, and so run.")
# Exit codes.
BAD_INPUT = 2
STOPPED = 1
FLOATS = Range(-1e30, 1e30)  # of flags, whose own bounds are closer
INTEGERS = Range(-(2**31), 2**32)


def define_config() -> flags.FlagHolder:
    """Defines `--config FILE`, and `--config.PATH=VALUE`, which absl reads as `--config_option`."""
    flags.DEFINE_multi_string("config_option", [], "PATH=VALUE")
    return flags.DEFINE_string("config", None, "Path of a config file.")


def run(main: Callable[[list[str]], int | None], *, prefix: str = "") -> None:
    """Parses the flags and runs main(positional arguments), which may return an exit code.

    An `InputError`, in the flags or later, prints as one line on stderr and exits with code 2; a
    `StoppedError`, or what the system refuses, as a disk that is full, with code 1.

    Args:
        main: The command.
        prefix: What the options of a `Config` have before them in its config file ("base.").
    """

    def parse(argv: Sequence[str]) -> list[str]:
        if {"--help", "-h", "-help"} & set(argv):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends quietly
            print(help_page(prefix))
            sys.exit(0)
        if "config" in flags.FLAGS:
            argv = [re.sub(r"^--?config\.", "--config_option=", argument) for argument in argv]
        try:
            left = flags.FLAGS(argv)
            _require_usable()
            allow(flags.FLAGS.allow_code)
        except (flags.Error, InputError) as failure:
            _exit_with(_flag_message(failure, prefix))
        return [left[0], *map(os.path.expanduser, left[1:])]

    def guarded(argv: Sequence[str]) -> int | None:
        checkpoint.quiet_logs()
        try:
            runtime.set_up()
            code = main(list(argv[1:])) or 0
            signals.all_done(code)
            return code
        except InputError as failure:
            _exit_with(str(failure))
        except StoppedError as failure:
            _exit_with(str(failure), code=STOPPED)
        except BrokenPipeError:  # whoever reads what is printed has left, as `head` does
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return 128 + signal.SIGPIPE  # as a shell expects
        except OSError as failure:
            if failure.errno is None:  # a library's, not the system's
                raise
            said = whole_files.not_written(failure.filename or "a file", str(failure.strerror))
            is_input = failure.errno == errno.ENAMETOOLONG
            _exit_with(said, code=BAD_INPUT if is_input else STOPPED)
        except signals.Interrupted as stop:
            print(stop, file=sys.stderr)
            return stop.exit_code

    signals.take_over()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A line at a time, so that whatever ends the process loses none that is said.
            stream.reconfigure(errors="replace", line_buffering=True)
    app.run(guarded, flags_parser=parse)


def load_config(flag: flags.FlagHolder, kind: type) -> Any:
    """Returns what the config file of a `define_config` flag makes, with the options given beside.

    Raises:
        InputError: If there is no file, it raises, makes something else than a `kind`, or has not
            such options.
    """
    path = flag.value
    if path is None:
        raise InputError("--config: a config file is needed, such as configs/quickstart/e2e.py")
    if not Path(path).is_file():
        near = difflib.get_close_matches(path, map(str, Path(".").glob("configs/*/*.py")))
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"--config: no config file {path!r}{hint}")
    try:
        config = runpy.run_path(path).get("get_config", lambda: None)()
    except Exception as failure:  # all that runs here is the user's
        where = traceback.extract_tb(failure.__traceback__)[-1]
        raise InputError(
            f"--config: {where.filename}, line {where.lineno}, raised {type(failure).__name__}: "
            f"{failure}"
        ) from failure
    if not isinstance(config, kind):
        raise InputError(
            f"--config: expected a {kind.__module__}.{kind.__name__} from get_config() in {path}, "
            f"got {type(config).__name__}"
        )
    for given in flags.FLAGS.config_option:
        name, equals, text = given.partition("=")
        options.override(config, name, text if equals else "True")
    return config


def read_config(flag: flags.FlagHolder, *, stand_in_teacher: str = "") -> config_lib.Config:
    """Returns the validated config of a `define_config` flag.

    A student that names no teacher gets `stand_in_teacher`, for commands that read no teacher.

    Raises:
        InputError: If there is none, or it does not validate.
    """
    config = load_config(flag, config_lib.Config)
    return checks.ready(config, stand_in_teacher=stand_in_teacher)


def require_no_more(positional: Sequence[str], hint: str = "options start with --") -> None:
    """Refuses arguments beside the flags of a command that reads none.

    Raises:
        InputError: If there is one.
    """
    if positional:
        raise InputError(f"unexpected argument {positional[0]!r}; {hint}")


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuses flags that nothing would read.

    Raises:
        InputError: If one of them is given.
    """
    for name in names:
        if flags.FLAGS[name].present:
            raise InputError(f"--{name}: {why}; leave it out")


def run_folders(first: str | None, others: Sequence[str]) -> dict[str, Path]:
    """Returns the run folders of a command, `--workdir FIRST OTHERS`, by `named_paths`.

    Raises:
        InputError: If there is none, or one stands twice.
    """
    if not first:
        raise InputError("--workdir: at least one run folder is needed, such as runs/e2e")
    return named_paths("--workdir", [first, *others])


def named_paths(flag: str, given: Sequence[str]) -> dict[str, Path]:
    """Returns paths by what sets them apart: their last part, or where two share it, more of it.

    Raises:
        InputError: If one of them stands twice.
    """
    paths = [Path(path) for path in given]
    full = [path.resolve() for path in paths]
    names = [path.name for path in full]
    if len(set(names)) < len(names):
        root = os.path.commonpath([path.parent for path in full])
        names = [str(path.relative_to(root)) for path in full]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{flag}: {str(path)!r} stands twice; give it once")
    return dict(zip(names, paths, strict=True))


def make_folder(flag: str, folder: Path) -> None:
    """Makes a folder for results, before the long part that they come from.

    Args:
        flag: That gave it, for the message.
        folder: With its parents; it may be there already.

    Raises:
        InputError: If it cannot be made, or nothing can be written into it.
    """
    whole_files.require_writable(flag, folder)
    folder.mkdir(parents=True, exist_ok=True)


def _require_usable() -> None:
    """Refuses numbers that no flag means: nan passes bounds, and floats here have 32 bits.

    Of texts, which are paths where they begin so, a home folder's ~ is followed, as a shell does
    only where it begins a word.
    """
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, int | float):
            require(f"--{name}", value, FLOATS if isinstance(value, float) else INTEGERS)
        elif isinstance(value, str):
            flags.FLAGS[name].value = os.path.expanduser(value)
        elif isinstance(value, list):
            flags.FLAGS[name].value = [os.path.expanduser(item) for item in value]


def _flag_message(failure: Exception, prefix: str) -> str:
    message = str(failure)
    if isinstance(failure, flags.UnrecognizedFlagError) and "config" in flags.FLAGS:
        near = [path for path in config_lib.field_paths() if path.endswith(f".{failure.flagname}")]
        return f"{message}; did you mean --config.{prefix}{near[0]}?" if near else message
    given = re.match(r"flag --\w+=(.*?): ", message, re.DOTALL)
    return message + (number_hint(given[1]) if given else "")


def _exit_with(message: str, *, code: int = BAD_INPUT) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
