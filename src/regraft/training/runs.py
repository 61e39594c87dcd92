"""The directory of a training under way: its settings, its last checkpoint, its learning curve."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModuleFileError, TaskError
from ..files.directories import write_json
from ..files.reading import read_json
from ..tasks.records import metric_named

_SETTINGS = "regraft-training.json"


def work_directory(out: Path, settings: Mapping[str, Any], restart: bool) -> Path:
    """Make, or find again, the directory beside `out` that holds checkpoints until the training is done.

    Args:
        out: where the module will go.
        settings: everything that determines the outcome.
        restart: start over where there is an unfinished training with other settings.

    Raises:
        TaskError: there is one and `restart` is False, or the directory is not one of ours.
    """
    out = out.absolute()
    work = out.with_name(f"{out.name}.training")
    if (work / _SETTINGS).is_file():
        before = read_json(work / _SETTINGS)
        if before == settings:
            return work
        if not restart:
            changed = sorted(key for key in settings if before.get(key) != settings[key])
            raise TaskError(
                f"{work} holds an unfinished training with other {', '.join(changed)}; "
                "finish it with its own settings, or start over (--replace)"
            )
        shutil.rmtree(work)
    elif work.exists() and any(work.iterdir()):
        raise TaskError(f"{work}, where checkpoints would go, holds something else; move it or choose another --out")
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / _SETTINGS, settings)
    return work


def last_checkpoint(work: Path) -> str | None:
    """Find the last complete checkpoint: the Trainer writes its state last."""
    complete = [path for path in work.glob("checkpoint-*") if _readable(path / "trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


def _readable(path: Path) -> bool:
    try:
        return isinstance(read_json(path), dict)
    except ModuleFileError:
        return False


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
