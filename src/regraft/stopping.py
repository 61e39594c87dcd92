"""Ctrl-C and SIGTERM end a command in order: what is held is let go, what is half done is removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Signals within so many seconds of the first are one: `timeout` sends two, and whoever is impatient more.
_ONE_S = 3.0


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Signals:
    """What came, and whether it has to wait."""

    def __init__(self) -> None:
        self.waits = 0
        self.waiting: Stopped | None = None
        self.last = float("-inf")

    def come(self, number: int, _frame: object) -> None:
        if time.monotonic() - self.last <= _ONE_S:
            return
        self.last = time.monotonic()
        if self.waits:
            self.waiting = Stopped(number)
        else:
            raise Stopped(number)


_signals = _Signals()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block when SIGINT or SIGTERM comes; not where they were ignored before."""
    if threading.current_thread() is not threading.main_thread():  # no other is told of signals
        yield
        return
    _signals.last = float("-inf")
    heard = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    handlers = {one: signal.signal(one, _signals.come) for one in heard}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait until the block ends; for what takes a moment and must not be left half done."""
    _signals.waits += 1
    try:
        yield
    finally:
        _signals.waits -= 1
        if not _signals.waits and _signals.waiting is not None:
            stopped, _signals.waiting = _signals.waiting, None
            raise stopped
