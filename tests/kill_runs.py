"""Run an experiment in child processes, kill -9 each after a random while, until one of them ends by itself.

The children are forked, so that a kill comes after milliseconds of work and not amid imports.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm
from tqdm.std import TRLock

from regraft.experiment.executors import Local
from regraft.experiment.grid import Cell, Grid
from regraft.experiment.run import run
from regraft.experiment.spec import Experiment
from regraft.experiment.store import Store
from regraft.experiment.work import Outcome


@dataclass(frozen=True)
class Kills:
    """What happened.

    Attributes:
        exit_code: of the child that ended by itself.
        count: how many were killed.
        amid_training: how many of them left a checkpoint.
        ended: key -> how often a child said that the cell was done.
        failed: what children said of cells that failed.
        done_again: keys of the cells that were done, and then once more.
    """

    exit_code: int
    count: int
    amid_training: int
    ended: Counter[str]
    failed: list[str]
    done_again: set[str]


def _bars(kind: type[tqdm]) -> Iterator[type[tqdm]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _bars(inner)


def _child(experiment: Experiment, grid: Grid, root: Path, log: Path) -> None:
    # A bar's lock is shared between forked processes: one killed while it holds it would stop all that follow. Other
    # libraries' bars, whose classes may have a lock of their own, would too.
    for bar in _bars(tqdm):
        bar.set_lock(TRLock())
    with log.open("a") as file:

        def ended(_: Cell, outcome: Outcome) -> None:
            file.write(f"{outcome.key} {outcome.status} {outcome.error}\n")
            file.flush()

        result = run(experiment, grid, Store(root), Local(), ended=ended)
    raise SystemExit(1 if result.failed else 0)


def run_and_kill(experiment: Experiment, grid: Grid, root: Path, seed: int) -> Kills:
    """Bring an experiment to its end, in as many children as it takes."""
    dice = random.Random(seed)
    log = root.with_name("ended.log")
    count, amid_training, first_seen, done_again = 0, 0, {}, set()
    exit_code = None
    while exit_code is None:
        child = get_context("fork").Process(target=_child, args=(experiment, grid, root, log))
        child.start()
        # Now and then longer than the longest cell, so that each can end once.
        child.join(dice.uniform(0.05, 0.7 + 0.1 * count))
        exit_code = child.exitcode
        if exit_code is None:
            amid_training += bool(list(root.glob("work/*/*.training/checkpoint-*")))
            child.kill()
            child.join()
            count += 1
        for record in root.glob("cells/*/cell.json"):
            file = (record.stat().st_ino, record.stat().st_mtime_ns)
            if first_seen.setdefault(record.parent.name, file) != file:
                done_again.add(record.parent.name)
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    failed = [" ".join(line) for line in lines if line[1] != "done"]
    return Kills(exit_code, count, amid_training, Counter(line[0] for line in lines), failed, done_again)
