"""What an axis of a module's tensor is, and how a map between two models acts on it.

Every axis either belongs to an activation space of the base model (`Reads`, `Writes`) or to the module alone (`Free`).
Porting a tensor is applying, axis by axis, the map between the teacher's space and the student's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Free:
    """An axis of the module's own (rank, bottleneck width): no map acts on it."""


@dataclass(frozen=True)
class Reads:
    """An axis that contracts with an activation.

    Attributes:
        measured: the side of the site it reads, ``"in"`` or ``"out"``.
        released: the name of the space that the paper's authors fit its map on; None where it is the measured one.
    """

    measured: str
    released: str | None = None


@dataclass(frozen=True)
class Writes:
    """An axis that adds to an activation; attributes as for `Reads`."""

    measured: str
    released: str | None = None


Axis = Free | Reads | Writes


@dataclass(frozen=True)
class Assignment:
    """A one-to-one map: student dimension i is teacher dimension ``index[i]``.

    Reads and writes go through the same selection, since a (partial) permutation is inverted by its transpose.

    Attributes:
        index: (d_s,) int64, each teacher dimension at most once; -1 where a student dimension has no counterpart.
        teacher_width: d_t.
    """

    index: Tensor
    teacher_width: int

    def __post_init__(self) -> None:
        matched = self.index[self.index >= 0]
        if matched.numel() and int(matched.max()) >= self.teacher_width:
            raise ValueError(f"index {int(matched.max())} lies outside a teacher space of width {self.teacher_width}")
        if len(set(matched.tolist())) != matched.numel():
            raise ValueError("a teacher dimension is assigned more than once")

    @staticmethod
    def identity(width: int) -> Assignment:
        """Return the map of a space onto itself."""
        return Assignment(torch.arange(width), width)

    @property
    def student_width(self) -> int:
        """d_s."""
        return self.index.numel()

    @property
    def unmatched(self) -> int:
        """Number of student dimensions without a counterpart."""
        return int((self.index < 0).sum())

    def apply(self, tensor: Tensor, axis: int) -> Tensor:
        """Take `tensor` from the teacher's space to the student's along `axis`.

        Args:
            tensor: a module's tensor with ``tensor.shape[axis] == d_t``.
            axis: the axis that lives in this space.

        Returns:
            A tensor with d_s along `axis`, bit for bit the teacher's values, zero where nothing was assigned.
        """
        if tensor.shape[axis] != self.teacher_width:
            raise ValueError(f"axis {axis} is {tensor.shape[axis]} wide, the map expects {self.teacher_width}")
        picked = tensor.index_select(axis, self.index.clamp(min=0))
        return picked.index_fill(axis, (self.index < 0).nonzero().flatten(), 0)
