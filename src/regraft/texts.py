"""Plain texts to run models on: from local files of several formats, or from a data set on the hub."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset

from .errors import SamplingError
from .tasks.conllu import read_sentences

# How `datasets` reads the formats whose texts are in a column. Tab-separated files are not quoted, as GLUE's are not.
_TABLES: dict[str, dict[str, Any]] = {
    ".jsonl": {"path": "json"},
    ".csv": {"path": "csv"},
    ".tsv": {"path": "csv", "delimiter": "\t", "quoting": csv.QUOTE_NONE},
    ".parquet": {"path": "parquet"},
}
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")


def read_texts(source: str | Path, column: str = "text", limit: int | None = None) -> list[str]:
    """Read texts that are not blank.

    Args:
        source: a file: plain text with one text per line, ``.conllu`` with one per sentence, or ``.jsonl``, ``.csv``,
            ``.tsv`` or ``.parquet`` with one per row; or the id of a data set on the hub (or a directory in the hub's
            layout), of which the split ``train`` is read: ``org/name``, or ``org/name:config``.
        column: what holds the texts of a table or a data set.
        limit: read only this many, the first; by default all. A data set is then not downloaded whole.

    Raises:
        SamplingError: the source cannot be read, has no such column, or holds no text.
        TaskError: a ``.conllu`` file with a malformed line.
    """
    path = Path(source)
    hub_id = _HUB_ID.fullmatch(str(source))
    found: Iterator[str]
    if path.suffix == ".conllu":
        found = (" ".join(words) for words, _ in read_sentences(path))
    elif path.suffix in _TABLES:
        found = _column(source, column, data_files=str(path), streaming=True, **_TABLES[path.suffix])
    elif path.is_dir() or (isinstance(source, str) and hub_id and path.suffix != ".txt" and not path.exists()):
        name, config = (hub_id["name"], hub_id["config"]) if hub_id else (str(source), None)
        found = _column(source, column, path=name, name=config, streaming=limit is not None)
    else:
        found = _lines(path)
    texts = list(islice((text for text in found if text.strip()), limit))
    if not texts:
        raise SamplingError(f"{source} holds no text, expected some hundred texts (one per line in plain text)")
    return texts


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"cannot read texts from {path}, expected UTF-8, one text per line: {error}") from error
    yield from text.split("\n")


def _column(source: str | Path, column: str, **loading: Any) -> Iterator[str]:
    try:
        for row in load_dataset(split="train", **loading):
            if column not in row:
                raise SamplingError(
                    f"{source} has no column {column!r}, expected one of {', '.join(sorted(row))} (--column)"
                )
            if not isinstance(row[column], str | None):
                kind = type(row[column]).__name__
                raise SamplingError(f"column {column!r} of {source} holds {kind}, expected texts; name another column")
            yield row[column] or ""
    except SamplingError:
        raise
    except Exception as error:  # `datasets` raises those of many libraries
        reason = str(error).strip().split("\n")[0]
        raise SamplingError(
            f"cannot read texts from {source}, expected a file here or a data set 'org/name' with a split 'train' "
            f"on the hub: {reason}"
        ) from error
