"""Rows of local files, each with the place it was read from, so that a bad one can be found."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..errors import TaskError, first_line


def read_sentences(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield the (line of the first word, words, tags) of each sentence; its words are on consecutive lines.

    Args:
        path: a UTF-8 file.

    Raises:
        TaskError: it cannot be read, or a line has not three columns; with file and line.
    """
    words: list[str] = []
    tags: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read {path}: {error}") from error
    # Only line feeds end a line: tokens may hold other characters that Python counts as line boundaries.
    for number, line in enumerate([*text.split("\n"), ""], start=1):  # an empty line ends the last sentence too
        line = line.rstrip("\r")
        if not line.strip():
            if words:
                yield number - len(words), words, tags
            words, tags = [], []
            continue
        columns = line.split("\t")
        if len(columns) != 3 or not columns[1]:
            raise TaskError(f"{path}, line {number}: found {len(columns)} columns, expected index, token and tag")
        words.append(columns[1])
        tags.append(columns[2])


FORMATS = (".conllu", ".tsv", ".csv", ".jsonl", ".parquet")

Row = tuple[str, Mapping[str, Any]]
"""(where it was read, column -> value)"""


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: a file in one of `FORMATS`, or ``.txt`` with a text per line. ``.tsv`` and ``.csv`` begin with the names
            of the columns; in ``.tsv`` quotes are characters like any other, as in PAWS-X and XNLI.
        columns: what to call the words and the tags of a ``.conllu`` file, or the texts of a ``.txt`` file, which have
            no names.

    Raises:
        TaskError: a file that cannot be read, with the line where there is one.
    """
    readers = {".tsv": _separated, ".csv": _separated, ".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix == ".conllu":
        for line, words, tags in read_sentences(path):
            yield f"{path}, sentence of line {line}", dict(zip(columns, (words, tags), strict=False))
        return
    try:
        if path.suffix == ".txt":
            yield from ((where, {columns[0]: line}) for where, line in _lines(path))
        else:
            yield from readers[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"cannot read {path}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    # Only line feeds end a line: texts may hold other characters that Python counts as line boundaries.
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r")


def _separated(path: Path) -> Iterator[Row]:
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True, **style)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise TaskError(f"{where}: found more fields than the {len(reader.fieldnames or ())} of the first line")
            yield where, row


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{where}: expected a JSON object per line: {error}") from error
            if not isinstance(row, dict):
                raise TaskError(f"{where}: found a {type(row).__name__}, expected a JSON object per line")
            yield where, row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        dataset = Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow's errors come under many names, and datasets wraps them
        raise TaskError(f"cannot read {path} as Parquet: {first_line(error)}") from error
    yield from rows_of(dataset, str(path))


def rows_of(dataset: Dataset, source: str) -> Iterator[Row]:
    """Yield the rows of a loaded data set, labels by name where it has their names."""
    features = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    names = {name: feature.names for name, feature in features.items() if getattr(feature, "names", None)}
    for number, row in enumerate(dataset, start=1):
        yield (
            f"{source}, row {number}",
            {column: _named(value, names[column]) if column in names else value for column, value in row.items()},
        )


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
