"""Tell one thing from others of its kind: weights, in milliseconds and without reading all of them; texts; software."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .hub import split_gguf
from .rows import FORMATS


def hash_parameters(parameters: Mapping[str, Any]) -> str:
    """Hash the first values of every parameter of a loaded model."""
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        digest.update(name.encode() + parameter.detach().flatten()[:32].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_files(directory: Path, file: str = "", samples: int = 16, size: int = 4096) -> str:
    """Hash `samples` pieces of `size` bytes, evenly spread, of every weight file in a directory, or of one file."""
    digest = hashlib.sha256()
    weights = (*directory.glob("model*.safetensors"), *directory.glob("pytorch_model*.bin"))
    for path in [directory / file] if file else sorted(weights):
        length = path.stat().st_size
        digest.update(f"{path.name} {length}".encode())
        with path.open("rb") as opened:
            for part in range(samples):
                opened.seek(max(0, length - size) * part // (samples - 1))
                digest.update(opened.read(size))
    return digest.hexdigest()[:16]


def hash_rows(rows: Any) -> str:
    """Hash texts, or rows of a data set: anything that JSON can hold."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Hash a file, all of it: its SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Give the versions of regraft and of the libraries that results may depend on."""
    return {name: version(name) for name in ("regraft", "torch", "transformers", "peft")}


def may_be_same(weights: str, other: str) -> bool:
    """Whether two ids (a kind and a hash each) may be of the same weights; other kinds cannot be compared."""
    kind, other_kind = weights.partition(":")[0], other.partition(":")[0]
    return kind != other_kind or weights == other


def model_identity(name: str) -> str:
    """Tell a model by its content where it is a directory or a file, and by its id where it is on the hub."""
    place, gguf = split_gguf(name)
    directory = Path(place)
    if not directory.is_dir():
        return f"hub:{name}"
    if gguf:
        return f"file:{_hash([directory / gguf])}"
    # All bytes, a second per gigabyte: samples would not see a few weights that were edited.
    endings = (".json", ".txt", ".model", ".safetensors", ".bin")
    return f"file:{_hash(path for path in directory.iterdir() if path.suffix in endings and path.is_file())}"


def data_identity(data: str, language: str, formats: tuple[str, ...] = ()) -> str:
    """Tell the data of a task likewise: by all bytes of the files, or by the id (empty: the task's own).

    Args:
        data: a folder, or something of the hub.
        language: of the data.
        formats: endings of files that the task is read from beside `FORMATS`.
    """
    if not data or not Path(data).is_dir():
        return f"hub:{data}"
    folder = Path(data) / language
    folder = folder if folder.is_dir() else Path(data)
    endings = (*FORMATS, *formats)
    return f"file:{_hash(path for path in folder.iterdir() if path.suffix in endings and path.is_file())}"


def texts_identity(source: str) -> str:
    """Tell texts likewise."""
    path = Path(source)
    if path.is_dir():
        return f"file:{_hash(inner for inner in path.rglob('*') if inner.is_file())}"
    return f"file:{_hash([path])}" if path.is_file() else f"hub:{source}"


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
