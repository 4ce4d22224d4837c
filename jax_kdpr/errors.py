"""The exceptions that a command line answers with one line: wrong input, and being told to end."""

import signal


class InputError(ValueError):
    """A mistake in a config, a file or a run folder that its owner can mend.

    The message is one line: what, expected, got, what to do. A command line prints it and exits
    with code 2; every other exception is a defect of ours and keeps its traceback.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived (a batch system's time is up): an interruption like Ctrl-C, of other number.

    Not an `Exception`, as `KeyboardInterrupt` is none: what carries on after a failure must not
    take it for one.
    """


def interrupted_exit_code(stop: KeyboardInterrupt) -> int:
    """Returns the exit code that a shell expects of a process that a signal ended."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
