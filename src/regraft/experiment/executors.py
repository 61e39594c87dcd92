"""Who carries out cells: this process, one after another. Others are in modules of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from .grid import Cell
from .store import Store
from .work import Outcome, carry_out


class Executor(Protocol):
    """Takes cells whose needs are done, and gives their outcomes in whatever order."""

    @property
    def free(self) -> bool:
        """Whether it takes another cell now."""
        ...

    def submit(self, store: Store, cell: Cell) -> None:
        """Take a cell."""
        ...

    def next(self, patience: float | None) -> Outcome | None:
        """Wait for the next outcome of those submitted; None where there is none within so many seconds."""
        ...


class Local:
    """Carries out one cell at a time in this process.

    Args:
        trackers: where to show trainings.
    """

    def __init__(self, trackers: Sequence[str] = ()) -> None:
        self._trackers = trackers
        self._waiting: deque[tuple[Store, Cell]] = deque()

    @property
    def free(self) -> bool:
        """Whether nothing is waiting."""
        return not self._waiting

    def submit(self, store: Store, cell: Cell) -> None:
        """Take a cell; the work is done in `next`."""
        self._waiting.append((store, cell))

    def next(self, patience: float | None) -> Outcome:  # noqa: ARG002 (it does not wait, it works)
        """Carry out the cell that waits."""
        return carry_out(*self._waiting.popleft(), self._trackers)
