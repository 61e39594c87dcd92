"""Which teacher layer each student layer resembles most: how well the student's activations predict the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .axes import Reads
from .checkpoint import Module
from .errors import PlanError, SamplingError
from .fit import read_errors
from .inventory import take_inventory
from .linear import ridge_reads
from .models import BaseModel, depth, find_sites
from .moments import Moments
from .observation import Activations, in_order, observe
from .roles import SITES
from .seeding import generator

# Layers are told apart by far fewer texts than maps are fitted on.
MAX_TEXTS = 300
# Enough to tell layers apart; which of them resemble each other hardly depends on it.
SHRINKAGE = 0.01
# So few texts in a batch that the tenth of the batches that is held out has texts of more than one length.
_BATCHES = 20


@dataclass(frozen=True)
class Evidence:
    """Why layers were paired as they are.

    Attributes:
        space: name of the space that was compared.
        r2: per student layer and teacher layer what `reconstruction` gave.
        chosen: per student layer its teacher layer.
    """

    space: str
    r2: list[list[float]]
    chosen: list[int]


def best_layers(
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    texts: Sequence[str],
    pairing: str = "offsets",
    **sampling: Any,
) -> Evidence:
    """Choose for each student layer one teacher layer: those that sum up to the largest held-out R2.

    Layers stay in order, and no teacher layer is taken twice unless the student is the deeper model. In models of one
    depth that leaves one choice.

    Args:
        module: the teacher's module; layers are compared in the space that it reads.
        teacher: the model it was trained on.
        student: the model it goes to.
        texts: as for `reconstruction`, like all below.
        pairing: see there.
        sampling: see there.

    Raises:
        ModuleFileError: a module that cannot be ported.
        PlanError: one that reads nothing which both models have.
        SamplingError: texts that do not serve.
    """
    space = space_read(module, teacher, student)
    scores = reconstruction(teacher, student, space, texts, pairing, **sampling)
    return Evidence(space, scores.tolist(), monotone(scores, strict=scores.shape[0] <= scores.shape[1]))


def space_read(module: Module, teacher: BaseModel, student: BaseModel) -> str:
    """Name the measured space of the first reading axis of a module, sites in the order of `roles.SITES`.

    Raises:
        ModuleFileError: a module that cannot be ported.
        PlanError: it reads nothing which both models have.
    """
    held = take_inventory(module, teacher.family).held
    for site in (site for site in SITES if site in student.family.sites):
        for role in (role for (_, at), found in held.items() if at == site for role in found.tensors):
            for axis, space in zip(role.axes, role.spaces(site, "measured"), strict=True):
                if isinstance(axis, Reads) and space is not None:
                    return space
    raise PlanError(
        f"layers 'best' found no tensor of {module.source} that reads activations which {student.name} has, too; "
        "choose --layers skip or a list"
    )


def reconstruction(
    teacher: BaseModel,
    student: BaseModel,
    space_name: str,
    texts: Sequence[str],
    pairing: str = "offsets",
    shrinkage: float = SHRINKAGE,
    max_texts: int = MAX_TEXTS,
    batch_size: int = 32,
    **sampling: Any,
) -> Tensor:
    """Score every pair of layers by the held-out R2 of predicting the teacher's activations from the student's.

    The teacher's layers are regressed together, side by side, on each student layer. That takes O(L_s d_s (d_s + L_t
    d_t)) memory: 4.5 GB in float64 for 12 layers of width 768 and 24 of width 1024, under half of what
    `sampling.sample` would take for all pairs.

    Args:
        teacher: the model that the module was trained on.
        student: the model that it goes to.
        space_name: the space to compare, one that every layer has.
        texts: at least two, of which at most `max_texts` are read, drawn the same for the same texts.
        pairing: a key of `pairing.PAIRINGS`.
        shrinkage: of the ridge regression, see `linear.ridge`.
        max_texts: how many texts to read.
        batch_size: texts per batch, at most.
        sampling: passed to `observation.observe`: ``max_length``, ``device``, ``dtype``, ``progress``.

    Returns:
        (L_s, L_t) float64: 1 minus the squared errors over the squared deviations from the mean, all dimensions of the
        teacher's layer pooled; 0 where nothing varies.

    Raises:
        SamplingError: texts, tokenizers or activations that do not serve, or too few tokens paired.
    """
    chosen = _draw(in_order(texts), max_texts)
    depths = [depth(find_sites(base.skeleton(), base.family)) for base in (student, teacher)]
    spots_s, spots_t = ([(layer, space_name) for layer in range(count)] for count in depths)
    splits: list[list[Moments]] = [[] for _ in spots_s]  # per student layer the moments to fit and to judge on
    widths: list[int] = []

    def feed(x_s: Activations, x_t: Activations, held_out: bool) -> None:
        device = x_s[spots_s[0]].device
        side_by_side = torch.cat([x_t[spot].to(device) for spot in spots_t], 1)
        widths[:] = [x_t[spot].shape[1] for spot in spots_t]
        for spot, split in zip(spots_s, splits, strict=True):
            moments = Moments.of(x_s[spot], side_by_side, full=True, full_t=False)
            if not split:
                d_s, d_t = moments.cross.shape
                split += [Moments.zeros(d_s, d_t, moments.cross.device, full=True, full_t=False)] * 2
            split[held_out] += moments

    size = max(1, min(batch_size, len(chosen) // _BATCHES))
    observe(
        teacher,
        student,
        set(spots_t),
        set(spots_s),
        chosen,
        feed,
        pairing,
        size,
        title="Comparing layers",
        **sampling,
    )
    return torch.stack([_scores(fit, held_out, widths, shrinkage) for fit, held_out in splits])


def _draw(texts: list[str], count: int) -> list[str]:
    """Draw so many of the texts, kept in order; which ones depends on their number alone."""
    order = torch.randperm(len(texts), generator=generator(0, "texts to compare layers on"))
    return [texts[i] for i in sorted(order[:count].tolist())]


def _scores(fit: Moments, held_out: Moments, widths: Sequence[int], shrinkage: float) -> Tensor:
    """Return the (L_t,) R2 of the teacher's layers, which lie side by side in the moments."""
    if min(fit.n, held_out.n) < 2:
        raise SamplingError(
            f"paired {fit.n} tokens to fit on and {held_out.n} to judge on, expected at least 2 of either; "
            "give more texts"
        )
    errors, squares = (
        torch.split(x, list(widths)) for x in (read_errors(held_out, *ridge_reads(fit, shrinkage)), held_out.squares_t)
    )
    shares = torch.stack([1 - error.sum() / total.sum() for error, total in zip(errors, squares, strict=True)])
    return shares.nan_to_num(0, neginf=0).cpu()


def monotone(scores: Tensor, strict: bool) -> list[int]:
    """Choose one column per row, in ascending order, with the largest sum (dynamic programming, O(rows * columns)).

    Args:
        scores: (rows, columns), finite.
        strict: whether no column may be taken twice; then there are at least as many columns as rows.

    Returns:
        The column of each row.
    """
    rows, columns = scores.shape
    if strict and rows > columns:
        raise PlanError(f"found {rows} student layers and {columns} teacher layers, expected one for each of them")
    total, froms = scores[0], []
    for row in scores[1:]:
        best, column = total.cummax(0)
        if strict:
            best = torch.cat([best.new_full((1,), -torch.inf), best[:-1]])
            column = torch.cat([column.new_zeros(1), column[:-1]])
        froms.append(column)
        total = best + row
    chosen = [int(total.argmax())]
    for column in reversed(froms):
        chosen.append(int(column[chosen[-1]]))
    return chosen[::-1]
