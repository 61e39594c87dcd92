"""Directories appear whole or not at all; files that cannot be read are refused in one sentence."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ModuleFileError

# One of these lies in every directory that regraft writes.
_MARKS = ("regraft.json", "moments.json", "report.html")


def check_writable(
    path: str | os.PathLike[str], replace: bool, ours: Collection[str], inputs: Iterable[object] = ()
) -> None:
    """Refuse an output directory before any work is done.

    Args:
        path: the directory to be.
        replace: whether the user allows to replace one that exists.
        ours: names of all files that we write there; a directory that holds anything else is never replaced, nor one
            that regraft did not write.
        inputs: what is read: the directory is none of them, not inside one and not around one.

    Raises:
        ModuleFileError: it exists and may not be replaced, or it cannot be written.
    """
    path = Path(path).absolute()
    for name in inputs:
        if not isinstance(name, str | os.PathLike) or not Path(name).exists():
            continue
        source, out = Path(name).resolve(), path.resolve()
        # A folder of many things, such as data in the working directory, may take one more.
        is_one = any((source / file).is_file() for file in ("config.json", "adapter_config.json"))
        where = "is" if out == source else "holds" if out in source.parents else "lies in"
        if out == source or out in source.parents or (is_one and source in out.parents):
            raise ModuleFileError(f"{path} {where} {name}, which is read; choose another name for what is written")
    if not path.exists():
        if why := obstacle(path):
            raise ModuleFileError(f"cannot write to {path}, since {why}; choose another place")
        return
    if not path.is_dir():
        raise ModuleFileError(f"{path} is a file, expected the name of a directory; choose another name")
    others = sorted({entry.name for entry in path.iterdir()} - set(ours))
    if others:
        raise ModuleFileError(
            f"{path} exists and holds {others[0]}, which regraft did not write, so it is not replaced; "
            "choose another name"
        )
    if any(path.iterdir()) and not any((path / mark).is_file() for mark in _MARKS):
        raise ModuleFileError(
            f"{path} exists, and regraft did not write it, so it is not replaced; choose another name"
        )
    if any(path.iterdir()) and not replace:
        raise ModuleFileError(f"{path} exists; choose another name, or replace it (--replace)")


def obstacle(path: Path) -> str:
    """Say why nothing can be written to a directory that may not exist yet; nothing where it can."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        return f"{existing} is no directory"
    return "" if os.access(existing, os.W_OK) else f"{existing} may not be written"


@contextmanager
def new_directory(path: str | os.PathLike[str], replace: bool, ours: Collection[str]) -> Iterator[Path]:
    """Give a directory to write into that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        ModuleFileError: as `check_writable`.
    """
    path = Path(path).resolve()
    check_writable(path, replace, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old, written = beside / "old", beside / "new"
    try:
        written.mkdir()
        yield written
        for file in written.iterdir():  # safetensors writes files that only their owner may read
            file.chmod(written.stat().st_mode & 0o666)
        if path.exists():
            path.rename(old)
        try:
            written.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is whole at every moment, also to those who read it now."""
    beside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a file with one row of JSON per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
