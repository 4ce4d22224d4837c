"""What all command lines share: reading flags and config, and reporting errors in one line."""

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
from typing import Any, NoReturn

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from jax_kdpr.config import checks, schema
from jax_kdpr.core import options, processes, runtime, signals, whole_files
from jax_kdpr.core.errors import InputError, StoppedError, reason
from jax_kdpr.core.limits import Range, number_hint, require
from jax_kdpr.core.registry import allow
from jax_kdpr.interface.help_page import help_page
from jax_kdpr.runs import checkpoint

flags.DEFINE_list("allow_code", [], "Packages whose code a run folder may name, and so run.")
# Exit codes.
BAD_INPUT = 2
STOPPED = 1
FLOATS = Range(-1e30, 1e30)  # of all flags; some have narrower bounds of their own
INTEGERS = Range(-(2**31), 2**32)


def define_config() -> flags.FlagHolder:
    """Defines `--config FILE` and `--config.PATH=VALUE`."""
    return config_flags.DEFINE_config_file("config", None, "Path of a config file.")


def run(
    main: Callable[[list[str]], int | None],
    *,
    prefix: str = "",
    others: tuple[str, ...] = (),
    first: Callable[[], None] = lambda: None,
) -> None:
    """Parses the flags and runs main(positional arguments), which may return an exit code.

    An `InputError`, in the flags or later, is printed as one line on stderr, and the exit code is
    2. For a `StoppedError`, or a refusal by the system such as a full disk, the exit code is 1.

    Args:
        main: The command.
        prefix: Prefix of the options of a `Config` in the command's config file, such as "base.".
        others: Further options of that config file.
        first: Function that is called before JAX knows its devices.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        if {"--help", "-h", "-help"} & set(argv):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends quietly
            print(help_page(prefix))
            sys.exit(0)
        try:
            argv = [re.sub(r"(?<=^--config=)~[^/]*", _home, argument) for argument in argv]
            _require_config(argv, prefix, others)
            left = flags.FLAGS(argv)
            _require_usable()
            allow(flags.FLAGS.allow_code)
        except SystemExit:
            raise
        except Exception as failure:  # the config file is the user's own code
            _exit_with(_flag_message(failure, prefix))
        return [left[0], *map(os.path.expanduser, left[1:])]

    def guarded(argv: Sequence[str]) -> int | None:
        checkpoint.quiet_logs()
        try:
            first()
            runtime.set_up()
            code = main(list(argv[1:])) or 0
            signals.all_done(code)
            return code
        except InputError as failure:
            _exit_with(str(failure))
        except StoppedError as failure:
            _exit_with(str(failure), code=STOPPED)
        except BrokenPipeError:  # the reader of the output has left, as `head` does
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return 128 + signal.SIGPIPE  # as a shell expects
        except OSError as failure:
            if failure.errno is None:  # a library's, not the system's
                _crash(failure)
            said = whole_files.not_written(failure.filename or "a file", str(failure.strerror))
            is_input = failure.errno == errno.ENAMETOOLONG
            _exit_with(said, code=BAD_INPUT if is_input else STOPPED)
        except signals.Interrupted as stop:
            if processes.is_first():
                print(stop, file=sys.stderr)
            return stop.exit_code
        except Exception as failure:
            _crash(failure)

    signals.take_over()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Output goes out line by line, so that the end of the process loses no line.
            stream.reconfigure(errors="replace", line_buffering=True)
    app.run(guarded, flags_parser=parse)


def load_config(flag: flags.FlagHolder, kind: type) -> Any:
    """Returns what the config file of a `define_config` flag made, with options from the flags.

    Raises:
        InputError: If there is no file, or it made something other than a `kind`.
    """
    if flag.value is None:
        raise InputError("--config: a config file is needed, such as configs/quickstart/e2e.py")
    if not isinstance(flag.value, kind):
        raise InputError(
            f"--config: expected a {kind.__module__}.{kind.__name__} from get_config(), got "
            f"{type(flag.value).__name__}"
        )
    return flag.value


def read_optics_config(flag: flags.FlagHolder) -> schema.Config:
    """Returns the validated config of a `define_config` flag, of which only the optics are read.

    Raises:
        InputError: If there is no config, or it is not valid.
    """
    return checks.ready(load_config(flag, schema.Config), has_network=False)


def require_no_more(positional: Sequence[str], hint: str = "options start with --") -> None:
    """Refuses positional arguments of a command that reads none.

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


def require_given(flag: flags.FlagHolder, hint: str) -> Any:
    """Returns the value of a flag that must be given.

    Raises:
        InputError: If it is not given.
    """
    if not flag.value:
        raise InputError(f"--{flag.name}: needed, {hint}")
    return flag.value


