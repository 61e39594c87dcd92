"""The directory of a training under way: its settings, its last checkpoint, its learning curve."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TaskError, TrainingDivergedError
from ..files.directories import claimed
from ..files.reading import read_json
from ..files.writing import told, write_json
from ..stopping import undisturbed
from ..tasks.records import metric_named
from .checkpoints import last_checkpoint, remove
from .devices import processes

_SETTINGS = "regraft-training.json"


@contextmanager
def under_way(
    out: Path, settings: Mapping[str, Any], replace: bool, ours: Collection[str], inputs: Iterable[object] = ()
) -> Iterator[Path]:
    """Hold what a training writes, and the directory beside it that has the checkpoints until the training is done.

    When the block ends well that directory is removed; when it does not it stays, where there is a checkpoint to go on
    from. Of several processes the first one holds and removes it.

    Args:
        out: where the module will go.
        settings: everything that determines the outcome.
        replace: replace what is there, and start over where there is an unfinished training with other settings.
        ours: as for `check_writable`.
        inputs: likewise.

    Yields:
        The directory, new or as an earlier attempt left it.

    Raises:
        ModuleFileError: another process trains there, or as `check_writable`.
        TaskError: there is an unfinished training and `replace` is False, or the directory is not one of ours.
    """
    work = out.absolute().with_name(f"{out.absolute().name}.training")
    first = processes().is_main_process
    with ExitStack() as held:
        with processes().main_process_first():
            if first:
                held.enter_context(claimed(out, replace, ours, inputs))
                _begin(work, settings, replace)
        try:
            yield work
        except BaseException as error:
            lost = isinstance(error, TrainingDivergedError)
            if first and (lost or not any(last_checkpoint(path) for path in (work, *work.glob("*")))):
                with undisturbed():
                    shutil.rmtree(work, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                error.add_note(f"what was trained so far is in {work}, and the same command goes on from there")
            raise
        if first:
            remove(work)


def _begin(work: Path, settings: Mapping[str, Any], restart: bool) -> None:
    """Make the directory of a training, or find the one again that was begun with the same settings."""
    if (work / _SETTINGS).is_file():
        before = read_json(work / _SETTINGS)
        if before == settings:
            return
        if not restart:
            changed = sorted(key for key in settings if before.get(key) != settings[key])
            raise TaskError(
                f"{work} holds an unfinished training with other {', '.join(changed)}; "
                "finish it with its own settings, or start over (--replace)"
            )
        remove(work)
    elif work.exists() and any(not path.name.startswith(f".{_SETTINGS}.") for path in work.iterdir()):
        raise TaskError(f"{work}, where checkpoints would go, holds something else; move it or choose another --out")
    with told(work):
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _SETTINGS, settings)


def learning_curve(
    history: Iterable[Mapping[str, Any]], metrics: Sequence[str], split: str = "validation"
) -> list[dict[str, Any]]:
    """Turn the Trainer's log into rows of step, epoch and either the training loss or scores on the split."""
    rows = []
    for entry in history:
        row = {"step": entry["step"], "epoch": entry.get("epoch", 0)}
        if "loss" in entry:
            rows.append({**row, "loss": entry["loss"], "learning_rate": entry["learning_rate"]})
        elif f"eval_{metrics[-1]}" in entry:
            scores = {name: entry[f"eval_{name}"] for name in ("loss", *metrics)}
            rows.append({**row, "split": split, **scores})
    return rows


@dataclass(frozen=True)
class Kept:
    """What is kept of a training.

    Attributes:
        step: after how many steps it was; 0 for the start.
        scores: ``"before training"``, and on ``"validation"`` those of what is kept: metric -> score.
    """

    step: int
    scores: dict[str, dict[str, float]]


def best_of(curve: Iterable[Mapping[str, Any]], metrics: Sequence[str], start_competes: bool) -> Kept:
    """Pick from a learning curve what is kept: the best checkpoint by the last metric, or the start.

    Args:
        curve: rows as of `learning_curve`, the first score being that of the start.
        metrics: their names.
        start_competes: whether the start is kept where it is better than every checkpoint.
    """
    start, *checkpoints = (row for row in curve if "split" in row)
    name, metric = metrics[-1], metric_named(metrics[-1])
    best = max(checkpoints, key=lambda row: metric.gain(row[name], 0))  # of equals the first, as the Trainer does
    if start_competes and metric.gain(start[name], best[name]) > 0:
        best = start
    rows = {"before training": start, "validation": best}
    return Kept(best["step"], {name: {metric: row[metric] for metric in metrics} for name, row in rows.items()})
