"""What a tensor of the student's module is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..models.sites import Place, SpacePair

Action = Literal["copied", "averaged", "mapped", "reordered", "fresh", "refused"]


@dataclass(frozen=True)
class Via:
    """A map that acts on an axis.

    Attributes:
        pair: the spaces it is between.
        home: the pair that the axis lives in, which the map may not have been fitted on (`peft_types.Reads.released`).
        reads: whether the axis contracts with the activation; else it adds to it.
        has_bias: whether a bias beside the reading weight takes on the map's offset.
    """

    pair: SpacePair
    home: SpacePair
    reads: bool
    has_bias: bool = False


@dataclass(frozen=True)
class Fold:
    """A reading weight whose map has its offset taken on by the bias beside it.

    Attributes:
        weight: its key in the teacher's module; what it reads is its last axis.
        pair: the pair of spaces of what it reads.
    """

    weight: str
    pair: SpacePair


@dataclass(frozen=True)
class Part:
    """One teacher tensor in a student tensor.

    Attributes:
        tensor: its key in the teacher's module.
        weight: factor (layers that are averaged have less than 1).
        vias: for each axis the map that acts on it; None where none does.
        fold: what a bias takes on; None for all else.
        rows: which of its rows, in which order (a head's labels); None for all as they are.
    """

    tensor: str
    weight: float
    vias: tuple[Via | None, ...]
    fold: Fold | None = None
    rows: tuple[int, ...] | None = None

    @property
    def pairs(self) -> set[SpacePair]:
        """The pairs of spaces whose maps act on its axes."""
        return {via.pair for via in self.vias if via is not None}


@dataclass(frozen=True)
class Target:
    """One tensor of the student's module.

    Attributes:
        key: its key in the student's module.
        shape: its shape.
        action: what happens to it.
        name: its key behind the path of its site; of a task head, in the model.
        place: (layer, site), None for a task head.
        parts: the teacher tensors it is made of; none where it is freshly initialised.
        into: of a reading weight with nothing but another weight behind it, the key of that weight.
        scaled: whether a factor of what the module writes goes into it.
        neutral: the value at which it changes nothing, and which dimensions without a counterpart get.
        shared: whether it belongs to all sites of the module together.
    """

    key: str
    shape: tuple[int, ...]
    action: Action
    name: str
    place: Place | None = None
    parts: tuple[Part, ...] = ()
    into: str = ""
    scaled: bool = False
    neutral: float = 0.0
    shared: bool = False

    def describe(self) -> dict[str, Any]:
        """Say what becomes of it, where it sits, and what it is made of."""
        layer, site = self.place or (None, "shared" if self.shared else "head")
        return {
            "action": self.action,
            "layer": layer,
            "site": site,
            "shape": list(self.shape),
            "from": {part.tensor: part.weight for part in self.parts},
        }

    @property
    def pairs(self) -> set[SpacePair]:
        """The pairs of spaces whose maps it is made with."""
        folds = {part.fold.pair for part in self.parts if part.fold is not None}
        return folds.union(*(part.pairs for part in self.parts))

    @property
    def reads(self) -> tuple[tuple[Part, Via], ...]:
        """The maps of what it reads, per part; what a weight reads is its last axis."""
        return tuple((part, via) for part in self.parts if (via := part.vias[-1]) is not None and via.reads)


def copied_action(parts: Sequence[Part]) -> Action:
    """Name what happens to a tensor that no map acts on."""
    if parts[0].rows is not None:
        return "reordered"
    return "copied" if len(parts) == 1 and parts[0].weight == 1 else "averaged"