def numbers(flag: flags.FlagHolder, names: str, kind: Callable[[str], Any] = float) -> list[Any]:
    """Returns the numbers of a flag such as "Y,X"; an empty list if it is not given.

    Raises:
        InputError: If there are more or fewer than `names`, or they are not of the `kind`.
    """
    try:
        values = [kind(part) for part in flag.value.split(",")] if flag.value else []
    except ValueError:
        values = [np.nan]
    is_wrong = len(values) != names.count(",") + 1 or not all(abs(one) < 1e30 for one in values)
    if flag.value and is_wrong:
        raise InputError(f"--{flag.name}: expected {names}, got {flag.value!r}")
    return values


def run_folders(first: str | None, others: Sequence[str]) -> dict[str, Path]:
    """Returns the run folders of a command, `--workdir FIRST OTHERS`, by `named_paths`.

    Raises:
        InputError: If there is none, or one is given twice.
    """
    if not first:
        raise InputError("--workdir: at least one run folder is needed, such as runs/e2e")
    return named_paths("--workdir", [first, *others])


def named_paths(flag: str, given: Sequence[str]) -> dict[str, Path]:
    """Returns paths by short names: their last parts or, if two of these are equal, longer ones.

    Raises:
        InputError: If a path is given twice.
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
    """Makes a folder for results, before the long computation of these.

    Args:
        flag: The flag that gave the folder, for the message.
        folder: The folder, which may exist already; its parents are made too.

    Raises:
        InputError: If the folder cannot be made or written to.
    """
    whole_files.require_writable(flag, folder)
    folder.mkdir(parents=True, exist_ok=True)


def _home(user: re.Match) -> str:
    return os.path.expanduser(user[0])


def _require_config(argv: Sequence[str], prefix: str, others: tuple[str, ...]) -> None:
    """Reports unknown options and files in one line, where ml_collections prints fifty or none."""
    known = [*others, *(prefix + path for path in schema.field_paths())]
    for place, argument in enumerate(argv):
        override = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if override and override[1] not in known:
            said = schema.unknown_field(override[1], prefix=prefix, others=others)
            raise InputError(said)
        given = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if given:
            path = given[1] if given[1] is not None else "".join(argv[place + 1 : place + 2])
            if not Path(path.partition(":")[0]).is_file():
                near = difflib.get_close_matches(path, map(str, Path(".").glob("configs/*/*.py")))
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InputError(f"--config: no config file {path!r}{hint}")


def _require_usable() -> None:
    """Refuses numbers that no flag can mean, and expands the ~ of a home folder in texts.

    nan passes the bounds of a flag, and floats have 32 bits here. A shell expands ~ only at the
    start of a word.
    """
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if name.startswith("config."):  # these have ranges of their own
            continue
        if isinstance(value, int | float):
            require(f"--{name}", value, FLOATS if isinstance(value, float) else INTEGERS)
        elif isinstance(value, str):
            flags.FLAGS[name].value = os.path.expanduser(value)
        elif isinstance(value, list):
            flags.FLAGS[name].value = [os.path.expanduser(item) for item in value]


def _flag_message(failure: Exception, prefix: str) -> str:
    message = str(failure)
    if isinstance(failure, flags.UnrecognizedFlagError) and "config" in flags.FLAGS:
        near = [path for path in schema.field_paths() if path.endswith(f".{failure.flagname}")]
        return f"{message}; did you mean --config.{prefix}{near[0]}?" if near else message
    if isinstance(failure, flags.Error) and "Traceback (most recent call last)" not in message:
        given = re.match(r"flag --(?:config\.)?([\w.]+)=(.*?): ", message, re.DOTALL)
        meant = number_hint(given[2]) if given else ""
        option = given[1].removeprefix(prefix) if given else ""
        if given and option in schema.field_paths():
            words = options.expected(schema.Config(), option)
            return f"{given[1]}: expected {words}, got {given[2]!r}{meant}"
        return message + meant
    if isinstance(failure, InputError):
        return message
    # Raised by the config file itself; ml_collections wraps a TypeError into text.
    places = re.findall(r'File "([^"]+)", line (\d+)', message) or [
        (where.filename, where.lineno) for where in traceback.extract_tb(failure.__traceback__)
    ]
    said = message.strip().splitlines()[-1]
    if not isinstance(failure, flags.Error):
        said = f"{type(failure).__name__}: {message}"
    return f"--config: {places[-1][0]}, line {places[-1][1]}, raised {said}"


def _crash(failure: Exception) -> NoReturn:
    """Raises what is a bug; one of several processes ends at once, without waiting for others."""
    if processes.is_without_another(failure):
        said = reason(failure)
        _exit_with(f"another process has ended ({said}); {signals.AGAIN}", code=STOPPED)
    if processes.several():
        traceback.print_exception(failure)
        processes.leave(STOPPED)
    raise failure


def _exit_with(message: str, *, code: int = BAD_INPUT) -> NoReturn:
    which = "" if processes.is_first() else f"process {jax.process_index()}: "
    # In one piece: several processes may share a terminal.
    sys.stderr.write(f"error: {which}{' '.join(message.split())}\n")
    processes.leave(code)
    sys.exit(code)
