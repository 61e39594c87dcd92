"""Directories of students: what regraft writes there, so that transformers loads it, and nothing else is replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..files.directories import new_directory
from ..files.reading import read_json
from ..modules.card import student_card
from ..modules.module import CARD, CURVE, PROVENANCE

_VERSIONED = ("regraft", "torch", "transformers")


def student_files(path: Path) -> list[str]:
    """List the files that the student in a directory consists of; none where there is no student.

    Raises:
        ModuleFileError: the list, in ``regraft.json``, cannot be read.
    """
    if not (path / PROVENANCE).is_file():
        return []
    provenance = read_json(path / PROVENANCE)
    return list(provenance.get("files", ())) if isinstance(provenance, dict) else []


def write_student(
    path: Path,
    model: Any,
    tokenizer: Any,
    report: Mapping[str, Any],
    curve: Iterable[Mapping[str, Any]],
    replace: bool = False,
) -> None:
    """Write a model and its tokenizer, ``regraft.json``, the learning curve and a model card; all or nothing.

    Args:
        path: the directory.
        model: the student.
        tokenizer: the teacher's, as it came.
        report: what was distilled from what, how, and with which losses.
        curve: rows of the learning curve.
        replace: replace a student that is there already.

    Raises:
        ModuleFileError: the directory exists, and `replace` is False or it holds more than a student.
    """
    provenance: dict[str, Any] = {"distillation": dict(report)}
    provenance["versions"] = {name: version(name) for name in _VERSIONED}
    with new_directory(path, replace, student_files(path)) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / CURVE).write_text("".join(json.dumps(row) + "\n" for row in curve))
        (directory / CARD).write_text(student_card(provenance), encoding="utf-8")
        provenance["files"] = sorted({PROVENANCE, *(file.name for file in directory.iterdir())})
        (directory / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", "utf-8")
