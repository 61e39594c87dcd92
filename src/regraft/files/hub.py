"""What a name stands for: a file or directory here, something inside an installed package, or an id of the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from ..errors import ModuleFileError, TaskError, first_line, quoted
from .plain import can_be_named
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


def download(
    name: str, files: Collection[str], revision: str | None = None, token: str | bool | None = None
) -> tuple[Path, str]:
    """Fetch files of a repository on the hub, or find them in the cache.

    Args:
        name: its id.
        files: names or patterns of the files.
        revision: branch, tag or commit; by default the main branch.
        token: for the hub; by default the one that ``hf auth login`` left.

    Returns:
        The directory with the files, and the commit that they are of.

    Raises:
        ModuleFileError: it cannot be reached.
    """
    try:
        directory = snapshot_download(name, revision=revision, allow_patterns=list(files), token=token)
    except Exception as error:  # the hub's client raises those of many libraries
        at, or_revision = (f" at {revision!r}", ", or the revision") if revision else ("", "")
        raise ModuleFileError(
            f"{name!r} is no local directory and cannot be fetched from the hub{at}; check the path or the "
            f"id{or_revision} ({first_line(error)})"
        ) from error
    return Path(directory), Path(directory).name


def fetched_commit(name: str, file: str = "config.json") -> str | None:
    """Tell the commit of a model that was fetched from the hub; None for what lies here, or was not seen there.

    A name alone does not say it: a folder ``models/student`` of another machine is named as a model of the hub is.

    Args:
        name: of the model.
        file: one of its files.
    """
    try:
        path = None if Path(name).exists() else try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(path).parts[-1 - len(Path(file).parts)] if isinstance(path, str) else None


def check_pushable(name: str | None) -> None:
    """Refuse a repository to push to, if there is to be one, before any work is done.

    Raises:
        ModuleFileError: the hub does not take the name, nobody is logged in, or it cannot be reached.
    """
    if name is not None:
        with _pushing(name):
            HfApi().repo_exists(name)  # also refuses what is no name of a repository
            HfApi().whoami()


def push(
    directory: str,
    name: str,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Push a directory to a repository of the hub; arguments as for `regraft.Module.push_to_hub`."""
    if branch is not None and create_pr:
        raise ModuleFileError(f"got branch {branch!r} and create_pr, expected one: a pull request has its own branch")
    api = HfApi(token=token)
    with _pushing(name):
        made = api.create_repo(name, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(made, branch=branch, exist_ok=True)
        # In one commit, so that a module is there whole or not at all; uploads of folders may take several.
        files = [CommitOperationAdd(file.name, file) for file in sorted(Path(directory).iterdir())]
        done = api.create_commit(made, files, commit_message=commit_message, revision=branch, create_pr=create_pr)
    return done.pr_url or done.commit_url


@contextmanager
def _pushing(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub's client raises those of many libraries
        raise ModuleFileError(
            f"cannot push to {name!r}, expected ORG/NAME on a hub that is reached from here and takes your token; log "
            f"in (hf auth login) or choose another name ({first_line(error)})"
        ) from error
