"""The exceptions that a command reports in one line, and short texts for those of libraries."""


def reason(failure: Exception) -> str:
    """Returns the message of a library's exception as one short line."""
    return " ".join(str(failure).split())[:200]


class InputError(ValueError):
    """A mistake in a config, a file or a run folder that the user can correct.

    The message is one line: what, expected, got, what to do. A command prints it and exits with
    code 2. An exception that commands do not report in one line is a bug of this package: it keeps
    its traceback.
    """


class InUseError(InputError):
    """Another process is training in a run folder."""


class StoppedError(RuntimeError):
    """A command cannot continue, but neither its input nor this package is at fault.

    The message is one line: what happened, what is kept, what to do. The exit code is 1.
    """
