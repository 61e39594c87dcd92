"""Tensors held in memory up to a number of bytes, and on disk beyond it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import SamplingError

_NAME = "held"
Key = tuple[object, ...]


class Shelf:
    """Tensors by key, on the CPU or on disk. `holding` makes one, and removes what it wrote."""

    def __init__(self, memory: float) -> None:
        """Begin empty; `memory` is in bytes."""
        self._memory = memory
        self._held: dict[Key, Tensor | Path] = {}
        self._used = self._written = 0
        self._folder: Path | None = None

    def __setitem__(self, key: Key, tensor: Tensor) -> None:
        """Hold a tensor.

        Raises:
            SamplingError: it does not fit, in memory or on disk.
        """
        self.drop(key)
        tensor = tensor.detach().to("cpu").contiguous()
        if self._used + tensor.nbytes <= self._memory:
            self._used += tensor.nbytes
            self._held[key] = tensor
            return
        self._written += 1
        try:
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="regraft-"))
            file = self._folder / f"{self._written}.safetensors"
            self._held[key] = file
            save_file({_NAME: tensor}, file)
        except Exception as error:  # safetensors raises one of its own for a full disk
            raise SamplingError(
                f"cannot hold activations in {self._folder or tempfile.gettempdir()} ({error}), expected room for "
                "those of all texts; free some, name another place (TMPDIR), or hold more in memory (--hold-memory)"
            ) from error

    def __getitem__(self, key: Key) -> Tensor:
        found = self._held[key]
        return load_file(found)[_NAME] if isinstance(found, Path) else found

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def drop(self, key: Key) -> None:
        """Forget a tensor, where there is one."""
        found = self._held.pop(key, None)
        if isinstance(found, Path):
            found.unlink(missing_ok=True)
        elif found is not None:
            self._used -= found.nbytes

    def drop_where(self, unwanted: Callable[[Key], bool]) -> None:
        """Forget the tensors of some keys."""
        for key in [key for key in self._held if unwanted(key)]:
            self.drop(key)

    def clear(self) -> None:
        """Forget all, and remove what was written."""
        self._held.clear()
        self._used = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


@contextmanager
def holding(memory: float) -> Iterator[Shelf]:
    """Give a shelf for so many bytes in memory; what it wrote to disk is removed however the block ends."""
    shelf = Shelf(memory)
    try:
        yield shelf
    finally:
        shelf.clear()
