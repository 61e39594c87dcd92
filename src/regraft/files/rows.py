"""Rows of local files, each with the place it was read from, so that a bad one can be found."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features
from pyarrow.parquet import ParquetFile

from ..errors import TaskError, first_line
from .plain import check_regular, parse_json, read_lines


def read_sentences(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield the (line of the first word, words, tags) of each sentence; its words are on consecutive lines.

    Args:
        path: a UTF-8 file.

    Raises:
        TaskError: it cannot be read, or a line has not three columns; with file and line.
    """
    words: list[str] = []
    tags: list[str] = []
    number = 0
    for number, ended in _lines(path):
        line = ended.rstrip("\r\n")
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
    if words:
        yield number + 1 - len(words), words, tags


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
    if path.suffix == ".txt":
        for number, text in _lines(path):
            if text.strip():
                yield f"{path}, line {number}", {columns[0]: text.rstrip("\r\n")}
    else:
        yield from readers[path.suffix](path)


def _lines(path: Path, newline: str | None = "\n") -> Iterator[tuple[int, str]]:
    """Yield the lines of a file as `read_lines` does."""
    try:
        yield from read_lines(path, newline)
    except (OSError, ValueError) as error:
        raise TaskError(f"cannot read {path}: {first_line(error)}") from error


def _separated(path: Path) -> Iterator[Row]:
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    try:
        reader = csv.DictReader((line for _, line in _lines(path, newline="")), strict=True, **style)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise TaskError(f"{where}: found more fields than the {len(reader.fieldnames or ())} of the first line")
            yield where, row
    except csv.Error as error:
        raise TaskError(f"cannot read {path}: {first_line(error)}") from error


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in _lines(path, newline=None):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise TaskError(f"{where}: expected a JSON object per line: {first_line(error)}") from error
        if not isinstance(row, dict):
            raise TaskError(f"{where}: found a {type(row).__name__}, expected a JSON object per line")
        yield where, row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        check_regular(path)
        file = ParquetFile(path)
        features = Features.from_arrow_schema(file.schema_arrow)
        # In batches, not all at once; `datasets` would copy the file into its cache first.
        rows = (row for batch in file.iter_batches(batch_size=256) for row in batch.to_pylist())
        yield from named_rows(rows, features, str(path))
    except Exception as error:  # pyarrow's errors come under many names
        raise TaskError(f"cannot read {path} as Parquet: {first_line(error)}") from error


def rows_of(dataset: Dataset, source: str) -> Iterator[Row]:
    """Yield the rows of a loaded data set, labels by name where it has their names."""
    return named_rows(dataset, dataset.features, source)


def named_rows(rows: Iterable[Any], features: Mapping[str, Any], source: str) -> Iterator[Row]:
    """Yield rows, labels by name where their features have names."""
    features = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    names = {name: feature.names for name, feature in features.items() if getattr(feature, "names", None)}
    for number, row in enumerate(rows, start=1):
        yield (
            f"{source}, row {number}",
            {column: _named(value, names[column]) if column in names else value for column, value in row.items()},
        )


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
