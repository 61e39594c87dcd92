"""Plain texts to run models on: from local files of several formats, or from a data set on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset

from ..errors import SamplingError, first_line
from .hub import HubId, locate
from .rows import FORMATS, read_rows


def read_texts(source: str | Path, column: str = "text", limit: int | None = None, split: str = "train") -> list[str]:
    """Read texts that are not blank.

    Args:
        source: a file: plain text with one text per line, ``.conllu`` with one per sentence, or ``.jsonl``, ``.csv``,
            ``.tsv`` or ``.parquet`` with one per row; or the id of a data set on the hub (or a directory in the hub's
            layout): ``org/name``, or ``org/name:config``.
        column: what holds the texts of a table or a data set; lists of words are joined by spaces.
        limit: read only this many, the first; by default all. A data set is then not downloaded whole.
        split: of a data set on the hub.

    Raises:
        SamplingError: the source cannot be read, has no such column, or holds no text.
        TaskError: a malformed line in a file.
    """
    place = locate(source)
    if isinstance(place, Path) and place.is_dir():
        place = HubId(str(place), None)  # `datasets` reads both
    lines: Iterator[str]
    if isinstance(place, HubId):
        lines = _of_data_set(place, split, column, streaming=limit is not None)
    elif place.suffix in FORMATS:
        lines = (_text(row, column, where) for where, row in read_rows(place, (column,)))
    else:
        lines = _lines(place)
    texts = list(islice((text for text in lines if text.strip()), limit))
    if not texts:
        raise SamplingError(f"{source} holds no text, expected some hundred texts (one per line in plain text)")
    return texts


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"cannot read texts from {path}, expected UTF-8, one text per line: {error}") from error
    yield from text.split("\n")


def _of_data_set(data: HubId, split: str, column: str, streaming: bool) -> Iterator[str]:
    try:
        rows = load_dataset(data.name, data.config, split=split, streaming=streaming)
    except Exception as error:  # `datasets` raises those of many libraries
        raise SamplingError(
            f"cannot read texts from {data.name}, expected a file here or a data set 'org/name' with a split {split!r} "
            f"on the hub: {first_line(error)}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield _text(row, column, f"{data.name}, row {number}")


def _text(row: Any, column: str, where: str) -> str:
    if column not in row:
        raise SamplingError(f"{where}: no column {column!r}, expected one of {', '.join(sorted(row))} (--column)")
    value = row[column]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if not isinstance(value, str | None):
        raise SamplingError(f"{where}: {column!r} holds {type(value).__name__}, expected texts; name another column")
    return value or ""
