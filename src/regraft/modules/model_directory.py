"""Whole models as directories: what transformers loads, with its tokenizer, provenance and card."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files.directories import new_directory
from ..files.reading import read_json
from ..files.writing import write_json, write_json_lines, write_text
from .card import CARD
from .module import CURVE, PROVENANCE


def model_files(path: Path) -> list[str]:
    """List the files that a model which regraft wrote consists of; none where there is none."""
    if not (path / PROVENANCE).is_file():
        return []
    provenance = read_json(path / PROVENANCE)
    return list(provenance.get("files", ())) if isinstance(provenance, dict) else []


def save_model(
    path: Path,
    model: Any,
    tokenizer: Any,
    provenance: Mapping[str, Any],
    card: Callable[[Mapping[str, Any]], str],
    replace: bool,
    curve: Iterable[Any] | None = None,
    instead_of: Collection[str] = (),
) -> None:
    """Write a model and its tokenizer, ``regraft.json``, a model card and perhaps a learning curve; all or nothing.

    Args:
        path: the directory.
        model: of transformers.
        tokenizer: its tokenizer.
        provenance: what made it.
        card: writes the card of a provenance.
        replace: replace a model that regraft wrote there.
        curve: rows of ``curve.jsonl``.
        instead_of: names of files of something else that regraft wrote and that may be replaced as well.

    Raises:
        ModuleFileError: the directory exists and may not be replaced.
    """
    with new_directory(path, replace, [*model_files(path), *instead_of]) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        if curve is not None:
            write_json_lines(directory / CURVE, curve)
        write_text(directory / CARD, card(provenance))
        files = sorted({PROVENANCE, *(file.name for file in directory.iterdir())})
        write_json(directory / PROVENANCE, {**provenance, "files": files})
