"""Files are whole at every moment and on the disk before they count, or one sentence says why they are not."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ModuleFileError, first_line
from ..stopping import undisturbed

# How writers in Rust end what they say of the system.
_SYSTEM = re.compile(r"os error (\d+)")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say in one sentence why `path` could not be written, and how much room there is.

    Where one block lies in another, the outer path is told: what the user named, not what is beside it.

    Raises:
        WritingError: the block raised what the system, or safetensors' own writer, says of a file.
    """
    try:
        yield
    except WritingError as error:
        raise WritingError(path, error.reason) from error
    except (OSError, SafetensorError) as error:
        raise WritingError(path, error) from error
    except Exception as error:
        if type(error) is not Exception or _SYSTEM.search(str(error)) is None:  # the writer of tokenizers says no more
            raise
        raise WritingError(path, error) from error


class WritingError(ModuleFileError):
    """A path that cannot be written: why, what is free there, and what to do."""

    def __init__(self, path: Path, reason: Exception) -> None:
        place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        free = _size(shutil.disk_usage(place).free)
        super().__init__(
            f"cannot write {path}: {_why(reason)} ({free} are free there); make room or choose another place, and run "
            "the same again"
        )
        self.reason = reason


def _why(reason: Exception) -> str:
    number = reason.errno if isinstance(reason, OSError) else None
    if (said := _SYSTEM.search(str(reason))) is not None:
        number = int(said[1])
    return first_line(reason) if number is None else os.strerror(number)


def _size(count: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def flush(path: Path) -> None:
    """Wait until a file, or a directory with all that is in it, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            flush(inside)
    flush_entry(path)


def flush_entry(path: Path) -> None:
    """Wait until a file, or which names a directory holds, is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems flush no directories
            raise
    finally:
        os.close(opened)


def move(path: Path, target: Path) -> None:
    """Rename a file or directory, and wait until that is on the disk."""
    path.replace(target)
    flush_entry(target.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file to write that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        ModuleFileError: it cannot be written; what stood at `path` before still does.
    """
    beside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with told(path):
        try:
            yield beside
            flush_entry(beside)
            move(beside, path)
        finally:
            with undisturbed():
                beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text, in UTF-8; as `whole_file`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; as `whole_file`."""
    with whole_file(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path, content: Any, sort_keys: bool = False) -> None:
    """Write a JSON file; as `whole_file`, so that it is whole to those who read it now too."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, sort_keys=sort_keys) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a file with one row of JSON per line; as `whole_file`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors; as `whole_file`."""
    with whole_file(path) as beside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, metadata=metadata)
