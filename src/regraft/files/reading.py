"""Reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ModuleFileError, first_line
from .plain import check_regular, parse_json, read_whole


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ModuleFileError: it cannot be read or is no JSON.
    """
    try:
        return parse_json(read_whole(path))
    except (OSError, ValueError) as error:
        raise ModuleFileError(f"cannot read {path} as JSON: {first_line(error)}") from error


def read_tensors(directory: Path, safetensors: str, pickled: str) -> dict[str, Tensor]:
    """Read the tensors of a directory onto the CPU, from safetensors or else from what torch.save wrote.

    Args:
        directory: where they are.
        safetensors: name of the file in the one format.
        pickled: name of the file in the other; no code in it is run.

    Raises:
        ModuleFileError: neither is there, or the one there is cannot be read.
    """
    if (directory / safetensors).is_file():
        return read_safetensors(directory / safetensors)
    path = directory / pickled
    if not path.is_file():
        raise ModuleFileError(f"{directory} holds neither {safetensors} nor {pickled}, expected one of them")
    return _unpickled(path)


def _unpickled(path: Path, mmap: bool = False) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # of whatever kind the garbage leads to
        raise ModuleFileError(
            f"cannot read {path}, it may be truncated or hold more than tensors: {first_line(error)}"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ModuleFileError(f"{path} holds more than tensors by name, expected what torch.save makes of a state dict")
    return dict(tensors)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        ModuleFileError: it cannot be read, is truncated or is of another format.
    """
    try:
        check_regular(path)
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModuleFileError(
            f"cannot read {path} as safetensors, it may be truncated or of another format: {error}"
        ) from error
    return tensors


@contextmanager
def sliceable_tensors(directory: Path) -> Iterator[Mapping[str, Any]]:
    """Open the weights of a model for slices such as ``tensors[name][:16]``; no more is read than is asked for.

    Args:
        directory: where ``save_pretrained`` wrote it.

    Returns:
        Name -> something to be sliced; empty where there are no weights.

    Raises:
        ModuleFileError: they cannot be read.
    """
    tensors: dict[str, Any] = {}
    with ExitStack() as opened:
        for path in sorted(directory.glob("model*.safetensors")):
            try:
                file = opened.enter_context(safe_open(path, framework="pt"))
                tensors |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            except (OSError, SafetensorError) as error:
                raise ModuleFileError(
                    f"cannot read {path} as safetensors, it may be truncated or of another format: {error}"
                ) from error
        for path in sorted(directory.glob("pytorch_model*.bin")) if not tensors else ():
            tensors |= _unpickled(path, mmap=True)
        yield tensors
