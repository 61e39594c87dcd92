"""Read an experiment file: one of the user's, or one that ships with regraft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import TaskError, unknown_choice
from ..files.plain import can_be_named, read_whole
from ..schema import make
from .spec import Experiment

SHIPPED: Mapping[str, Path] = {path.stem: path for path in sorted((Path(__file__).parent / "files").glob("*.yaml"))}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would forget the first."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    merge = "tag:yaml.org,2002:merge"  # '<<' may give keys that are overridden
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
    twice = [key for position, key in enumerate(keys) if key in keys[:position]]
    if twice:
        raise yaml.MarkedYAMLError(problem=f"the key {twice[0]!r} is there twice", problem_mark=node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def find(name: str) -> Path:
    """Find an experiment file: a path, or the name of one that ships with regraft, with or without ``.yaml``.

    Raises:
        TaskError: there is none; the message lists those that ship.
    """
    if can_be_named(name) and Path(name).is_file():
        return Path(name)
    shipped = SHIPPED.get(name.removesuffix(".yaml"))
    if shipped is None:
        raise TaskError(unknown_choice("experiment", name, SHIPPED) + "; or the path of a file")
    return shipped


def read_experiment(path: Path) -> Experiment:
    """Read an experiment.

    Raises:
        TaskError: no YAML, or a key or a value that does not serve, with its place in the file.
    """
    try:
        content = yaml.load(read_whole(path), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TaskError(f"cannot read {path} as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise TaskError(f"{path} holds no mapping, expected keys such as {', '.join(Experiment.model_fields)}")
    return make(Experiment, content, lambda said: TaskError(f"{path}, {said}"))
