"""Where the rows of a task come from: a folder, a data set of the hub, the task's own data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset

from ..errors import TaskError, first_line
from ..files.hub import HubId, locate
from ..files.rows import FORMATS, Row, read_rows, rows_of
from .records import Task

SPLITS = ("train", "validation", "test")
_STEMS = {"train": ("train",), "validation": ("val", "dev", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class RawSplits:
    """Rows that are not read yet.

    Attributes:
        rows: by split, one or both of ``train`` and ``validation``, and ``test``.
        source: what to call them.
        own: whether they are the task's own data set.
    """

    rows: Mapping[str, Iterable[Row]]
    source: str
    own: bool = False


def find_rows(task: Task, data: str | Path | None, language: str, renamed: Mapping[str, str]) -> RawSplits:
    """Find the rows of a task.

    Args:
        task: its record.
        data: a folder, a data set of the hub (``ID`` or ``ID:CONFIG``), or None for the task's own.
        language: which part of the task's own data set, or which subfolder.
        renamed: name of a column of the task -> its name in the data.

    Raises:
        TaskError: nothing of that name, or no split to train on or to test on.
    """
    if data is None:
        return _own(task, language)
    place = locate(data)
    if isinstance(place, HubId):
        return _from_hub(place, {split: split for split in SPLITS})
    return _from_folder(place, language, renamed, (*FORMATS, *task.formats))


def _from_folder(data: Path, language: str, renamed: Mapping[str, str], formats: Sequence[str]) -> RawSplits:
    folder = data / language if (data / language).is_dir() else data
    paths = {split: _file(folder, split, formats) for split in SPLITS}
    if paths["test"] is None or (paths["train"] is None and paths["validation"] is None):
        missing = "test" if paths["test"] is None else "val"
        found = f"{data} is a file" if data.is_file() else f"{folder} has no {missing} file"
        there = "in a folder" if data.is_file() else "there"
        raise TaskError(
            f"{found}, expected train, val (or dev) and test in one of {', '.join(formats)} "
            f"{there} or in a subfolder named by the language ({language}); or name a data set of the hub"
        )
    columns = list(renamed.values())
    rows = {split: read_rows(path, columns) for split, path in paths.items() if path is not None}
    return RawSplits(rows, f"{data}, {language}")


def _file(folder: Path, split: str, formats: Sequence[str]) -> Path | None:
    files = [path for stem in _STEMS[split] for ending in formats if (path := folder / f"{stem}{ending}").is_file()]
    if len(files) > 1:
        raise TaskError(
            f"{folder} has both {files[0].name} and {files[1].name}, expected one {split} file; move one away"
        )
    return files[0] if files else None


def _own(task: Task, language: str) -> RawSplits:
    if task.hub is None:
        raise TaskError("this task has no data of its own; pass a folder or a data set of the hub with --data")
    config = task.hub.config.format(language=language) if task.hub.config else None
    names = {split: there.format(language=language) for split, there in task.hub.splits.items()}
    rows = _from_hub(HubId(task.hub.name, config), names).rows
    return RawSplits(rows, f"{task.hub.name}, {language}", own=True)


def _from_hub(data: HubId, names: Mapping[str, str]) -> RawSplits:
    name, config = data.name, data.config or "default"
    try:
        loaded = load_dataset(name, data.config)
    except Exception as error:  # the hub's client raises those of many libraries
        raise TaskError(
            f"cannot load {name} ({config}) from the hub, and no folder here has that name; pass local "
            f"files with --data ({first_line(error)})"
        ) from error
    if names["test"] not in loaded or not loaded.keys() & {names["train"], names["validation"]}:
        raise TaskError(
            f"{name} has the splits {', '.join(loaded)}, expected {names['test']} and one or both of "
            f"{names['train']} and {names['validation']}"
        )
    rows = {split: rows_of(loaded[there], f"{name}, {there}") for split, there in names.items() if there in loaded}
    return RawSplits(rows, f"{name}, {config}")
