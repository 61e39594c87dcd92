"""What an axis of a module's tensor is, and how a map between two models acts on it.

Every axis either belongs to an activation space of the base model (`Reads`, `Writes`) or to the module alone (`Free`).
Porting a tensor is applying, axis by axis, the map between the teacher's space and the student's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

Kind = Literal["one-to-one", "linear"]


@dataclass(frozen=True)
class Assignment:
    """A one-to-one map: student dimension i is teacher dimension ``index[i]``.

    Reads and writes go through the same selection, since a (partial) permutation is inverted by its transpose.

    Attributes:
        index: (d_s,) int64, each teacher dimension at most once; -1 where a student dimension has no counterpart.
        teacher_width: d_t.
    """

    kind: ClassVar[Kind] = "one-to-one"
    # Values are the teacher's own, so there is nothing for a bias to take on.
    offset: ClassVar[None] = None
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

    def without_offset(self) -> Assignment:
        """Return the map for weights with no bias beside them: itself."""
        return self

    def read(self, tensor: Tensor, axis: int) -> Tensor:
        """Take `tensor`, whose `axis` contracts with the teacher's activation, to the student's.

        Args:
            tensor: a module's tensor with ``tensor.shape[axis] == d_t``.
            axis: the axis that lives in this space.

        Returns:
            A tensor with d_s along `axis`, bit for bit the teacher's values, zero where nothing was assigned.
        """
        _check_width(tensor, axis, self.teacher_width)
        selection = tensor.index_select(axis, self.index.clamp(min=0))
        return selection.index_fill(axis, (self.index < 0).nonzero().flatten(), 0)

    def write(self, tensor: Tensor, axis: int) -> Tensor:
        """Take `tensor`, whose `axis` adds to the teacher's activation, to the student's; as `read`."""
        return self.read(tensor, axis)


@dataclass(frozen=True)
class Linear:
    """A pair of linear maps: one to read the student's activations h_s as the teacher's h_t, one to write to them.

    ``h_t ~ reads @ h_s + offset``; what the teacher adds to h_t, the student gets as ``writes @`` it.

    Attributes:
        reads: (d_t, d_s).
        offset: (d_t,); a bias beside a reading weight takes it on.
        writes: (d_s, d_t).
        constant: (d_s,) with ``constant @ h_s ~ 1``, along which reading weights with no bias beside them take on the
            offset; zero drops it.
    """

    kind: ClassVar[Kind] = "linear"
    reads: Tensor
    offset: Tensor
    writes: Tensor
    constant: Tensor

    def __post_init__(self) -> None:
        d_t, d_s = self.reads.shape
        shapes = [tuple(tensor.shape) for tensor in (self.offset, self.writes, self.constant)]
        if shapes != [(d_t,), (d_s, d_t), (d_s,)]:
            raise ValueError(f"offset, writes and constant have shapes {shapes} beside reads of shape {(d_t, d_s)}")

    @staticmethod
    def of(assignment: Assignment) -> Linear:
        """Return the same map as matrices."""
        matched = (assignment.index >= 0).nonzero().flatten()
        writes = torch.zeros(assignment.student_width, assignment.teacher_width, dtype=torch.float64)
        writes[matched, assignment.index[matched]] = 1
        return Linear(writes.T, writes.new_zeros(writes.shape[1]), writes, writes.new_zeros(len(writes)))

    @property
    def student_width(self) -> int:
        """d_s."""
        return self.writes.shape[0]

    @property
    def teacher_width(self) -> int:
        """d_t."""
        return self.writes.shape[1]

    @property
    def unmatched(self) -> int:
        """Number of student dimensions that are neither read nor written."""
        used = (self.reads != 0).any(0) | (self.writes != 0).any(1)
        return int((~used).sum())

    def without_offset(self) -> Linear:
        """Return the map for weights with no bias beside them, its offset folded along `constant`."""
        reads = self.reads + torch.outer(self.offset, self.constant)
        return Linear(reads, torch.zeros_like(self.offset), self.writes, self.constant)

    def read(self, tensor: Tensor, axis: int) -> Tensor:
        """As `Assignment.read`, but computed in (at least) float32; the result has the type of `tensor`."""
        return self._apply(self.reads.T, tensor, axis)

    def write(self, tensor: Tensor, axis: int) -> Tensor:
        """Take `tensor`, whose `axis` adds to the teacher's activation, to the student's; as `read`."""
        return self._apply(self.writes, tensor, axis)

    def _apply(self, matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
        _check_width(tensor, axis, self.teacher_width)
        exact = torch.promote_types(tensor.dtype, torch.float32)
        mapped = tensor.movedim(axis, -1).to(exact) @ matrix.T.to(exact)
        return mapped.movedim(-1, axis).to(tensor.dtype).contiguous()


Map = Assignment | Linear


def _check_width(tensor: Tensor, axis: int, expected: int) -> None:
    if tensor.shape[axis] != expected:
        raise ValueError(f"axis {axis} is {tensor.shape[axis]} wide, the map expects {expected}")
