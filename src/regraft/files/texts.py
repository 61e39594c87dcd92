"""Plain texts to run models on: from local files of several formats, or from a data set on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset

from ..errors import SamplingError, first_line
from .hub import HubId, locate
from .plain import read_lines
from .rows import FORMATS, read_rows

# Files with columns of any number; a `.conllu` file has words and tags.
_TABLES = tuple(suffix for suffix in FORMATS if suffix != ".conllu")


Text = str | tuple[str, str]
"""A text, or two that belong together, such as a premise and a hypothesis."""


def read_inputs(source: str | Path, column: str = "text", limit: int | None = None, split: str = "train") -> list[Text]:
    """Read texts that are not blank, or pairs of them.

    Args:
        source: a file: plain text with one text per line, ``.conllu`` with one per sentence, or ``.jsonl``, ``.csv``,
            ``.tsv`` or ``.parquet`` with one per row; or the id of a data set on the hub (or a directory in the hub's
            layout): ``org/name``, or ``org/name:config``.
        column: what holds the texts of a table or a data set, lists of words are joined by spaces; two that a comma
            separates (``"premise,hypothesis"``) give a pair for each row.
        limit: read only this many, the first; by default all. A data set is then not downloaded whole.
        split: of a data set on the hub.

    Raises:
        SamplingError: the source cannot be read, has no such column, or holds no text.
        TaskError: a malformed line in a file.
    """
    place, columns = locate(source), [name.strip() for name in column.split(",")]
    if isinstance(place, Path) and place.is_dir():
        _check_size(place)
        place = HubId(str(place), None)  # `datasets` reads both
    tabular = isinstance(place, HubId) or place.suffix in _TABLES
    if len(columns) > 2 or not all(columns) or (len(columns) == 2 and not tabular):
        expected = "one, or two whose texts belong together" if tabular else "one: only tables hold pairs of texts"
        raise SamplingError(f"found columns {column!r} to read from {source}, expected {expected} (--column)")
    lines: Iterator[tuple[str, ...]]
    if isinstance(place, HubId):
        lines = _of_data_set(place, split, columns, streaming=limit is not None)
    elif place.suffix in FORMATS:
        lines = (_row(row, columns, where) for where, row in read_rows(place, columns))
    else:
        lines = ((line,) for line in _lines(place))
    rows = islice((row for row in lines if all(text.strip() for text in row)), limit)
    texts: list[Text] = [(row[0], row[1]) if len(row) == 2 else row[0] for row in rows]
    if not texts:
        raise SamplingError(f"{source} holds no text, expected some hundred texts (one per line in plain text)")
    return texts


def read_texts(source: str | Path, column: str = "text", limit: int | None = None, split: str = "train") -> list[str]:
    """Read texts as `read_inputs` does, those of pairs each by itself."""
    return singly(read_inputs(source, column, limit, split))


def read_prompts(path: Path) -> list[str]:
    """Read beginnings of texts, one per line; blank lines are none.

    Raises:
        SamplingError: the file cannot be read, or holds none.
    """
    prompts = [line.rstrip("\r") for line in _lines(path) if line.strip()]
    if not prompts:
        raise SamplingError(f"{path} holds no prompt, expected beginnings of texts, one per line (--prompts)")
    return prompts


def singly(texts: Sequence[Text]) -> list[str]:
    """Take pairs of texts apart, for what reads them one by one."""
    return [text for one in texts for text in ([one] if isinstance(one, str) else one)]


def _lines(path: Path) -> Iterator[str]:
    try:
        for _, line in read_lines(path):
            yield line.rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise SamplingError(
            f"cannot read texts from {path}, expected UTF-8, one text per line: {first_line(error)}"
        ) from error


# Files in a directory in the hub's layout: every one of them is looked at before the first is read.
_MOST_FILES = 10_000


def _check_size(directory: Path) -> None:
    if next(islice(directory.rglob("*"), _MOST_FILES, None), None) is not None:
        raise SamplingError(
            f"{directory} holds more than {_MOST_FILES} files, expected a file of texts or a data set; name the file"
        )


def _of_data_set(data: HubId, split: str, columns: Sequence[str], streaming: bool) -> Iterator[tuple[str, ...]]:
    try:
        rows = load_dataset(data.name, data.config, split=split, streaming=streaming)
    except Exception as error:  # `datasets` raises those of many libraries
        raise SamplingError(
            f"cannot read texts from {data.name}, expected a file here or a data set 'org/name' with a split {split!r} "
            f"on the hub: {first_line(error)}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield _row(row, columns, f"{data.name}, row {number}")


def _row(row: Any, columns: Sequence[str], where: str) -> tuple[str, ...]:
    return tuple(_text(row, column, where) for column in columns)


def _text(row: Any, column: str, where: str) -> str:
    if column not in row:
        raise SamplingError(f"{where}: no column {column!r}, expected one of {', '.join(sorted(row))} (--column)")
    value = row[column]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if not isinstance(value, str | None):
        raise SamplingError(f"{where}: {column!r} holds {type(value).__name__}, expected texts; name another column")
    return value or ""
