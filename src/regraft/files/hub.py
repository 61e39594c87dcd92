"""What a name stands for: a file or directory here, something inside an installed package, or an id of the hub."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download

from ..errors import ModuleFileError, TaskError, first_line, quoted
from .rows import FORMATS

_ID = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(?::(?P<config>[\w.-]+))?")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PACKAGE = "package:"
_MOVED = {"package:regraft/micro/": "package:regraft/demo/"}


@dataclass(frozen=True)
class HubId:
    """``org/name``, or of a data set ``org/name:config``."""

    name: str
    config: str | None


def locate(source: str | os.PathLike[str]) -> Path | HubId:
    """Tell what a name stands for.

    Args:
        source: ``package:NAME/PATH`` for a path inside an installed package; else a path that exists; else, in a
            string, the id of something on the hub, unless it ends as a file of texts or rows does.

    Returns:
        The id, or a path, which need not exist where it is nothing else.

    Raises:
        TaskError: the package is not installed, or what was in it has moved, or no name at all.
    """
    if isinstance(source, str) and source.startswith(_PACKAGE):
        return _in_package(source)
    if not can_be_named(source):
        raise TaskError(f"found {quoted(str(source))}, expected the name of a file or directory, or an id of the hub")
    path = Path(source).expanduser()
    hub_id = _ID.fullmatch(source) if isinstance(source, str) else None
    if hub_id is None or path.exists() or path.suffix in (*FORMATS, ".txt"):
        return path
    return HubId(hub_id["name"], hub_id["config"])


def can_be_named(source: str | os.PathLike[str]) -> bool:
    """Whether anything here may have that name: it may be longer than names can be, or of a user who is not there."""
    try:
        os.stat(Path(source).expanduser())  # noqa: PTH116 (which says more than exists)
    except (ValueError, RuntimeError):
        return False
    except OSError as error:
        return error.errno not in (errno.ENAMETOOLONG, errno.ELOOP)
    return True


def split_gguf(name: str) -> tuple[str, str]:
    """Split the name of a model into what transformers loads from, and the file in llama.cpp's format, if it is one.

    Args:
        name: ``DIR:FILE.gguf``, ``ORG/NAME:FILE.gguf``, the path of such a file, or any other name, which stays whole.
    """
    if not name.endswith(".gguf"):
        return name, ""
    place, colon, file = name.rpartition(":")
    return (place, file) if colon else (str(Path(name).parent), Path(name).name)


def unpacked(name: str) -> str:
    """Give the path of what ``package:NAME/PATH`` names; any other name stays as it is."""
    return str(_in_package(name)) if name.startswith(_PACKAGE) else name


def _in_package(source: str) -> Path:
    for old, new in _MOVED.items():
        if source.startswith(old):
            raise TaskError(f"{source} is now at {new}{source.removeprefix(old)}; mend the name")
    name, _, inside = source.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise TaskError(f"{source} lies in the package {name}, which is not installed here; install it first")
    return Path(spec.origin).parent / inside


def expand(text: str) -> str:
    """Replace ``${NAME}`` by environment variables, and what is here by its absolute path, for workers elsewhere.

    Raises:
        TaskError: a variable that is not set; and as `locate`.
    """

    def value(variable: re.Match[str]) -> str:
        if variable[1] not in os.environ:
            raise TaskError(f"{text} uses the environment variable {variable[1]}, which is not set; set it first")
        return os.environ[variable[1]]

    name = _VARIABLE.sub(value, text)
    place = locate(name)
    return str(place.absolute()) if isinstance(place, Path) and place.exists() else name


def download(name: str, files: Collection[str]) -> Path:
    """Fetch files of a repository on the hub, or find them in the cache.

    Args:
        name: its id.
        files: names or patterns of the files.

    Raises:
        ModuleFileError: it cannot be reached.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the hub's client raises those of many libraries
        raise ModuleFileError(
            f"{name!r} is no local directory and cannot be fetched from the hub; check the path or the id "
            f"({first_line(error)})"
        ) from error
