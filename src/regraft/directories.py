"""Directories appear whole or not at all; files that cannot be read are refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .errors import ModuleFileError


def check_writable(path: str | os.PathLike[str], replace: bool, marker: str) -> None:
    """Refuse an output directory before any work is done.

    Args:
        path: the directory to be.
        replace: whether the user allows to replace one that exists.
        marker: a file that tells a directory of ours, so that `replace` never removes anything else.

    Raises:
        ModuleFileError: it exists and may not, or should not, be replaced.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not (path / marker).is_file():
        raise ModuleFileError(f"{path} exists and holds no {marker}, so it is not replaced; choose another name")
    if not replace:
        raise ModuleFileError(f"{path} exists; choose another name, or replace it (--replace)")


@contextmanager
def new_directory(path: str | os.PathLike[str], replace: bool, marker: str) -> Iterator[Path]:
    """Give a directory to write into that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        ModuleFileError: as `check_writable`.
    """
    path = Path(path)
    check_writable(path, replace, marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        written = beside / "new"
        written.mkdir()
        yield written
        for file in written.iterdir():  # safetensors writes files that only their owner may read
            shutil.copymode(written / marker, file)
        if path.exists():
            path.rename(beside / "old")
        written.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ModuleFileError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModuleFileError(f"cannot read {path} as JSON: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        ModuleFileError: it cannot be read, is truncated or is of another format.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModuleFileError(
            f"cannot read {path} as safetensors, it may be truncated or of another format: {error}"
        ) from error
    return tensors
