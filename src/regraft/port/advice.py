"""What is said of a port before it is made: how the two models are related, what follows, what would be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..models.pretrained import Pretrained
from ..models.relation import Relation
from ..modules.config import PREFIX
from ..modules.peft_method import PeftMethod
from .layers import Group


def relation_said(relation: Relation, teacher: str, student: str) -> str:
    """Say how a student is related to a teacher, and what that means for a copy."""
    like = f"cosine of the layers' weights {relation.cosine:.2f}" if relation.cosine is not None else relation.reason
    if relation.embeddings is not None:
        like += f", of the embeddings {relation.embeddings:.2f}"
    numbers = ", ".join(map(str, relation.layers))
    sentences = {
        "same": f"{student} is {teacher} itself: a copy is exact.",
        "cut": f"{student} was cut from {teacher}, layers {numbers}: what is copied means there what it meant.",
        "distilled": f"{student} descends from {teacher} ({like}): what is copied means there what it meant.",
        "related": f"{student} and {teacher} are related ({like}): what is copied means there what it meant.",
        "unrelated": f"{student} and {teacher} share no dimensions ({like}): a copy means nothing, maps need texts.",
        "unknown": f"How {student} is related to {teacher} is not known ({like}): a copy means something only where "
        "one descends from the other.",
    }
    return sentences[relation.kind]


def derived_said(base: Pretrained) -> str | None:
    """Say what was found of a model whose type has no record; None of all others."""
    if not base.is_derived:
        return None
    lists = "; ".join(
        f"{layers}.N: {', '.join(path for its, path in base.family.places.values() if its == layers)}"
        for layers in dict.fromkeys(layers for layers, _ in base.family.places.values())
    )
    return (
        f"{base.name} ({base.config.model_type}) has no record, so its sites were derived from its modules: {lists} "
        f"('regraft family {base.name}' prints them)."
    )


def quantised_said(teacher: Pretrained, student: Pretrained) -> str | None:
    """Say what differs where one model is quantised and the other is not; else None."""
    in_bits = [
        base.gguf_file != "" or getattr(base.config, "quantization_config", None) is not None
        for base in (teacher, student)
    ]
    if in_bits[0] == in_bits[1]:
        return None
    which = ("quantised", "the rounding of its weights") if in_bits[0] else ("in full precision", "full precision")
    return (
        f"The module was trained on {teacher.name}, which is {which[0]}; it has learned beside {which[1]}, and "
        f"{student.name} rounds otherwise: expect a small loss, even between the same weights."
    )


def operation_said(relation: Relation, record: PeftMethod) -> str | None:
    """Say of a module that multiplies or rotates base weights what a copy is where these differ; else None."""
    if not record.of_bases or relation.kind not in ("distilled", "related"):
        return None
    return f"{record.name} acts on the base weights, which differ: a copy is the same operation, not the same addition."


def texts_advised(relation: Relation, copied: bool, sampled: bool, mappable: bool = True) -> str | None:
    """Say that texts may bring more than a copy, where dimensions are shared but not equal; else None."""
    if not copied or sampled or not mappable or relation.kind in ("same", "cut", "unrelated"):
        return None
    return "Maps may bring more than a copy; they need texts: --texts FILE."


def layers_advised(relation: Relation, groups: Sequence[Group]) -> str | None:
    """Name the teacher's layers that the student's are most like, where the port takes over others; else None."""
    groups_like = tuple(group[0].layer for group in groups if len(group) == 1)
    rising = all(before < after for before, after in zip(relation.layers, relation.layers[1:], strict=False))
    if relation.kind not in ("cut", "distilled") or not rising or groups_like == relation.layers:
        return None
    numbers = ",".join(map(str, relation.layers))
    return f"The student's layers are most like the teacher's {numbers}; --layers {numbers} takes these over."


def copy_refused(relation: Relation, teacher: str, student: str, instead: str) -> str:
    """Say why a copy that nobody asked for by name is refused."""
    like = relation.reason or f"the cosine of their layers' weights is {relation.cosine:.2f}"
    return (
        f"{student} and {teacher} share no dimensions ({like}), so that a copy means nothing; {instead}, or "
        "ask for the copy by name (--align none)"
    )


def loss_refused(source: str, lost: Mapping[str, str]) -> str:
    """Name what would be lost of a module, and how to go on without."""
    reasons: dict[str, list[str]] = {}
    for key, reason in sorted(lost.items()):
        reasons.setdefault(reason, []).append(key.removeprefix(PREFIX))
    parts = "; ".join(f"{shortened(names)}: {reason}" for reason, names in reasons.items())
    return (
        f"{source} would not be what was trained without tensors that cannot be ported ({parts}); leave them out with "
        "--drop"
    )


def shortened(names: Sequence[str], most: int = 4) -> str:
    """List names, the first few of many."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])
