"""Whether two models' base weights agree where a module needs them to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.pretrained import Pretrained
from ..models.relation import find_weight, weights_of
from ..models.sites import find_sites, stack_of
from ..modules.config import CONVERT
from ..modules.module import Module
from ..modules.peft_types import PEFT_TYPES
from .plan import Plan

# How far norms of rows may be apart, relative to them: what rounding to 16 bits leaves of one weight.
TOLERANCE = 1e-3


def bases_refused(plan: Plan, module: Module, teacher: Pretrained, student: Pretrained) -> str:
    """Say why a module that is bound to its base weights would not be what it was; empty where it would be.

    DoRA's magnitudes are the norms that rows of W + B A are given (Liu et al., DoRA, ICML 2024, section 4.1). They mean
    the same on a student whose rows of W have the teacher's norms.
    """
    record = PEFT_TYPES[module.peft_type]
    bound = record.bound(module.config)
    if not bound:
        return ""
    sites_t, sites_s = (find_sites(base.skeleton(), base.family) for base in (teacher, student))
    with weights_of(teacher) as weights_t, weights_of(student) as weights_s:
        for place in sorted({target.place for target in plan.targets if target.place is not None}):
            layer, site = place
            source = plan.groups[stack_of(site)][layer][0].layer
            norms_t = _norms(weights_t, sites_t[source, site].path, module.config.get(record.transposed))
            norms_s = _norms(weights_s, sites_s[place].path, plan.config.get(record.transposed))
            where = f"{site} of the student's layer {layer} and the teacher's layer {source}"
            if norms_t is None or norms_s is None:
                return f"the weights of {where} cannot be compared, expected to be equal ({bound}); {CONVERT}"
            apart = float(((norms_s - norms_t).abs() / norms_t.clamp(min=1e-12)).max())
            if apart > TOLERANCE:
                return (
                    f"the norms of the rows of {where} are up to {apart:.2g} apart, expected at most {TOLERANCE:g} "
                    f"({bound}); {CONVERT}"
                )
    return ""


def _norms(weights: Mapping[str, Any], path: str, transposed: object) -> Tensor | None:
    """Norms of the rows of a weight, (out,); None where it cannot be read as numbers."""
    found = find_weight(weights, f"{path}.weight")
    if found is None:
        return None
    weight: Tensor = found[:]
    return weight.detach().cpu().double().norm(dim=0 if transposed else 1) if weight.is_floating_point() else None
