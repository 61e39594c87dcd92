"""What an experiment file calls models and data: where they are, and what tells their content from another."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import TaskError
from ..tasks.files import FORMATS
from ..tasks.sources import HUB_ID

_PACKAGE = "package:"
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Source:
    """A model, data, texts, or what another cell makes.

    Attributes:
        where: a path or the id of something on the hub; the key of the cell that makes it.
        identity: what tells its content from another: this and nothing else of it goes into a key.
        made: whether a cell makes it.
    """

    where: str
    identity: str
    made: bool = False


def on_hub(source: Source) -> bool:
    """Whether it can only be looked for on the hub, where a task's own data (no name) are too."""
    named = HUB_ID.fullmatch(source.where) and Path(source.where).suffix not in (*FORMATS, ".txt")
    return source.identity.startswith("hub:") and bool(not source.where or named)


def expand(text: str) -> str:
    """Replace ``${NAME}`` by environment variables and ``package:NAME/PATH`` by where that package is installed.

    What is there then becomes an absolute path, for workers that were started elsewhere.

    Raises:
        TaskError: a variable that is not set, or a package that is not installed.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise TaskError(f"{text} uses the environment variable {found[1]}, which is not set; set it first")
        return os.environ[found[1]]

    text = _VARIABLE.sub(value, text)
    if not text.startswith(_PACKAGE):
        path = Path(text).expanduser()
        return str(path.absolute()) if path.exists() else text
    name, _, inside = text.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise TaskError(f"{text} lies in the package {name}, which is not installed here; install it first")
    return str(Path(spec.origin).parent / inside)


def model_identity(name: str) -> str:
    """Tell a model by its content where it is a directory, and by its id where it is on the hub."""
    directory = Path(name)
    if not directory.is_dir():
        return f"hub:{name}"
    # All bytes, a second per gigabyte: samples would not see a few weights that were edited.
    endings = (".json", ".txt", ".model", ".safetensors", ".bin")
    return f"file:{_hash(path for path in directory.iterdir() if path.suffix in endings)}"


def data_identity(data: str, language: str) -> str:
    """Tell the data of a task likewise: by all bytes of the files, or by the id (empty: the task's own)."""
    if not data or not Path(data).is_dir():
        return f"hub:{data}"
    folder = Path(data) / language
    folder = folder if folder.is_dir() else Path(data)
    return f"file:{_hash(path for path in folder.iterdir() if path.suffix in FORMATS)}"


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
