"""Plan and run grids of trainings from one file."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ..errors import ModuleFileError, TaskError, unknown_choice
from ..progress import aside, with_progress
from .app import HOW, OUTPUT, Track, Verbose, console
from .found_grids import Cell as CellLine
from .found_grids import GridPlanned, GridRun
from .output import Output, Printed, say_next
from .tables import print_table

if TYPE_CHECKING:
    from ..experiment.executors import Executor
    from ..experiment.grid import Cell, Grid
    from ..experiment.run import Ended
    from ..experiment.spec import Experiment
    from ..experiment.store import Store
    from ..experiment.work import Outcome

StoreOption = Annotated[
    Path | None, Parameter(name="--store", group=OUTPUT, help="Directory of results. Default: results/NAME.")
]
_EXECUTORS = ("local", "ray")


def store_of(experiment: Experiment, directory: Path | None) -> Store:
    """Return the store that the user names, or the experiment's own."""
    from ..experiment.store import Store

    return Store((directory or Path("results") / experiment.name).absolute())


def plan_experiment(
    file: str, /, *, store: StoreOption = None, verbose: Verbose = False, output: Printed = Output()
) -> None:
    """Show the cells of an experiment, and what is done of them.

    Says how much work is left; loads and trains nothing. These ship with regraft:
    demo, minilm-wikineural, paper-incompatible, paper-matching.

    Example: regraft experiment plan paper-matching

    Args:
        file: An experiment in YAML, or the name of one that ships with regraft.
        verbose: Every cell, with its key and needs.
    """
    from ..experiment.grid import make_grid
    from ..experiment.load import find, read_experiment
    from ..experiment.run import time_left, times

    path = find(file)
    experiment = read_experiment(path)
    grid = make_grid(experiment)
    results = store_of(experiment, store)
    took = times(grid, results)
    failed = {
        key: failure["error"] for key in grid.cells if key not in took and (failure := results.failure(key)) is not None
    }
    console.print(f"{experiment.name}: {path}", soft_wrap=True)
    console.print(f"results: {results.root}", soft_wrap=True)
    if verbose:
        _show_cells(grid, took, failed)
    _show_counts(grid, took, failed)
    seconds, unknown = time_left(grid, took)
    if took and len(took) < len(grid.cells):
        known = f"about {_duration(seconds)} of work for one worker" if seconds else ""
        rest = f"{unknown} cells of kinds of which none is done yet" if unknown else ""
        console.print(f"left: {' and '.join(part for part in (known, rest) if part)}")
    for key, error in failed.items():
        console.print(f"failed: {grid.cells[key].label}: {error}", soft_wrap=True)
    cells = [
        CellLine(
            key=key, kind=one.kind, label=one.label, needs=[*one.needs], seconds=took.get(key), error=failed.get(key)
        )
        for key, one in grid.cells.items()
    ]
    places = {"experiment": experiment.name, "file": str(path), "store": str(results.root)}
    left = [key for key in grid.cells if key not in took]
    output.give(GridPlanned(**places, cells=cells, seconds_left=seconds), *left)
    named = [] if store is None else ["--store", store]
    say_next(*(("experiment", "run", file, *named) if left else ("report", results.root)))


def _show_counts(grid: Grid, took: dict[str, float], failed: dict[str, str]) -> None:
    from ..experiment.spec import KINDS

    rows = []
    numbers = Counter(cell.kind for cell in grid.cells.values())
    for kind in (kind for kind in KINDS if numbers[kind]):
        keys = [key for key, cell in grid.cells.items() if cell.kind == kind]
        needed = {grid.cells[need].kind for key in keys for need in grid.cells[key].needs}
        counts = len(keys), sum(key in took for key in keys), sum(key in failed for key in keys)
        rows.append((kind, *map(str, counts), ", ".join(kind for kind in KINDS if kind in needed)))
    rows.append(("all", str(len(grid.cells)), str(len(took)), str(len(failed)), ""))
    print_table(console, ("cells", "number", "done", "failed", "need"), rows)


def _show_cells(grid: Grid, took: dict[str, float], failed: dict[str, str]) -> None:
    rows = []
    for key, cell in grid.cells.items():
        state = _duration(took[key]) if key in took else "failed" if key in failed else ""
        rows.append((key[:8], cell.label, " ".join(need[:8] for need in cell.needs), state))
    print_table(console, ("key", "cell", "needs", "state"), rows)


