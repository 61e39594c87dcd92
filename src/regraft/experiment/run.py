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
) -> Ended:
    """Carry out the cells of an experiment that are not done.

    Any number of runs may share a store: a cell that another run works on is waited for, and taken over should that
    run die.

    Args:
        experiment: what it is.
        grid: its cells.
        store: where results are and go.
        executor: who does the work.
        started: called with each cell that is handed out.
        ended: called with each outcome.
    """
    try:
        return _run(experiment, grid, store, executor, started, ended)
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
) -> Ended:
    store.write_index(
        experiment.name,
        {
            "experiment": experiment.model_dump(exclude_unset=True),
            "numbers": [asdict(number) for number in grid.numbers],
        },
    )
    left = {key: cell for key, cell in grid.cells.items() if not store.done(key)}
    running: set[str] = set()
    failed: dict[str, str] = {}
    ask_again: dict[str, float] = {}
    while True:
        while executor.free and (cell := _next(left, running, failed, ask_again)) is not None:
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
    """Read what the finished cells took, in seconds by key."""
    return {key: float(store.record(key)["seconds"]) for key in grid.cells if store.done(key)}
