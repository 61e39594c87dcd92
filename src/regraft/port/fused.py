"""Fused projections (one weight for queries, keys and values): each part is mapped in its own space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..alignment.maps import Assignment, Linear, Map
from ..models.sites import SiteShape, SpacePair

Rows = tuple[tuple[range, ...], ...]


@dataclass(frozen=True)
class Fused:
    """What a fused projection writes, in parts.

    Attributes:
        parts: the pair of spaces of each part.
        rows_s: of each part its dimensions in the student's space.
        rows_t: likewise in the teacher's.
    """

    parts: tuple[SpacePair, ...]
    rows_s: Rows
    rows_t: Rows

    @staticmethod
    def of(pair: SpacePair, student: SiteShape, teacher: SiteShape) -> Fused:
        """Take apart a pair of spaces that two fused projections write."""
        parts = tuple(SpacePair(pair.student_layer, pair.teacher_layer, space) for space in student.parts)
        return Fused(parts, tuple(student.parts.values()), tuple(teacher.parts[space] for space in student.parts))

    def map(self, maps: Mapping[SpacePair, Map]) -> Map:
        """Put the maps of the parts together: the rows of a part move among its own alone."""
        rows_s, rows_t = ([_indices(rows) for rows in side] for side in (self.rows_s, self.rows_t))
        d_s, d_t = (sum(map(len, side)) for side in (rows_s, rows_t))
        own = [maps[part] for part in self.parts]
        if all(isinstance(one, Assignment) for one in own):
            index = torch.full((d_s,), -1, dtype=torch.int64)
            for one, at_s, at_t in zip(own, rows_s, rows_t, strict=True):
                if isinstance(one, Assignment):
                    index[at_s] = torch.where(one.index < 0, -1, at_t[one.index.clamp(min=0)])
            return Assignment(index, d_t)
        linear = [Linear.of(one) if isinstance(one, Assignment) else one for one in own]
        reads, offset = torch.zeros(d_t, d_s, dtype=torch.float64), torch.zeros(d_t, dtype=torch.float64)
        writes, constant = torch.zeros(d_s, d_t, dtype=torch.float64), torch.zeros(d_s, dtype=torch.float64)
        for one, at_s, at_t in zip(linear, rows_s, rows_t, strict=True):
            reads[at_t[:, None], at_s], writes[at_s[:, None], at_t] = one.reads.double(), one.writes.double()
            offset[at_t], constant[at_s] = one.offset.double(), one.constant.double()
        return Linear(reads, offset, writes, constant)


def _indices(rows: tuple[range, ...]) -> Tensor:
    return torch.cat([torch.arange(some.start, some.stop) for some in rows])


def with_fused(maps: Mapping[SpacePair, Map], fused: Mapping[SpacePair, Fused]) -> dict[SpacePair, Map]:
    """Add to maps those of fused projections."""
    return {**maps, **{pair: one.map(maps) for pair, one in fused.items()}}
