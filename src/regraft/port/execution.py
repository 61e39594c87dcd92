"""Execute a plan: pure arithmetic from the teacher's tensors to the student's. No files, no models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..alignment.maps import Map
from ..errors import PlanError
from ..models.sites import SpacePair
from ..modules.module import Module
from ..seeding import generator
from .fused import with_fused
from .parts import Part, Target
from .plan import Plan

# A map between activations of any sizes that occur makes tensors larger, but not by so much.
LARGEST = 1000
# The standard deviation that BERT and its descendants draw new heads with.
HEAD_STD = 0.02


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
    maps = with_fused(maps, plan.fused)
    return {target.key: _make(target, tensors, maps, seed, scale) for target in plan.targets}


def check_sizes(plan: Plan, made: Mapping[str, Tensor], tensors: Mapping[str, Tensor], scale: float) -> None:
    """Refuse a port that no working map would have made; arguments as for `transfer_tensors`, and what it made.

    Raises:
        PlanError: a tensor holds NaN, or is 1,000 times as large as the teacher's.
    """
    used = {part.tensor for target in plan.targets for part in target.parts}
    largest = max((float(tensors[key].abs().max()) for key in used if tensors[key].numel()), default=0.0)
    most = LARGEST * max(1.0, scale) * largest
    for target in plan.targets:
        tensor = made[target.key]
        if target.parts and tensor.numel() and not float(tensor.abs().max()) <= most:  # nor is NaN
            raise PlanError(
                f"the port's {target.key} would be NaN, infinite or more than {LARGEST:,} times as large as any of the "
                "teacher's tensors, so its maps are of no use; give more texts, or take another --align"
            )


def port_module(
    plan: Plan, module: Module, maps: Mapping[SpacePair, Map], seed: int, scale: float, **provenance: Any
) -> Module:
    """Make the student's module; arguments as for `transfer_tensors`, and what else its provenance says."""
    tensors = transfer_tensors(plan, module.tensors, maps, seed, scale)
    labels = {"labels": list(plan.labels)} if plan.labels else {}
    return Module(plan.config, tensors, f"port of {module.source}", {**provenance, **labels})


def _make(
    target: Target, tensors: Mapping[str, Tensor], maps: Mapping[SpacePair, Map], seed: int, scale: float
) -> Tensor:
    if not target.parts:
        return _fresh(target, seed)
    ported = [_port(part, tensors, maps, target.neutral) for part in target.parts]
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
