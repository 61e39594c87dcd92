"""Plain texts to run models on: from local files of several formats, or from a data set on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset

from ..errors import SamplingError
from .rows import FORMATS, read_rows

_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")


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
    path = Path(source)
    hub_id = _HUB_ID.fullmatch(str(source))
    found: Iterator[str]
    if path.suffix in FORMATS:
        rows = read_rows(path, (column,))
        found = (_text(row, column, where) for where, row in rows)
    elif path.is_dir() or (isinstance(source, str) and hub_id and path.suffix != ".txt" and not path.exists()):
        name, config = (hub_id["name"], hub_id["config"]) if hub_id else (str(source), None)
        found = _of_data_set(name, config, split, column, streaming=limit is not None)
    else:
        found = _lines(path)
    texts = list(islice((text for text in found if text.strip()), limit))
    if not texts:
        raise SamplingError(f"{source} holds no text, expected some hundred texts (one per line in plain text)")
    return texts


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"cannot read texts from {path}, expected UTF-8, one text per line: {error}") from error
    yield from text.split("\n")


def _of_data_set(name: str, config: str | None, split: str, column: str, streaming: bool) -> Iterator[str]:
    try:
        rows = load_dataset(name, config, split=split, streaming=streaming)
    except Exception as error:  # `datasets` raises those of many libraries
        reason = str(error).strip().split("\n")[0]
        raise SamplingError(
            f"cannot read texts from {name}, expected a file here or a data set 'org/name' with a split {split!r} "
            f"on the hub: {reason}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield _text(row, column, f"{name}, row {number}")


def _text(row: Any, column: str, where: str) -> str:
    if column not in row:
        raise SamplingError(f"{where}: no column {column!r}, expected one of {', '.join(sorted(row))} (--column)")
    value = row[column]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if not isinstance(value, str | None):
        raise SamplingError(f"{where}: {column!r} holds {type(value).__name__}, expected texts; name another column")
    return value or ""
