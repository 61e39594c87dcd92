"""Teachers of which a student is an exact permuted and pruned copy, so that the right map is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from conftest import tiny_config
from torch import Tensor


@dataclass(frozen=True)
class Twin:
    """A student and the teacher it was pruned from.

    Attributes:
        student: bare BERT of width d.
        teacher: bare BERT of width 2 d (or d) that computes the same on the kept dimensions.
        kept: (d,) the teacher dimension of each student dimension of the residual stream.
        query: (d,) likewise for the outputs of the query (and key) projection, layer by layer.
        value: (d,) likewise for the value projection.
        write: (d_t, d) the teacher's residual stream is ``write @`` the student's.
    """

    student: Any
    teacher: Any
    kept: Tensor
    query: list[Tensor]
    value: list[Tensor]
    write: Tensor


def make_twin(width: int = 32, prune: bool = True, seed: int = 0, layers: int = 3) -> Twin:
    """Make a teacher by adding dimensions to a student, then permuting all of them.

    The added dimensions are an orthogonal mix Q of the student's with Q 1 = 1: the mean and variance of every token
    stay, so that LayerNorm (gain 1, bias 0) acts on the kept dimensions as it does in the student. Whole heads are
    permuted, dimensions within a head too; with `prune` the teacher has as many heads again, which nothing reads.
    """
    torch.manual_seed(seed)
    config = tiny_config("bert", width, layers, initializer_range=0.3)
    student = transformers.AutoModel.from_config(config).double().eval()
    wide = 2 * width if prune else width
    heads = wide // width * config.num_attention_heads
    teacher_config = tiny_config(
        "bert", wide, layers, num_attention_heads=heads, intermediate_size=config.intermediate_size
    )
    teacher = transformers.AutoModel.from_config(teacher_config).double().eval()

    order = torch.randperm(wide)
    mixed = torch.cat([torch.eye(width), _mix(width)])[:wide].double()
    write = torch.zeros(wide, width).double()
    write[order] = mixed
    kept = order[:width]
    read = torch.zeros(width, wide).double()
    read[torch.arange(width), kept] = 1
    twin = Twin(student, teacher, kept, [], [], write)

    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            getattr(teacher.embeddings, name).weight.copy_(getattr(student.embeddings, name).weight @ write.T)
        for s, t in zip(student.encoder.layer, teacher.encoder.layer, strict=True):
            moved = torch.randperm(heads)
            queries, values = (_within_heads(moved, wide // heads)[:width] for _ in range(2))
            twin.query.append(queries)
            twin.value.append(values)
            for part, rows in (("query", queries), ("key", queries), ("value", values)):
                _place(getattr(t.attention.self, part), getattr(s.attention.self, part), lambda w: w @ read, rows)
            units = torch.randperm(config.intermediate_size)
            _place(t.intermediate.dense, s.intermediate.dense, lambda w: w @ read, units)
            for to, source, columns in (
                (t.attention.output.dense, s.attention.output.dense, values),
                (t.output.dense, s.output.dense, units),
            ):
                to.weight.zero_()
                to.weight[:, columns] = write @ source.weight
                to.bias.copy_(write @ source.bias)
    return twin


def _mix(width: int) -> Tensor:
    """Return a random orthogonal (width, width) matrix whose rows sum to 1."""
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(width, 1), torch.randn(width, width - 1)], dim=1).double())
    turn, _ = torch.linalg.qr(torch.randn(width - 1, width - 1).double())
    inner = torch.block_diag(torch.ones(1, 1).double(), turn)
    return basis @ inner @ basis.T


def _within_heads(heads: Tensor, size: int) -> Tensor:
    """Lay out heads in the given order, with the dimensions of each permuted."""
    return torch.cat([head * size + torch.randperm(size) for head in heads])


def _place(to: Any, source: Any, reading: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    """Put the rows of `source` at `rows` of `to`; the others stay random but read the same activations."""
    to.weight.copy_(reading(torch.randn(len(to.weight), source.weight.shape[1]).double()))
    to.weight[rows] = reading(source.weight)
    to.bias[rows] = source.bias