def run_experiment(
    file: str,
    /,
    *,
    store: StoreOption = None,
    executor: Annotated[str, Parameter(group=HOW)] = "local",
    address: Annotated[str | None, Parameter(group=HOW)] = None,
    retries: Annotated[int, Parameter(group=HOW, validator=Number(gte=0))] = 3,
    track: Track = (),
    output: Printed = Output(),
) -> None:
    """Carry out what is not done.

    Teachers come first, then transfers, then students. Stop it whenever you like,
    kill it: the same command goes on where it was. Several runs may share a store.
    A cell that fails is shown at the end, does not stop the others, and is tried
    again by the next run. What cannot work (data that are not there, ports between
    widths that differ without an alignment) is refused before anything is trained.

    Example: regraft experiment run demo

    Args:
        file: An experiment in YAML, or the name of one that ships with regraft.
        executor: local: cell by cell, here. ray: a cluster.
        address: Of a Ray cluster, such as auto.
        retries: Of a cell whose Ray worker was lost.
    """
    from ..experiment.executors import Local
    from ..experiment.grid import make_grid
    from ..experiment.launch import is_launched
    from ..experiment.load import find, read_experiment
    from ..experiment.preflight import check
    from ..training.tracking import check_trackers

    if executor not in _EXECUTORS:
        raise TaskError(unknown_choice("executor", executor, _EXECUTORS))
    if address is not None and executor != "ray":
        raise TaskError("got --address, which is a Ray cluster's; choose --executor ray beside it")
    if is_launched():
        raise TaskError(
            "found several processes of a launcher, expected one: a training's processes are started as its cell says "
            "(resources: {teacher: {gpus: 2}})"
        )
    experiment = read_experiment(find(file))
    results = store_of(experiment, store)
    check_trackers(track)
    results.check()
    grid = make_grid(experiment)
    check(grid)
    workers: Executor = Local(track)
    if executor == "ray":
        from ..experiment.on_ray import OnRay

        workers = OnRay(experiment.resources, address, retries, track)
    result = run_shown(experiment, grid, results, workers)
    found = GridRun(
        experiment=experiment.name,
        store=str(results.root),
        cells=len(grid.cells),
        done=result.done,
        failed=dict(result.failed),
        not_tried=[*result.blocked],
    )
    output.give(found, results.root)
    if result.done < len(grid.cells):
        sys.exit(1)
    say_next("report", results.root)


def run_shown(
    experiment: Experiment,
    grid: Grid,
    store: Store,
    workers: Executor,
    each_cell: bool = True,
) -> Ended:
    """Run an experiment and show how it gets on.

    Args:
        experiment: what it is.
        grid: its cells.
        store: where results are and go.
        workers: who does the work.
        each_cell: a line per cell.
    """
    from ..experiment.run import run, time_left, times
    from ..experiment.spec import KINDS

    gc.freeze()  # the Trainer collects garbage at every start: a third of a second less without what the imports left
    _say_what_is_left_out(experiment, grid, store)
    took = {key: seconds for key, seconds in times(grid, store).items() if not store.flaw(key)}
    old, begun = dict(took), time.monotonic()
    console.print(f"{experiment.name}: {len(grid.cells)} cells, {len(took)} done; results in {store.root}")
    bar = with_progress(None, "Cells", len(grid.cells), "cells")
    bar.update(len(took))

    def started(cell: Cell) -> None:
        bar.set_description(cell.label)

    def ended(cell: Cell, outcome: Outcome) -> None:
        if outcome.status == "failed":
            with aside():
                console.print(f"failed  {cell.label}: {outcome.error}", soft_wrap=True, highlight=False)
            return
        record = store.record(cell.key)
        took[cell.key] = float(record["seconds"])
        seconds, unknown = time_left(grid, took)
        speed = (sum(took.values()) - sum(old.values())) / (time.monotonic() - begun)  # more than 1 with many workers
        left = f"{_duration(seconds / max(speed, 1e-9))}{' and more' if unknown else ''} left" if seconds else ""
        bar.update(len(took) - bar.n)
        if each_cell:
            line = f"{len(took)}/{len(grid.cells)}  {cell.label}{_said(cell, record)}  {_duration(record['seconds'])}"
            with aside():
                console.print(line, f" ({left})" if left else "", sep="", soft_wrap=True, highlight=False)

    def again(cell: Cell, why: str) -> None:
        took.pop(cell.key, None)
        kept = store.root / "damaged" / cell.key
        with aside():
            console.print(f"again  {cell.label}: {why}; it is moved to {kept}", soft_wrap=True, highlight=False)

    with bar:
        result = run(experiment, grid, store, workers, started, ended, again)
    console.print(f"{result.done} of {len(grid.cells)} cells are done, in {_duration(time.monotonic() - begun)}")
    new = [key for key in took if key not in old]
    spent = {kind: sum(took[key] for key in new if grid.cells[key].kind == kind) for kind in KINDS}
    if new:
        work = ", ".join(f"{kind} {_duration(seconds)}" for kind, seconds in spent.items() if seconds)
        console.print(f"work by kind of cell: {work}")
    for key, error in result.failed.items():
        console.print(f"failed: {grid.cells[key].label}: {error}", soft_wrap=True, highlight=False)
    if result.blocked:
        console.print(f"not tried, since they need one that failed: {len(result.blocked)} cells")
    return result


def _say_what_is_left_out(experiment: Experiment, grid: Grid, store: Store) -> None:
    """Say so when the file has changed and finished trainings leave the report."""
    if not store.has_index(experiment.name):
        return
    try:
        before = {number["key"] for number in store.read_index(experiment.name)["numbers"]}
    except ModuleFileError:
        console.print("the list of cells in the store is damaged, and written anew")
        return
    gone = sum(store.done(key) for key in before - {number.key for number in grid.numbers})
    if gone:
        console.print(
            f"{gone} trainings in the store were those of an earlier {experiment.name}: the report leaves them out"
        )


def _said(cell: Cell, record: Mapping[str, Any]) -> str:
    """Say what came of a cell in a few words."""
    from ..experiment.jobs import Distill, Train
    from ..tasks.records import task_named

    if isinstance(cell.job, Train):
        task = task_named(cell.job.data.task)
        name = task.metrics[-1]
        return f"  {name} {record['scores']['test'][name]:.{task.metric.digits - 1}f}"
    if isinstance(cell.job, Distill):
        return f"  loss {record['losses']['before']['loss']:.3f} -> {record['losses']['after']['loss']:.3f}"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
