"""The three splits of a task, from local files or the hub, with every row checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from ..errors import TaskError
from .files import FORMATS, Row, read_rows, rows_of
from .records import Task

SPLITS = ("train", "validation", "test")
_STEMS = {"train": ("train",), "validation": ("val", "dev", "validation"), "test": ("test",)}
# Where a split to train on, or to validate on, is missing, this share of the other one (its end) validates.
_KEPT_FOR_VALIDATION = 0.1


@dataclass(frozen=True)
class Loaded:
    """A task with its data.

    Attributes:
        task: the task, with its labels settled.
        splits: for each of `SPLITS` a data set with the task's columns; targets are indices into the labels.
        source: what to call the data.
    """

    task: Task
    splits: Mapping[str, Dataset]
    source: str


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
        data: a folder with ``train.*`` (optional), ``val.*`` or ``dev.*``, and ``test.*`` in one of `FORMATS`, itself
            or in a subfolder named by the language; or a data set on the hub, ``ID`` or ``ID:CONFIG``; None for the
            task's own on the hub. Without a training file the last tenth of the validation file validates and the rest
            is trained on; without a validation file the last tenth of the training file validates.
        language: e.g. ``"en"``.
        columns: name of a column of the task -> its name in the data, where these differ.
        labels: names of the labels in the order of the head's rows, instead of the task's.

    Raises:
        TaskError: nothing to load, or a bad row (missing field, unknown label, empty text), with file and line.
    """
    renamed = {name: name for name in task.columns}
    for name, column in (columns or {}).items():
        if name not in renamed:
            raise TaskError(f"unknown column {name!r}, expected one of {', '.join(renamed)} (--column NAME=COLUMN)")
        renamed[name] = column
    if labels:
        task = replace(task, labels=tuple(labels))
    found, source = (
        _from_hub(task, data, language) if _is_hub(data) else _from_folder(Path(str(data)), language, renamed)
    )
    rows = {split: [_checked(task, where, row, renamed) for where, row in found[split]] for split in found}
    empty = [split for split, values in rows.items() if not values]
    if empty:
        raise TaskError(f"{source} has no row to use as {empty[0]}")
    if not task.labels:
        task = replace(task, labels=_names_in(task, rows.values()))
    if len(set(task.labels)) < max(2, len(task.labels)):
        raise TaskError(f"{source}: found the labels {', '.join(task.labels)}, expected two or more, each once")
    index = {name: i for i, name in enumerate(task.labels)}
    splits = {split: _dataset(task, values, index) for split, values in rows.items()}
    return Loaded(task, _with_validation(splits), source)


def _is_hub(data: str | Path | None) -> bool:
    return data is None or (
        isinstance(data, str) and not Path(data).exists() and bool(re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", data))
    )


def _from_folder(data: Path, language: str, renamed: Mapping[str, str]) -> tuple[dict[str, Iterable[Row]], str]:
    folder = data / language if (data / language).is_dir() else data
    paths = {split: _file(folder, split) for split in SPLITS}
    if paths["test"] is None or (paths["train"] is None and paths["validation"] is None):
        missing = "test" if paths["test"] is None else "val"
        raise TaskError(
            f"{folder} has no {missing} file, expected train, val (or dev) and test in one of {', '.join(FORMATS)} "
            f"there or in a subfolder named by the language ({language}); or name a data set of the hub"
        )
    columns = list(renamed.values())
    return {split: read_rows(path, columns) for split, path in paths.items() if path is not None}, f"{data}, {language}"


def _file(folder: Path, split: str) -> Path | None:
    found = [path for stem in _STEMS[split] for ending in FORMATS if (path := folder / f"{stem}{ending}").is_file()]
    if len(found) > 1:
        raise TaskError(
            f"{folder} has both {found[0].name} and {found[1].name}, expected one {split} file; move one away"
        )
    return found[0] if found else None


def _from_hub(task: Task, data: str | Path | None, language: str) -> tuple[dict[str, Iterable[Row]], str]:
    if data is not None:
        name, _, config = str(data).partition(":")
        wanted = {split: split for split in SPLITS}
    elif task.hub is not None:
        name, config = task.hub.name, (task.hub.config or "").format(language=language)
        wanted = {split: there.format(language=language) for split, there in task.hub.splits.items()}
    else:
        raise TaskError("this task has no data of its own; pass a folder or a data set of the hub with --data")
    try:
        loaded = load_dataset(name, config or None)
    except Exception as error:  # the hub's client raises those of many libraries
        reason = str(error).strip().split("\n")[0]
        raise TaskError(
            f"cannot load {name} ({config or 'default'}) from the hub; pass local files with --data ({reason})"
        ) from error
    if wanted["test"] not in loaded or not loaded.keys() & {wanted["train"], wanted["validation"]}:
        raise TaskError(
            f"{name} has the splits {', '.join(loaded)}, expected {wanted['test']} and one or both of "
            f"{wanted['train']} and {wanted['validation']}"
        )
    return (
        {split: rows_of(loaded[there], f"{name}, {there}") for split, there in wanted.items() if there in loaded},
        f"{name}, {config or language}",
    )


def _checked(task: Task, where: str, row: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Pick the task's columns from a row, labels as names; refuse what a model could not be trained on."""
    absent = [column for column in renamed.values() if row.get(column) is None]
    if absent:
        raise TaskError(
            f"{where}: no {absent[0]!r}, expected columns {', '.join(renamed.values())}, found {', '.join(row)}"
        )
    values = {name: row[column] for name, column in renamed.items()}
    words = task.task_type == "TOKEN_CLS"
    for name in task.inputs:
        value = values[name]
        if not isinstance(value, list if words else str):
            raise TaskError(
                f"{where}: {renamed[name]!r} is a {type(value).__name__}, expected a {'list' if words else 'text'}"
            )
        if not (value if words else str(value).strip()):
            raise TaskError(f"{where}: {renamed[name]!r} is empty; leave the row out")
    target = values[task.target]
    if words:
        if not isinstance(target, list) or len(target) != len(values[task.inputs[0]]):
            raise TaskError(f"{where}: expected as many {renamed[task.target]!r} as {renamed[task.inputs[0]]!r}")
        values[task.target] = [_label(task, label, where) for label in target]
    else:
        values[task.target] = _label(task, target, where)
    return values


def _label(task: Task, label: Any, where: str) -> str:
    name = str(label)
    if not task.labels or name in task.labels:
        return name
    if isinstance(label, int) and 0 <= label < len(task.labels):
        return task.labels[label]
    raise TaskError(f"{where}: found label {name!r}, expected one of {', '.join(task.labels)}")


def _names_in(task: Task, splits: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    targets = [row[task.target] for rows in splits for row in rows]
    names = {name for target in targets for name in ([target] if isinstance(target, str) else target)}
    return tuple(sorted(names))


def _dataset(task: Task, rows: Sequence[Mapping[str, Any]], index: Mapping[str, int]) -> Dataset:
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in task.inputs}
    targets = [row[task.target] for row in rows]
    columns[task.target] = [index[t] if isinstance(t, str) else [index[name] for name in t] for t in targets]
    return Dataset.from_dict(columns)


def _with_validation(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    if splits.keys() == set(SPLITS):
        return splits
    whole = splits["validation"] if "validation" in splits else splits["train"]
    kept = max(1, round(len(whole) * _KEPT_FOR_VALIDATION))
    return {
        "train": whole.select(range(len(whole) - kept)),
        "validation": whole.select(range(len(whole) - kept, len(whole))),
        "test": splits["test"],
    }
