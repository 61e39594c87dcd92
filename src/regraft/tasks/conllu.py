"""Sentences in WikiNEuRal's file format: a token per line (index, token, tag), a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import TaskError


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
    number = 0
    # Only line feeds end a line: tokens may hold other characters that Python counts as line boundaries.
    for number, line in enumerate(text.split("\n"), start=1):
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
    if words:
        yield number + 1 - len(words), words, tags
