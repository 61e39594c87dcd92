"""Where results live: a directory per cell under its key, whole or not there, that any number of runs may share.

``cells/KEY/`` is a finished cell (``output/`` and ``cell.json``), ``work/KEY/`` one under way, ``failed/KEY.json`` one
that failed, ``locks/KEY`` is held by the process that works on it, ``experiments/NAME.json`` says which cells an
experiment has.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ModuleFileError, TaskError, unknown_choice
from ..files.directories import LOCKLESS, obstacle
from ..files.reading import read_json
from ..files.writing import WritingError, move, told, write_json

_RECORD = "cell.json"
_OUTPUT = "output"


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
        return self.root / "cells" / key / _OUTPUT

    def work(self, key: str) -> Path:
        """Where the result of a cell under way goes; what an earlier attempt left is still there."""
        return self.root / "work" / key / _OUTPUT

    def begun(self, key: str) -> bool:
        """Whether an earlier attempt at a cell left something."""
        return self.work(key).parent.is_dir()

    def done(self, key: str) -> bool:
        """Whether a cell is finished."""
        return (self.root / "cells" / key / _RECORD).is_file()

    def record(self, key: str) -> dict[str, Any]:
        """Read what was written of a finished cell.

        Raises:
            ModuleFileError: it is not what `finish` wrote.
        """
        path = self.root / "cells" / key / _RECORD
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("seconds"), int | float):
            raise ModuleFileError(f"{path} is not the record of a cell; remove that cell and run the experiment again")
        return record

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
        """Make a cell's work its result. Call it under a claim."""
        work = self.work(key).parent
        with told(self.root):
            self._failure(key).unlink(missing_ok=True)
            for path in work.iterdir():  # an attempt that was killed may have left files of its own
                if path.name != _OUTPUT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_json(work / _RECORD, record)
            (self.root / "cells").mkdir(exist_ok=True)
            move(work, self.root / "cells" / key)

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
            write_json(self.root / "experiments" / f"{name}.json", index)

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
        """
        names = self.experiments()
        if not names:
            raise TaskError(f"{self.root} holds no experiment, expected what 'regraft experiment run' wrote")
        if name is None and len(names) > 1:
            raise TaskError(f"{self.root} holds the experiments {', '.join(names)}; choose one (--experiment)")
        if name is not None and name not in names:
            raise TaskError(unknown_choice("experiment", name, names))
        path = self.root / "experiments" / f"{name or names[0]}.json"
        index = read_json(path)
        if not isinstance(index, dict):
            raise TaskError(f"{path} does not say which cells an experiment has; run the experiment again")
        return index

    def _failure(self, key: str) -> Path:
        return self.root / "failed" / f"{key}.json"
