"""Execute a plan: pure arithmetic from the teacher's tensors to the student's. No files, no models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ..alignment.maps import Map
from ..errors import PlanError
from ..models.sites import SpacePair
from ..modules.module import Module
from ..seeding import generator
from .forecast import Fidelity
from .fused import with_fused
from .parts import Part, Target
from .plan import Plan

# What a map that works is never off by.
LARGEST = 1000
# How many times as long as its teacher's a row may be that a LoRA reads with, or as short; less is worse (results.md).
UNBALANCED = 10.0
# The standard deviation that BERT and its descendants draw new heads with.
HEAD_STD = 0.02

Moved = Mapping[str, tuple[Tensor, ...]]
"""Key of the student's module -> the teacher's tensors it is made of, moved there and not yet weighted; none: fresh."""


def transfer_tensors(
    plan: Plan, tensors: Mapping[str, Tensor], maps: Mapping[SpacePair, Map], seed: int = 0, scale: float = 1.0
) -> dict[str, Tensor]:
    """Make the student's tensors.

    Args:
        plan: says for each student tensor what it is made of.
        tensors: the teacher's module.
        maps: one per pair of spaces in ``plan.widths``.
        seed: for the task head, where it is freshly initialised.
        scale: factor of all that the module writes.

    Returns:
        Every tensor of the plan, in the type of its teacher tensors; copied tensors are bit for bit the teacher's.

    Raises:
        PlanError: the plan is refused.
    """
    plan.check()
    return put_together(plan.targets, move(plan, plan.targets, tensors, maps), seed, scale)


def check_sizes(
    plan: Plan,
    made: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    scale: float,
    places: Collection[Fidelity] = (),
) -> None:
    """Refuse a port that no working map would have made.

    Of two models one may have activations a thousand times as large as the other's, and tensors that read them are as
    much smaller. So what reads is judged by what it computes from held-out activations, where that is known.

    Args:
        plan: says what each tensor is made of.
        made: the student's module, not yet `balanced`.
        tensors: the teacher's module.
        scale: factor of what the module writes.
        places: how much of what they read the places of the student's module keep.

    Raises:
        PlanError: a tensor holds NaN or infinity; what it computes is a thousand times as far from the teacher's as
            that is from its mean; or, where this is not known, it is a thousand times as large as the teacher's.
    """
    kept: dict[tuple[int | None, str], float] = {}
    for place in places:
        if place.r2 is not None:
            key = place.layer, place.site
            kept[key] = min(place.r2, kept.get(key, place.r2))
    used = {part.tensor for target in plan.targets for part in target.parts}
    largest = max((float(tensors[key].abs().max()) for key in used if tensors[key].numel()), default=0.0)
    most = LARGEST * max(1.0, scale) * largest
    for target in plan.targets:
        tensor = made[target.key]
        if not target.parts or not tensor.numel():
            continue
        r2 = kept.get(target.place or (None, "head")) if target.reads else None
        if r2 is not None and r2 < 1 - LARGEST**2:
            raise PlanError(
                f"what the port's {target.key} computes would miss the teacher's by {LARGEST:,} times what that "
                "varies by, so its maps are of no use; give more texts, or take another --align"
            )
        if not tensor.isfinite().all() or (r2 is None and float(tensor.abs().max()) > most):
            raise PlanError(
                f"the port's {target.key} would be NaN, infinite or more than {LARGEST:,} times as large as any of the "
                "teacher's tensors, so its maps are of no use; give more texts, or take another --align"
            )


def move(
    plan: Plan, targets: Collection[Target], tensors: Mapping[str, Tensor], maps: Mapping[SpacePair, Map]
) -> dict[str, tuple[Tensor, ...]]:
    """Move what some tensors of the student are made of, after which their maps have served.

    Args:
        plan: says how fused projections are put together.
        targets: which tensors.
        tensors: the teacher's module.
        maps: those that the targets need.
    """
    fused = {pair: plan.fused[pair] for target in targets for pair in target.pairs if pair in plan.fused}
    maps = with_fused(maps, fused)
    return {
        target.key: tuple(_port(part, tensors, maps, target.neutral) for part in target.parts) for target in targets
    }


def put_together(targets: Collection[Target], moved: Moved, seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    """Make some of the student's tensors of what was moved; arguments as for `transfer_tensors`."""
    return {target.key: _make(target, moved[target.key], seed, scale) for target in targets}


