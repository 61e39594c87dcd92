"""Whether the files of a finished cell are what was written: by their sizes and hashes, or as far as can be told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME
from safetensors import SafetensorError, safe_open

from ..errors import RegraftError, first_line
from ..files.fingerprints import hash_file, hash_rows
from ..files.reading import read_json
from ..modules.module import load

Manifest = Mapping[str, Mapping[str, Any]]
"""Path of a file within a directory -> ``size`` in bytes and ``sha256``."""


def manifest(directory: Path) -> Manifest:
    """List the files of a directory."""
    return {
        str(path.relative_to(directory)): {"size": path.stat().st_size, "sha256": hash_file(path)}
        for path in files_of(directory)
    }


def files_of(directory: Path) -> Iterator[Path]:
    """Give all files of a directory, those within its directories too, by name."""
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def hash_of(files: Manifest) -> str:
    """Hash names and contents: it is another one where any byte of any file is."""
    return hash_rows(sorted((name, file["sha256"]) for name, file in files.items()))


def flaw(directory: Path, files: Manifest, hashed: bool = True) -> str:
    """Say which file is not what was written, and in what; nothing where all are. Files beside them do not count.

    Args:
        directory: where they are.
        files: what was written.
        hashed: look at their contents, not only at their sizes. A file that stays as it is, by its size and times, is
            hashed once per process.
    """
    for name, file in files.items():
        path = directory / name
        try:
            if not path.is_file():
                return f"{name} is not there"
            size = path.stat().st_size
            if size != file["size"]:
                return f"{name} has {size} bytes, expected {file['size']}"
            if hashed and _hash_once(path, _signature(path)) != file["sha256"]:
                return f"{name} is not what was written (another SHA-256)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def flaw_of_older(directory: Path) -> str:
    """Do so for a cell that was written before there were manifests, as far as its files tell.

    JSON has to parse, safetensors to be as long as their headers say, a module to have the hash that is in its
    ``regraft.json``.
    """
    return _flaw_of_older(directory, tuple(_signature(path) for path in files_of(directory)))


_Signature = tuple[int, int, int]


def _signature(path: Path) -> _Signature:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


@cache
def _hash_once(path: Path, _: _Signature) -> str:
    return hash_file(path)


@cache
def _flaw_of_older(directory: Path, _: tuple[_Signature, ...]) -> str:
    for path in files_of(directory):
        try:
            _parse(path)
        except (OSError, ValueError, SafetensorError) as error:
            return f"{path.relative_to(directory)} cannot be read ({first_line(error)})"
    for config in directory.rglob(CONFIG_NAME):
        try:
            load(config.parent)
        except RegraftError as error:
            return first_line(error)
    return ""


def _parse(path: Path) -> None:
    if path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt"):
            pass
