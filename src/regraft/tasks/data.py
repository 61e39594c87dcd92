"""The three splits of a task, with every row checked and labels by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from ..errors import TaskError
from ..files.fingerprints import hash_rows
from .kinds import KINDS
from .records import Task
from .sources import SPLITS, find_rows

# Where a split to train on, or to validate on, is missing, this share of the other one (its end) validates.
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Loaded:
    """A task with its data.

    Attributes:
        task: the task, with its labels settled.
        splits: for each of `SPLITS` a data set with the task's columns; targets are names of labels, if there are any.
        source: what to call the data.
        labels_from: what says which labels there are, and in which order: who asked (``"given"``), the ``"task"``,
            or nobody: they are those found in the ``"data"``, by the alphabet.
        left_out: number of rows that the data set itself marks as missing.
        fingerprint: hash of all rows.
    """

    task: Task
    splits: Mapping[str, Dataset]
    source: str
    labels_from: Literal["given", "task", "data"]
    left_out: int
    fingerprint: str

    def agrees(self, labels: Sequence[str]) -> bool:
        """Whether a head for these labels is one for this task, whatever their order."""
        mine, others = set(self.task.labels), set(labels)
        return mine <= others if self.labels_from == "data" else mine == others

    def ordered(self, labels: Sequence[str]) -> Loaded:
        """Take over the order of a head's rows."""
        return replace(self, task=replace(self.task, labels=tuple(labels)))


def load_task(
    task: Task,
    data: str | Path | None = None,
    language: str = "en",
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> Loaded:
    """Load the three splits of a task.

    Args:
        task: its record.
        data: a folder with ``train.*`` (optional), ``val.*`` or ``dev.*``, and ``test.*`` in one of `files.FORMATS`,
            itself or in a subfolder named by the language; or a data set on the hub, ``ID`` or ``ID:CONFIG``; None for
            the task's own on the hub. Without a training file the last tenth of the validation file validates and the
            rest is trained on; without a validation file the last tenth of the training file validates.
        language: e.g. ``"en"``.
        columns: name of a column of the task -> its name in the data, where these differ.
        labels: names of the labels, instead of the task's; integers in the data are places in this list, unless one
            of the names is a number.

    Raises:
        TaskError: nothing to load, or a bad row (missing field, unknown label, empty text), with file and line.
    """
    renamed = {name: name for name in task.columns}
    for name, column in (columns or {}).items():
        if name not in renamed:
            raise TaskError(f"unknown column {name!r}, expected one of {', '.join(renamed)} (--column NAME=COLUMN)")
        renamed[name] = column
    if labels and not task.target:
        raise TaskError("found labels for a task that has none; leave them out (--labels)")
    task = replace(task, labels=tuple(labels)) if labels else task
    kind = KINDS[task.task_type]
    raw = find_rows(task, data, language, renamed)
    missing = {*task.missing, ""} if raw.own and task.missing else set(task.missing)
    rows, left_out = {}, 0
    for split, read in raw.rows.items():
        checked = [kind.check(task, where, row, renamed, missing) for where, row in read]
        rows[split] = [row for row in checked if row is not None]
        left_out += len(checked) - len(rows[split])
        if not rows[split]:
            raise TaskError(f"{raw.source} has no row to use as {split}")
    labels_from: Literal["given", "task", "data"] = "given" if labels else "task"
    if task.target and not task.labels:
        labels_from = "data"
        targets = [row[task.target] for read in rows.values() for row in read]
        names = {name for target in targets for name in ([target] if isinstance(target, str) else target)}
        task = replace(task, labels=tuple(sorted(names)))
    if task.target and len(set(task.labels)) < max(2, len(task.labels)):
        raise TaskError(f"{raw.source}: found the labels {', '.join(task.labels)}, expected two or more, each once")
    splits = _with_validation(rows, raw.source)
    return Loaded(
        task,
        {split: Dataset.from_list(splits[split]) for split in SPLITS},
        raw.source,
        labels_from,
        left_out,
        hash_rows(splits),
    )


def _with_validation(rows: Mapping[str, list[Any]], source: str) -> dict[str, list[Any]]:
    if rows.keys() == set(SPLITS):
        return dict(rows)
    whole = rows["validation"] if "validation" in rows else rows["train"]
    if len(whole) < 2:
        raise TaskError(f"{source} has one row to train and validate on, expected some hundreds")
    count = max(1, round(len(whole) * _VALIDATION_SHARE))
    return {"train": whole[:-count], "validation": whole[-count:], "test": rows["test"]}
