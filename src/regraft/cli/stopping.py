"""Ctrl-C and SIGTERM end a command in order: what is held is let go, what is half done is removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Signals in so many seconds are one: `timeout` sends two, and whoever is impatient more.
_ONE_S = 3.0


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block when SIGINT or SIGTERM comes; not where they were ignored before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = float("-inf")

    def stop(number: int, _frame: object) -> None:
        nonlocal last
        last, before = time.monotonic(), last
        if last - before > _ONE_S:
            raise Stopped(number)

    signals = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    handlers = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
