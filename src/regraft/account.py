"""The account of a port: what ``regraft.json`` says of how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .checkpoint import Module
from .models.pretrained import BaseModel
from .parts import Target
from .plan import Plan
from .sequential import Fitted


def account(
    drawn: Plan,
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int],
    align: str,
    spaces: str,
    seed: int,
    sequential: bool,
    fitted: Fitted,
) -> dict[str, Any]:
    """Account for every tensor, and for all that made it.

    Args:
        drawn: the plan.
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        layers: as the user named them.
        align: name of the method.
        spaces: ``"released"`` or ``"measured"``.
        seed: of everything that was drawn.
        sequential: whether the maps were fitted in sequence.
        fitted: the maps.
    """
    taken = fitted.sample
    return {
        "module": module.source,
        "module_hash": module.hash(),
        "teacher": teacher.name,
        "teacher_config": teacher.config_hash,
        "student": student.name,
        "student_config": student.config_hash,
        "layers": layers if isinstance(layers, str) else ",".join(map(str, layers)),
        "groups": [[asdict(share) for share in group] for group in drawn.groups],
        "align": align,
        "spaces": spaces if align != "none" else "not needed",
        "head": drawn.head,
        "sequential": sequential,
        "scale": fitted.scale,
        "scales": {str(factor): share for factor, share in fitted.scales.items()},
        "seed": seed,
        "sampled": taken.describe() if taken else None,
        "sample": asdict(taken.source) if taken else None,
        "scores": [{**asdict(score), "space": str(score.space)} for score in fitted.scores],
        "tensors": {target.key: _made(target, fitted.scale) for target in drawn.targets},
        "left": dict(drawn.left),
    }


def _made(target: Target, scale: float) -> dict[str, Any]:
    factor = scale if target.writes else 1.0
    return {
        # A plan does not know a scale that is still to be searched.
        "action": "scaled" if target.action == "copied" and factor != 1 else target.action,
        "shape": list(target.shape),
        "from": {part.tensor: part.weight * factor for part in target.parts},
    }
