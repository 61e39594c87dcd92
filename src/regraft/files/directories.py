"""Directories appear whole or not at all, and are written by one process at a time."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import ModuleFileError
from ..stopping import undisturbed
from .plain import can_be_named
from .writing import flush, move, told

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
        if not isinstance(name, str | os.PathLike) or not can_be_named(name) or not Path(name).exists():
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
def claimed(
    path: str | os.PathLike[str], replace: bool, ours: Collection[str], inputs: Iterable[object] = ()
) -> Iterator[Path]:
    """Be the one process that writes a directory until the block ends; the claim of a process that dies is void.

    What a process that was killed left beside it is removed and, where it died between moving the old directory away
    and the new one there, the old one is put back. A claim within a claim of the same thread is the outer one.

    Args:
        path: the directory to be.
        replace: as for `check_writable`, like the others.
        ours: likewise.
        inputs: likewise.

    Yields:
        The directory's path, without links.

    Raises:
        ModuleFileError: another process holds it; or as `check_writable`.
    """
    check_writable(path, replace, ours, inputs)
    path = Path(path).resolve()
    made = [parent for parent in path.parents if not parent.exists()]
    # A soft lock, a file that is there, would outlive a process that is killed.
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True, fallback_to_soft=False)
    if within := lock.is_locked:
        yield path
    if within:
        return
    try:
        with told(path), undisturbed():
            path.parent.mkdir(parents=True, exist_ok=True)
            _acquire(lock, path)
            _tidy(path)
        check_writable(path, replace, ours)  # another process may have written it meanwhile
        yield path
    finally:
        with undisturbed():
            if lock.is_locked:
                # Who has opened the file meanwhile finds that it has no name any more, and makes one of its own.
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()
            for parent in made:
                with suppress(OSError):  # something was written there
                    parent.rmdir()


LOCKLESS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system says that has no locks."""


def _acquire(lock: BaseFileLock, path: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ModuleFileError(
            f"another process is writing {path}; wait until it has ended, or choose another name"
        ) from error
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        warnings.warn(
            f"the file system of {path} has no file locks ({error.strerror}), so nothing keeps other processes from "
            "writing there too",
            stacklevel=5,
        )
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def new_directory(path: str | os.PathLike[str], replace: bool, ours: Collection[str]) -> Iterator[Path]:
    """Give a directory to write into that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        ModuleFileError: as `claimed`, or it cannot be written; what stood at `path` before still does.
    """
    with claimed(path, replace, ours) as path, told(path):
        new, old = _beside(path)
        try:
            new.mkdir()
            yield new
            mode = new.stat().st_mode
            for file in new.rglob("*"):  # safetensors writes files that only their owner may read
                file.chmod(mode if file.is_dir() else mode & 0o666)
            flush(new)
            with undisturbed():
                if path.exists():
                    path.rename(old)
                move(new, path)
        finally:
            with undisturbed():
                _tidy(path)


def _beside(path: Path) -> tuple[Path, Path]:
    """Name where a new directory is written, and where the old one goes while it takes its place."""
    return path.with_name(f".{path.name}.regraft-new"), path.with_name(f".{path.name}.regraft-old")


def _tidy(path: Path) -> None:
    """Remove what lies beside a directory, or put it back where the new one did not take its place."""
    new, old = _beside(path)
    if old.exists() and not path.exists():
        move(old, path)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