def port_module(plan: Plan, module: Module, made: Mapping[str, Tensor], **provenance: Any) -> Module:
    """Make the student's module of its tensors, `put_together` from the teacher's, and what its provenance says."""
    tensors = balanced(plan.targets, made, module.tensors)
    labels = {"labels": list(plan.labels)} if plan.labels else {}
    return Module(plan.config, tensors, f"port of {module.source}", {**provenance, **labels})


def balanced(
    targets: Collection[Target], made: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give rows of A that are far from the length of the teacher's that length, and columns of B theirs in return.

    What A and B compute together stays. But Adam's steps are of one size for both, and a LoRA whose A is a thousand
    times as large as usual, since the student's activations are as small, learns nothing in A and too much in B.

    Args:
        targets: which tensors.
        made: the student's module.
        tensors: the teacher's module.
    """
    result = dict(made)
    for target in targets:
        if not target.into or not target.parts:
            continue
        read, written = made[target.key], made[target.into]
        usual = [float(tensors[part.tensor].double().square().sum(1).mean().sqrt()) for part in target.parts]
        factors = read.double().norm(dim=1) / max(usual)
        near = (factors <= UNBALANCED) & (factors >= 1 / UNBALANCED)
        if near.all():
            continue
        factors = torch.where(near | ~factors.isfinite() | (factors == 0), 1.0, factors)
        result[target.key] = (read.double() / factors[:, None]).to(read.dtype)
        result[target.into] = (written.double() * factors).to(written.dtype)
    return result


def _make(target: Target, ported: tuple[Tensor, ...], seed: int, scale: float) -> Tensor:
    if not target.parts:
        return _fresh(target, seed)
    factors = [part.weight * (scale if target.scaled else 1.0) for part in target.parts]
    if factors == [1.0]:
        return ported[0]
    dtype = ported[0].dtype
    exact = torch.promote_types(dtype, torch.float32)
    return sum(
        (factor * tensor.to(exact) for factor, tensor in zip(factors, ported, strict=True)),
        torch.full(target.shape, target.neutral * (1 - sum(factors)), dtype=exact),
    ).to(dtype)


def _port(part: Part, tensors: Mapping[str, Tensor], maps: Mapping[SpacePair, Map], neutral: float) -> Tensor:
    tensor = tensors[part.tensor]
    if part.fold is not None and (offset := maps[part.fold.pair].offset) is not None:
        # T (R h_s + b) + c is (T R) h_s + (T b + c).
        exact = torch.promote_types(tensor.dtype, torch.float32)
        tensor = (tensor.to(exact) + tensors[part.fold.weight].to(exact) @ offset.to(exact)).to(tensor.dtype)
    for axis, via in enumerate(part.vias):
        if via is None:
            continue
        acting = maps[via.pair]
        if via.reads:
            tensor = (acting if via.has_bias else acting.without_offset()).read(tensor, axis)
        else:
            written = acting.write(tensor, axis)
            if neutral:  # not 0, which maps give to what they do not reach
                reached = acting.write(torch.ones_like(tensor), axis) != 0
                written = torch.where(reached, written, neutral)
            tensor = written
    return tensor.clone() if part.rows is None else tensor[list(part.rows)]


def _fresh(target: Target, seed: int) -> Tensor:
    if target.key.endswith("bias"):
        return torch.zeros(target.shape)
    if len(target.shape) == 1:  # the scale of a head's normalisation
        return torch.ones(target.shape)
    return torch.randn(target.shape, generator=generator(seed, target.key)) * HEAD_STD
