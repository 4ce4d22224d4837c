"""Signals that end a command: at once or, where work would be lost, once that work is saved.

No signal handler here raises an exception. Python may run a handler between any two instructions:
an exception in a callback of the garbage collector is lost, and one below the C++ code of JAX ends
the process. Instead, a thread receives the signals. It ends the process, or notes the signal for
code that has work to save.
"""

import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

AGAIN = "interrupted; run the same command again to go on"
INTERRUPTED = "interrupted"

_last_words = INTERRUPTED
_noting = 0  # number of `noting` contexts that are active
_received = 0
_shared = False  # whether a signal is only pending until `note`
_pending = 0
_own_code: int | None = None  # the exit code of a command that has done all its work


class Interrupted(Exception):
    """A noted signal ends the command after its work was saved. The message says so."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell expects after a signal


@functools.cache  # once per process
def take_over() -> None:
    """Makes the signals `ENDING` end this process, with one line and exit code 128 + number.

    Commands call it in the main thread. Signals that the process was started to ignore (nohup) stay
    ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # the pipe receives the number anyway


@contextmanager
def noting() -> Iterator[None]:
    """Only notes a first signal, for `check` to raise; a second one ends the process at once.

    Raises:
        Interrupted: When the context ends, if a signal was noted and no exception is under way.
    """
    global _noting, _received
    _noting += 1
    try:
        yield
    finally:
        _noting -= 1  # from here on a signal ends the process, and is not noted
        last = _received
        _received = _received if _noting else 0
    if last:
        raise Interrupted(last, AGAIN)


def set_last_words(text: str = INTERRUPTED) -> None:
    """Sets the line with which a signal ends this process at once."""
    global _last_words
    _last_words = text


def all_done(exit_code: int) -> None:
    """Makes later signals end the process silently, with the command's own exit code.

    The process still needs some time to exit after its last line, since JAX releases its devices.
    """
    global _own_code
    _own_code = exit_code


def received() -> int:
    """Returns the number of the signal that was noted; 0 if there is none."""
    return _received


def share() -> None:
    """Makes later signals `pending` until `note`, so that all processes answer together."""
    global _shared
    _shared = True


def pending() -> int:
    """Returns the number of the signal that reached this process, one of several; 0 if none."""
    return _pending


def note(number: int) -> None:
    """Marks the signal of this number as received; 0 changes nothing."""
    global _received
    _received = number or _received


def check(message: str = AGAIN) -> None:
    """Raises `Interrupted` if a signal was noted; call it where no work would be lost."""
    if number := received():
        raise Interrupted(number, message)


def _watch(reading: int) -> None:
    global _received, _pending
    while True:
        (number,) = os.read(reading, 1)
        if number in ENDING and (_received or _pending or not _noting):
            _leave(number)
        if number in ENDING and _shared:
            _pending = number
        elif number in ENDING:
            _received = number


def _leave(number: int) -> NoReturn:
    if _own_code is None:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, f"{_last_words}\n".encode())
    # Destructors are skipped too: they would wait for computations.
    os._exit(128 + number if _own_code is None else _own_code)
