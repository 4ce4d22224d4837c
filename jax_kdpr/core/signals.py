"""Signals that end a command: at once, or, where work would be lost, when it has been saved.

A handler here raises nothing. Python runs it between any two of its instructions: an exception in a
callback of the garbage collector is lost, and one below the C++ of JAX ends the process. So a
thread is told of signals: it ends the process, or notes them for whoever has work to save.
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

_noting = 0  # how many `noting` are entered
_received = 0
_shared = False  # whether it counts only when `note` says so
_pending = 0
_own_code: int | None = None  # the exit code of a command that has done all its work


class Interrupted(Exception):
    """A noted signal ends the command, and what it had to save is saved. The message says so."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as a shell expects of a process that a signal ended


@functools.cache  # once a process
def take_over() -> None:
    """Lets `ENDING` end this process with a line and an exit code of 128 + number.

    For command lines, in the main thread. Signals that the process was started to ignore (nohup)
    stay ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # the number goes to the pipe all the same


@contextmanager
def noting() -> Iterator[None]:
    """While entered, a first signal is only noted, for `check` to raise; a second ends at once.

    Raises:
        Interrupted: At its end, if a signal came that nothing has answered.
    """
    global _noting, _received
    _noting += 1
    try:
        yield
    finally:
        _noting -= 1  # from here on a signal ends at once; none comes between the two
        last = _received
        _received = _received if _noting else 0
    if last:
        raise Interrupted(last, AGAIN)


def all_done(exit_code: int) -> None:
    """From here on a signal ends the process with the command's own exit code, and in silence.

    For what a process takes to end after its last line: JAX lets go of its devices then.
    """
    global _own_code
    _own_code = exit_code


def received() -> int:
    """Returns the number of the signal that was noted; 0 if there is none."""
    return _received


def share() -> None:
    """From here on a signal is `pending` until `note`: several processes answer it together."""
    global _shared
    _shared = True


def pending() -> int:
    """Returns the number of the signal that came to this process of several; 0 if none did."""
    return _pending


def note(number: int) -> None:
    """Takes a signal for received; 0 for none."""
    global _received
    _received = number or _received


def check(message: str = AGAIN) -> None:
    """Raises `Interrupted` if a signal was noted; to be called where nothing would be lost."""
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
            os.write(2, b"interrupted\n")
    # Not even by way of destructors, which would wait for computations.
    os._exit(128 + number if _own_code is None else _own_code)
