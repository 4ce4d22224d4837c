"""The one exception that means: the input is wrong, here is what to do about it."""


class InputError(ValueError):
    """A mistake in a config, a file or a run folder that its owner can mend.

    The message is one line: what, expected, got, what to do. A command line prints it and exits
    with code 2; every other exception is a defect of ours and keeps its traceback.
    """
