"""The exceptions that a command line answers with one line, and what others say in one."""


def reason(failure: Exception) -> str:
    """Returns what an exception of a library says, in one short line."""
    return " ".join(str(failure).split())[:200]


class InputError(ValueError):
    """A mistake in a config, a file or a run folder that its owner can mend.

    The message is one line: what, expected, got, what to do. A command line prints it and exits
    with code 2; every other exception is a defect of ours and keeps its traceback.
    """


class InUseError(InputError):
    """Another process is training in a run folder."""


class StoppedError(RuntimeError):
    """A command cannot go on, for a reason that lies neither in its input nor in this package.

    The message is one line: what happened, what is kept, what to do. The exit code is 1.
    """
