"""Rows of words or texts with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import TaskError
from ..files.texts import Text
from .records import Task


def check_labelled(
    task: Task, where: str, row: Mapping[str, Any], renamed: Mapping[str, str], missing: set[str]
) -> dict[str, Any] | None:
    """Pick the task's columns from a row, labels as names.

    Args:
        task: the task.
        where: what to call the row.
        row: column -> value.
        renamed: name of a column of the task -> its name in the data.
        missing: texts that stand for a missing one.

    Returns:
        None for a row that is marked as missing.

    Raises:
        TaskError: a model could not be trained on it.
    """
    absent = [column for column in renamed.values() if row.get(column) is None]
    if absent:
        raise TaskError(
            f"{where}: no {absent[0]!r}, expected columns {', '.join(renamed.values())}, found {', '.join(row)}; "
            "mend the row, or name the columns (--column NAME=COLUMN)"
        )
    values = {name: row[column] for name, column in renamed.items()}
    words = task.task_type == "TOKEN_CLS"
    for name in task.inputs:
        value, kind = values[name], "a list of words" if words else "a text"
        if not isinstance(value, list if words else str):
            raise TaskError(f"{where}: {renamed[name]!r} is of type {type(value).__name__}, expected {kind}")
        if isinstance(value, str) and value.strip() in missing:
            return None
        if not value or any(not isinstance(text, str) or not text.strip() for text in (value if words else [value])):
            raise TaskError(f"{where}: {renamed[name]!r} is empty or has an empty word; leave the row out")
    target = values[task.target]
    if not words:
        return {**values, task.target: _label(task, target, where)}
    if not isinstance(target, list) or len(target) != len(values[task.inputs[0]]):
        raise TaskError(f"{where}: expected as many {renamed[task.target]!r} as {renamed[task.inputs[0]]!r}")
    return {**values, task.target: [_label(task, label, where) for label in target]}


def _label(task: Task, label: Any, where: str) -> str:
    if isinstance(label, bool) or not isinstance(label, int | str) or not str(label).strip():
        raise TaskError(f"{where}: found {label!r} for a label, expected a name or an integer")
    if not task.labels or str(label) in task.labels:
        return str(label)
    numbered = any(name.lstrip("-").isdecimal() for name in task.labels)
    if isinstance(label, int) and not numbered and 0 <= label < len(task.labels):
        return task.labels[label]
    raise TaskError(
        f"{where}: found label {str(label)!r}, expected one of {', '.join(task.labels)}; "
        "mend the row, or name the labels (--labels)"
    )


def inputs_of(task: Task, row: Mapping[str, Any]) -> list[Text]:
    """Give the input of a row as a plain text, or as a pair of them."""
    texts = [row[name] if isinstance(row[name], str) else " ".join(row[name]) for name in task.inputs]
    return [(texts[0], texts[1])] if len(texts) > 1 else [texts[0]]
