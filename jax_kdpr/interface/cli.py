"""What every command line shares: reading flags and config, and the one line of an input error."""

import codecs
import difflib
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from ml_collections import config_flags

from jax_kdpr.config import checks
from jax_kdpr.config import removed as removed_options
from jax_kdpr.config import schema as config_lib
from jax_kdpr.core import options, runtime, signals, whole_files
from jax_kdpr.core.errors import InputError, StoppedError
from jax_kdpr.core.limits import Range, number_hint, require
from jax_kdpr.core.registry import allow
from jax_kdpr.interface.help_page import help_page
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder

flags.DEFINE_list("allow_code", [], "Packages whose code a run folder may name, and so run.")
# Exit codes.
BAD_INPUT = 2
STOPPED = 1
FLOATS = Range(-1e30, 1e30)  # of flags, whose own bounds are closer
INTEGERS = Range(-(2**31), 2**32)


def define_config() -> flags.FlagHolder:
    """Defines `--config FILE` and `--config.section.field=value`."""
    return config_flags.DEFINE_config_file("config", None, "Path of a config file.")


def run(
    main: Callable[[list[str]], int | None], *, prefix: str = "", others: tuple[str, ...] = ()
) -> None:
    """Parses the flags and runs main(positional arguments), which may return an exit code.

    The config of a command may hold a `Config` under `prefix` ("base."), and the options `others`.

    An `InputError`, in the flags or later, prints as one line on stderr and exits with code 2; a
    `StoppedError`, or what the system refuses, as a disk that is full, with code 1.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        if {"--help", "-h", "-help"} & set(argv):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends quietly
            print(help_page(prefix, others))
            sys.exit(0)
        try:
            _check_config_flags(argv, prefix, others)
            left = flags.FLAGS(argv)
            _require_usable()
            allow(flags.FLAGS.allow_code)
            return [left[0], *map(os.path.expanduser, left[1:])]
        except SystemExit:
            raise
        except Exception as failure:  # all that runs here is the user's: flags and config file
            _exit_with(_flag_message(failure, prefix))

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
            if failure.errno == errno.ENAMETOOLONG:
                _exit_with(
                    f"{failure.filename}: its path is too long for this file system; shorten it"
                )
            if failure.errno is None:  # a library's, not the system's
                raise
            place = failure.filename or "a file"
            _exit_with(whole_files.not_written(place, str(failure.strerror)), code=STOPPED)
        except signals.Interrupted as stop:
            print(stop, file=sys.stderr)
            return stop.exit_code

    signals.take_over()
    codecs.register_error("spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A line at a time, so that whatever ends the process loses none that is said.
            stream.reconfigure(errors="spell", line_buffering=True)
    app.run(guarded, flags_parser=parse)


def _spell(failure: UnicodeError) -> tuple[str, int]:
    """Says what a terminal, or a file that output goes to, has no characters for."""
    if not isinstance(failure, UnicodeEncodeError):
        raise failure
    missing = failure.object[failure.start : failure.end]
    return missing.replace("±", "+-").encode("ascii", "replace").decode(), failure.end


def read_config(flag: flags.FlagHolder, *, stand_in_teacher: str = "") -> config_lib.Config:
    """Returns the validated config of a `define_config` flag.

    A student that names no teacher gets `stand_in_teacher`, for commands that read no teacher.

    Raises:
        InputError: If there is none, or it does not validate.
    """
    if flag.value is None:
        raise InputError("--config: a config file is needed, such as configs/quickstart/e2e.py")
    if not isinstance(flag.value, config_lib.Config):
        raise InputError(
            f"--config: expected get_config() to return a jax_kdpr.Config, "
            f"got {type(flag.value).__name__}"
        )
    return checks.ready(flag.value, stand_in_teacher=stand_in_teacher)


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
    run_folder.require_writable(flag, folder)
    folder.mkdir(parents=True, exist_ok=True)


def _check_config_flags(argv: Sequence[str], prefix: str, others: tuple[str, ...]) -> None:
    """Says what the flags library would say in fifty lines, or not at all, in one."""
    known = [*others, *(prefix + path for path in config_lib.field_paths())]
    for place, argument in enumerate(argv):
        override = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if override and override[1] not in known:
            gone = removed_options.removed(override[1].removeprefix(prefix))
            raise InputError(gone or options.unknown_field(override[1], known))
        given = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if given:
            path = given[1] if given[1] is not None else "".join(argv[place + 1 : place + 2])
            if not Path(path).is_file():
                near = difflib.get_close_matches(path, map(str, Path(".").glob("configs/*/*.py")))
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InputError(f"--config: no config file {path!r}{hint}")


def _require_usable() -> None:
    """Refuses numbers that no flag means: nan passes bounds, and floats here have 32 bits.

    Of texts, which are paths where they begin so, a home folder's ~ is followed, as a shell does
    only where it begins a word.
    """
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if name.startswith("config."):
            continue
        if isinstance(value, int | float):
            require(f"--{name}", value, FLOATS if isinstance(value, float) else INTEGERS)
        elif isinstance(value, str):
            flags.FLAGS[name].value = os.path.expanduser(value)
        elif isinstance(value, list):
            flags.FLAGS[name].value = [os.path.expanduser(item) for item in value]


def _flag_message(failure: Exception, prefix: str) -> str:
    message = str(failure)
    if isinstance(failure, InputError):
        return message
    if isinstance(failure, flags.IllegalFlagValueError):
        field = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
        option = field and field[1].removeprefix(prefix)
        if field and option in config_lib.field_paths():
            hint = number_hint(field[2])
            return f"{field[1]}: expected {config_lib.expected(option)}, got {field[2]!r}{hint}"
        if "Traceback (most recent call last)" in message:  # so ml_collections wraps a TypeError
            places = re.findall(r'File "([^"]+)", line (\d+)', message)
            file, line = places[-1] if places else ("?", "?")
            said = message.strip().splitlines()[-1]
            return f"--config: {file}, line {line}, raised {said}"
        given = re.match(r"flag --(\w+)=(.*?): (could not convert|invalid literal)", message, re.S)
        if given:
            kind = "a number" if given[3] == "could not convert" else "a whole number"
            return f"--{given[1]}: expected {kind}, got {given[2]!r}{number_hint(given[2])}"
        return message
    if isinstance(failure, flags.UnrecognizedFlagError):
        near = [path for path in config_lib.field_paths() if path.endswith(f".{failure.flagname}")]
        if near and "config" in flags.FLAGS:
            return f"{message}; did you mean --config.{prefix}{near[0]}?"
        return message
    if isinstance(failure, flags.Error):
        return message
    # Raised by the config file itself; a slot that does not exist is a misspelt field.
    slot = re.search(r"'(\w+)' object has no attribute '(\w+)'", message)
    if isinstance(failure, AttributeError) and slot:
        section = config_lib.section_name(slot[1])
        path = f"{section}.{slot[2]}" if section else slot[2]
        return config_lib.unknown_field(path)
    where = traceback.extract_tb(failure.__traceback__)[-1]
    return (
        f"--config: {where.filename}, line {where.lineno}, raised {type(failure).__name__}: "
        f"{message}"
    )


def _exit_with(message: str, *, code: int = BAD_INPUT) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
