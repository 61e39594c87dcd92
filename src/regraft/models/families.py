"""One record per model type: where its layers, sites and task heads are. A new model type is a new file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml
from pydantic import Field

from ..errors import ModelError, one_line, unknown_choice
from ..files.plain import read_whole
from ..schema import Strict, make


class TaskHead(Strict):
    """The task head of a model class."""

    linears: tuple[str, ...]
    """Paths of its linear layers, from what it reads to the labels."""
    reads: Literal["final_hidden", "pooled"] = "final_hidden"
    """The space it reads: the final hidden state of each token (or of the one that stands for the text), or what the
    model's pooler makes of the first token."""
    activation: str | None = None
    """Between two linear layers, a key of transformers' ``ACT2FN``."""
    norms: tuple[str, ...] = ()
    """Paths of its normalisations, between two linear layers."""

    @property
    def modules(self) -> list[str]:
        """Names of the modules that hold it in the model."""
        return sorted({path.partition(".")[0] for path in self.linears})


Inputs = Literal["texts", "images", "sounds", "distances"]


class Stack(Strict):
    """A list of layers beside a model's own: a decoder beside an encoder, a vision tower beside a language model."""

    layers: str
    """Path of the list of layers inside the bare model."""
    sites: dict[str, str]
    """As of a `Family`."""
    inputs: Inputs = "texts"
    """What it reads, if not what the model reads."""


class Family(Strict):
    """Where the sites of a model type are."""

    like: str = ""
    """Another family that this one differs from in what it states; of `sites` and `task_heads`, key by key."""
    layers: str
    """Path of the list of layers inside the bare model."""
    sites: dict[str, str]
    """Name of a site -> path of the submodule inside a layer. A name that is no key of `sites.SITES` is of a site whose
    spaces are its own."""
    stacks: dict[str, Stack] = Field(default_factory=dict)
    """Further lists of layers by name."""
    optional: tuple[str, ...] = ()
    """Sites that not every model of this type has."""
    grouped: tuple[str, ...] = ()
    """Fused sites whose rows lie in groups, one per key: its queries, the key, its value."""
    inputs: Inputs = "texts"
    """What the model reads."""
    task_heads: dict[str, TaskHead]
    """How a model class ends (such as ``ForTokenClassification``) -> its task head."""
    final_norm: str = ""
    """Path, inside the bare model, of the module whose output is the final hidden state; empty where that is the output
    norm of the last layer."""
    pooler: str = ""
    """Path of the bare model's pooler; empty where it has none."""
    spare_positions: int = 0
    """Position embeddings that no token uses (RoBERTa's begin behind the padding's index)."""
    causal: bool = False
    """Whether a token sees only what precedes it, so that a word is best represented by its last piece."""
    word_options: dict[str, Any] = Field(default_factory=dict)
    """What the tokenizer has to be told so that it takes texts split into words."""

    @cached_property
    def places(self) -> Mapping[str, tuple[str, str]]:
        """Name of a site, of all stacks -> path of its list of layers, and of the site in a layer."""
        own = {name: (self.layers, path) for name, path in self.sites.items()}
        further = {
            f"{stack}.{name}": (its.layers, path)
            for stack, its in self.stacks.items()
            for name, path in its.sites.items()
        }
        return own | further

    @cached_property
    def _named(self) -> Mapping[tuple[str, str], str]:
        return {place: name for name, place in self.places.items()}

    @cached_property
    def _lists(self) -> re.Pattern[str]:
        lists = "|".join(re.escape(path) for path in {layers: None for layers, _ in self.places.values()})
        return re.compile(rf"(?:.*\.)?({lists})\.(\d+)\.(.+)")

    def reads(self, site: str) -> str:
        """Tell what the stack of a site reads."""
        stack = self.stacks.get(site.rpartition(".")[0])
        return self.inputs if stack is None or stack.inputs == "texts" else stack.inputs

    def parse(self, path: str) -> tuple[int, str] | None:
        """Split a submodule's path into (layer, site); None where it is no site of this family."""
        match = self._lists.fullmatch(path)
        name = self._named.get((match[1], match[3])) if match else None
        return None if match is None or name is None else (int(match[2]), name)

    def path(self, layer: int, site: str) -> str:
        """Path of a site in the bare model."""
        layers, inside = self.places[site]
        return f"{layers}.{layer}.{inside}"

    def pattern(self, site: str) -> str:
        """Regular expression that PEFT matches against the full paths of a site in all layers."""
        layers, inside = self.places[site]
        return rf"(.*\.)?{re.escape(layers)}\.\d+\.{re.escape(inside)}"

    def pattern_of(self, places: Iterable[tuple[int, str]]) -> str:
        """Regular expression that PEFT matches against the full paths of some (layer, site), and of no others."""
        numbers: dict[str, dict[str, list[str]]] = {}
        for layer, site in sorted(places):
            layers, inside = self.places[site]
            numbers.setdefault(layers, {}).setdefault(inside, []).append(str(layer))
        lists = []
        for layers, at in numbers.items():
            choices = "|".join(rf"(?:{'|'.join(some)})\.{re.escape(inside)}" for inside, some in at.items())
            lists.append(rf"{re.escape(layers)}\.(?:{choices})")
        return rf"(?:.*\.)?{lists[0]}" if len(lists) == 1 else rf"(?:.*\.)?(?:{'|'.join(lists)})"


def load_families(path: str | Path, known: Mapping[str, Family] = MappingProxyType({})) -> dict[str, Family]:
    """Read the records of families.

    Args:
        path: a YAML file named after its model type, or a directory of such files.
        known: further families that these may be like.

    Returns:
        Model type -> its record.

    Raises:
        ModelError: a file that cannot be read, or a record with a key that is unknown or a value that does not serve.
    """
    path = Path(path)
    unread = {file.stem: file for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])}
    families: dict[str, Family] = {}

    def read(name: str) -> Family:
        if name in unread:
            file = unread.pop(name)  # at once, so that a family that is like itself is an unknown one
            try:
                stated = _stated(file)
                like = read(stated["like"]).model_dump(exclude_unset=True) if stated.get("like") else {}
                families[name] = make(Family, _over(like, stated), ModelError)
            except ModelError as error:
                raise ModelError(f"{file}: {error}") from error
        among = {**known, **families}
        if name not in among:
            raise ModelError(unknown_choice("family", name, {*among, *unread}))
        return among[name]

    while unread:
        read(next(iter(unread)))
    return families


def _stated(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_whole(file))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"cannot be read as YAML: {one_line(str(error))}") from error
    if not isinstance(content, dict):
        raise ModelError("holds no record, expected keys such as layers, sites and task_heads")
    return content


def _over(like: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    keyed = {
        key: {**like[key], **stated[key]}
        for key in ("sites", "task_heads")
        if isinstance(like.get(key), Mapping) and isinstance(stated.get(key), Mapping)
    }
    return {**like, **stated, **keyed}


FAMILIES: dict[str, Family] = load_families(Path(__file__).with_suffix(""))
"""Model type -> its record. A type without one gets it from its modules, see `derivation`."""


def register_family(path: str | Path | None) -> None:
    """Add records of model types to those that ship, or put them in their place.

    Args:
        path: a YAML (or JSON) file named after its model type, or a directory of such files; None for none.

    Raises:
        ModelError: as `load_families`.
    """
    if path is not None:
        FAMILIES.update(load_families(path, FAMILIES))
