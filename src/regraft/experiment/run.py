"""Bring an experiment to its end: hand out cells whose needs are done, until none is left that can be."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median

from .executors import Executor
from .grid import Cell, Grid
from .spec import Experiment
from .store import Store
from .work import Outcome

# How long to wait before asking again for cells that other runs work on.
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        done: number of cells that are done, now or before.
        failed: key -> why it failed in this run.
        blocked: keys of the cells that were not tried, since they need one that failed.
    """

    done: int
    failed: Mapping[str, str]
    blocked: tuple[str, ...]


def run(
    experiment: Experiment,
    grid: Grid,
    store: Store,
    executor: Executor,
    started: Callable[[Cell], None] = lambda _: None,
    ended: Callable[[Cell, Outcome], None] = lambda *_: None,
    again: Callable[[Cell, str], None] = lambda *_: None,
) -> Ended:
    """Carry out the cells of an experiment that are not done, or no longer what they were when they were.

    All that are done are looked at when the run begins, and again whenever one of them is read. A cell that was built
    on one that came out otherwise when it was made again is made again too.

    Any number of runs may share a store: a cell that another run works on is waited for, and taken over should that
    run die.

    Args:
        experiment: what it is.
        grid: its cells.
        store: where results are and go.
        executor: who does the work.
        started: called with each cell that is handed out.
        ended: called with each outcome.
        again: called with each cell that is to be made again, and why.
    """
    try:
        return _run(experiment, grid, store, executor, started, ended, again)
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"what is done is kept in {store.root}, and the same command goes on from there")
        raise


def _run(
    experiment: Experiment,
    grid: Grid,
    store: Store,
    executor: Executor,
    started: Callable[[Cell], None],
    ended: Callable[[Cell, Outcome], None],
    again: Callable[[Cell, str], None],
) -> Ended:
    store.write_index(
        experiment.name,
        {
            "experiment": experiment.model_dump(exclude_unset=True),
            "numbers": [asdict(number) for number in grid.numbers],
        },
    )
    left: dict[str, Cell] = {}
    running: set[str] = set()
    failed: dict[str, str] = {}
    ask_again: dict[str, float] = {}
    made_again: set[tuple[str, str]] = set()

    def take_back(key: str, why: str) -> None:
        left[key] = grid.cells[key]
        if (key, why) in made_again:  # it would go on for ever
            failed[key] = f"found it damaged in the same way after it was made again ({why}); look at the disk"
        else:
            made_again.add((key, why))
            again(left[key], why)

    for key in grid.cells:  # those that others need come first
        if not store.done(key):
            left[key] = grid.cells[key]
        elif why := store.unsound(key):
            take_back(key, why)
    while True:
        while executor.free and (cell := _next(left, running, failed, ask_again)) is not None:
            if damaged := {need: why for need in cell.needs if (why := store.flaw(need))}:
                for need, why in damaged.items():
                    take_back(need, why)
                continue
            running.add(cell.key)
            started(cell)
            executor.submit(store, cell)
        if running:
            outcome = executor.next(_PATIENCE_S if ask_again else None)
            if outcome is None:
                continue
            running.remove(outcome.key)
            ask_again.pop(outcome.key, None)
            if outcome.status == "busy":
                ask_again[outcome.key] = time.monotonic() + _PATIENCE_S
                continue
            ended(left[outcome.key], outcome)
            if outcome.status == "done":
                del left[outcome.key]
                for key, other in grid.cells.items():
                    if outcome.key in other.needs and key not in left and (why := store.unsound(key)):
                        take_back(key, why)
            else:
                failed[outcome.key] = outcome.error
        elif any(not _blocked(cell, left, failed) for cell in left.values() if cell.key not in failed):
            time.sleep(_PATIENCE_S / 4)
        else:
            break
    blocked = tuple(key for key in left if key not in failed)
    return Ended(len(grid.cells) - len(left), failed, blocked)


def _next(
    left: Mapping[str, Cell], running: set[str], failed: Mapping[str, str], ask_again: Mapping[str, float]
) -> Cell | None:
    """Find a cell to hand out: first what no other run was at when it was last asked for."""
    now = time.monotonic()
    return next(
        (
            cell
            for cell in left.values()
            if cell.key not in running
            and cell.key not in failed
            and left.keys().isdisjoint(cell.needs)
            and ask_again.get(cell.key, 0.0) <= now
        ),
        None,
    )


def _blocked(cell: Cell, left: Mapping[str, Cell], failed: Mapping[str, str]) -> bool:
    return any(key in failed or (key in left and _blocked(left[key], left, failed)) for key in cell.needs)


def time_left(grid: Grid, took: Mapping[str, float]) -> tuple[float, int]:
    """Estimate the work that is left from what the most similar cells took.

    Args:
        grid: the cells.
        took: key of a finished cell -> seconds.

    Returns:
        Seconds for one worker, and the number of cells of kinds of which none is done yet.
    """
    by_group: dict[str, list[float]] = defaultdict(list)
    for key, seconds in took.items():
        for group in grid.cells[key].groups:
            by_group[group].append(seconds)
    left = [
        next((g for g in cell.groups if g in by_group), None) for key, cell in grid.cells.items() if key not in took
    ]
    middle = {group: median(by_group[group]) for group in set(left) if group is not None}  # some were interrupted
    return sum(middle[group] for group in left if group is not None), left.count(None)


def times(grid: Grid, store: Store) -> dict[str, float]:
    """Read what the finished cells took that are sound by their sizes, in seconds by key."""
    sound = (key for key in grid.cells if store.done(key) and not store.flaw(key, hashed=False))
    return {key: float(store.record(key)["seconds"]) for key in sound}
