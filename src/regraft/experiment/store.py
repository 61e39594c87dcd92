"""Where results live: a directory per cell under its key, whole or not there, that any number of runs may share.

``cells/KEY/`` is a finished cell (``output/`` and ``cell.json``), ``work/KEY/`` one under way, ``failed/KEY.json`` one
that failed, ``damaged/KEY/`` one that was finished and is to be made again, ``locks/KEY`` is held by the process that
works on it, ``experiments/NAME.json`` says which cells an experiment has.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from ..errors import ModuleFileError, TaskError, unknown_choice
from ..files.directories import LOCKLESS, obstacle
from ..files.reading import read_json
from ..files.seals import read_sealed, sealed
from ..files.writing import WritingError, move, told, write_json
from ..schema import sentence
from .manifest import files_of, flaw, flaw_of_older, hash_of, manifest

_RECORD = "cell.json"
_OUTPUT = "output"
# What records consist of that were written before they had seals.
_OLDER = (
    *("kind", "label", "needs", "job", "seconds", "resumed", "ended", "host", "process", "versions", "scores"),
    *("curve", "refined", "alignment", "sampled", "expected", "losses"),
)


class _File(BaseModel):
    size: int
    sha256: str


class _Record(BaseModel):
    """What is read here of what a cell wrote, of the keys that it has."""

    seconds: float
    needs: list[str] = []
    files: dict[str, _File] = {}
    built_on: dict[str, str | None] = {}


@dataclass(frozen=True)
class Store:
    """A directory of results.

    Attributes:
        root: the directory; on a cluster on a file system that all machines share, with working ``flock``.
    """

    root: Path

    def check(self) -> None:
        """Refuse a place that cannot be a store, before any work is done.

        Raises:
            ModuleFileError: it is a file, or may not be written.
        """
        if why := obstacle(self.root):
            raise ModuleFileError(f"cannot keep results in {self.root}, since {why}; choose another --store")

    def output(self, key: str) -> Path:
        """Where the result of a finished cell is."""
        return self._cell(key) / _OUTPUT

    def work(self, key: str) -> Path:
        """Where the result of a cell under way goes; what an earlier attempt left is still there."""
        return self.root / "work" / key / _OUTPUT

    def begun(self, key: str) -> bool:
        """Whether an earlier attempt at a cell left something."""
        return self.work(key).parent.is_dir()

    def begin(self, key: str, built_on: Mapping[str, str | None]) -> None:
        """Write down what a cell is built on, and remove what an earlier attempt left that was built on something else.

        Call it under a claim.
        """
        note = self.work(key).with_name("built_on.json")
        with told(self.root):
            if note.is_file() and read_json(note) != built_on:
                shutil.rmtree(note.parent)
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, built_on)

    def done(self, key: str) -> bool:
        """Whether a cell is finished."""
        return (self._cell(key) / _RECORD).is_file()

    def finished(self) -> list[str]:
        """Give the keys of all finished cells, of whatever experiment."""
        return sorted(path.name for path in (self.root / "cells").glob("*") if path.is_dir())

    def record(self, key: str) -> dict[str, Any]:
        """Read what was written of a finished cell.

        Raises:
            ModuleFileError: it cannot be read, or is not what was written.
        """
        path = self._cell(key) / _RECORD
        record = read_sealed(path, _OLDER)
        try:
            _Record.model_validate(record)
        except ValidationError as error:
            raise ModuleFileError(f"{path} is not the record of a cell ({sentence(error)})") from error
        return record

    def flaw(self, key: str, hashed: bool = True) -> str:
        """Say in what a finished cell is not what was written; nothing where it is, as far as can be told.

        Args:
            key: of the cell.
            hashed: look at the contents of all files, not only at their sizes.
        """
        try:
            record = self.record(key)
        except ModuleFileError:
            return f"{_RECORD} is not what was written"
        if "files" in record:
            return flaw(self._cell(key) / _OUTPUT, record["files"], hashed)
        return flaw_of_older(self._cell(key)) if hashed else ""

    def unsound(self, key: str) -> str:
        """Say why a finished cell does not count; nothing where it does.

        It has a flaw, or it was built on another output of a cell than is there now. A cell that is gone, or has a flaw
        itself, is not asked: it may come out as before.
        """
        return self.flaw(key) or self._stale(key)

    def is_older(self, key: str) -> bool:
        """Whether a cell, one without a flaw, was written before there were manifests."""
        return "files" not in self.record(key)

    def output_hash(self, key: str) -> str | None:
        """Give what tells the output of a finished cell from others; None where nothing does.

        It is what the cell's manifest says: that the files are like that, `flaw` says.
        """
        record = self.record(key)
        return hash_of(record["files"]) if "files" in record else None

    def set_aside(self, key: str) -> None:
        """Move a finished cell to ``damaged/KEY``, so that it is made again. Call it under a claim."""
        if self._cell(key).exists():
            aside = self.root / "damaged" / key
            with told(self.root):
                aside.parent.mkdir(exist_ok=True)
                shutil.rmtree(aside, ignore_errors=True)  # of an earlier damage
                move(self._cell(key), aside)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Try to be the one process that works on a cell; the claim of a process that dies is void.

        Yields:
            Whether the cell is ours until the block ends.
        """
        with told(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
        # A soft lock, a file that is there, would outlive a process that is killed.
        lock = FileLock(self.root / "locks" / key, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise WritingError(self.root, error) from error
            raise ModuleFileError(
                f"cannot lock {lock.lock_file} ({error}), expected a file system with working flock; use another store"
            ) from error
        try:
            yield True
        finally:
            lock.release()

    def finish(self, key: str, record: Mapping[str, Any]) -> None:
        """Make a cell's work its result, with a manifest of its files, which nobody may write any more.

        Call it under a claim.
        """
        work = self.work(key).parent
        with told(self.root):
            self._failure(key).unlink(missing_ok=True)
            for path in work.iterdir():  # an attempt that was killed may have left files of its own
                if path.name != _OUTPUT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_json(work / _RECORD, sealed({**record, "files": manifest(work / _OUTPUT)}))
            for path in files_of(work):
                path.chmod(path.stat().st_mode & ~0o222)
            (self.root / "cells").mkdir(exist_ok=True)
            move(work, self._cell(key))

    def fail(self, key: str, record: Mapping[str, Any]) -> None:
        """Write down that a cell failed. What it made so far stays, for the next attempt."""
        with told(self.root):
            self._failure(key).parent.mkdir(parents=True, exist_ok=True)
            write_json(self._failure(key), record)

    def failure(self, key: str) -> dict[str, Any] | None:
        """Read why a cell failed when it was last tried; None where it did not."""
        failure = read_json(self._failure(key)) if self._failure(key).is_file() else None
        return failure if isinstance(failure, dict) and isinstance(failure.get("error"), str) else None

    def write_index(self, name: str, index: Mapping[str, Any]) -> None:
        """Write down which cells an experiment has."""
        with told(self.root):
            (self.root / "experiments").mkdir(parents=True, exist_ok=True)
            write_json(self.root / "experiments" / f"{name}.json", sealed(index))

    def has_index(self, name: str) -> bool:
        """Whether an experiment of that name was run here."""
        return (self.root / "experiments" / f"{name}.json").is_file()

    def experiments(self) -> list[str]:
        """Name the experiments that were run here."""
        return sorted(path.stem for path in (self.root / "experiments").glob("*.json"))

    def read_index(self, name: str | None = None) -> dict[str, Any]:
        """Read which cells an experiment has.

        Args:
            name: of the experiment; may be left out where there is only one.

        Raises:
            TaskError: no such experiment, or several to choose from.
            ModuleFileError: it cannot be read, or is not what was written.
        """
        names = self.experiments()
        if not names:
            raise TaskError(f"{self.root} holds no experiment, expected what 'regraft experiment run' wrote")
        if name is None and len(names) > 1:
            raise TaskError(f"{self.root} holds the experiments {', '.join(names)}; choose one (--experiment)")
        if name is not None and name not in names:
            raise TaskError(unknown_choice("experiment", name, names))
        path = self.root / "experiments" / f"{name or names[0]}.json"
        try:
            return read_sealed(path, ("experiment", "numbers"))
        except ModuleFileError as error:
            raise ModuleFileError(
                f"{path} is damaged, expected the list of cells that was written; run the experiment again, which "
                "writes it anew"
            ) from error

    def _stale(self, key: str, above: tuple[str, ...] = ()) -> str:
        record = self.record(key)
        # Nothing tells what cells without a manifest were built on but that it had none either.
        for need, before in record.get("built_on", dict.fromkeys(record.get("needs", ()))).items():
            if need in above or not self.done(need) or self.flaw(need, hashed=False):
                continue
            if self.output_hash(need) != before:
                return f"it was built on another output of the cell {need} than is there now"
            if self._stale(need, (*above, key)):
                return f"it was built on the cell {need}, which is to be made again"
        return ""

    def _cell(self, key: str) -> Path:
        return self.root / "cells" / key

    def _failure(self, key: str) -> Path:
        return self.root / "failed" / f"{key}.json"
