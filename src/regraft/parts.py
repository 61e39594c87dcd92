"""What a tensor of the student's module is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .samples import Space

Place = tuple[int, str]
"""(student layer, site)"""
Action = Literal["copied", "averaged", "mapped", "reordered", "fresh", "refused"]


@dataclass(frozen=True)
class Part:
    """One teacher tensor in a student tensor.

    Attributes:
        tensor: its key in the teacher's module.
        weight: factor (layers that are averaged have less than 1).
        spaces: for each axis the pair of spaces whose map acts on it; None where no map does.
        rows: which of its rows, in which order (a head's labels); None for all as they are.
    """

    tensor: str
    weight: float
    spaces: tuple[Space | None, ...]
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Target:
    """One tensor of the student's module.

    Attributes:
        key: its key in the student's module.
        shape: its shape.
        action: what happens to it.
        place: (layer, site), None for a task head.
        parts: the teacher tensors it is made of; none where it is freshly initialised.
    """

    key: str
    shape: tuple[int, ...]
    action: Action
    place: Place | None = None
    parts: tuple[Part, ...] = ()
