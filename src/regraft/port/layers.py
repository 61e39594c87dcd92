"""Which teacher layers each student layer takes over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import PlanError, unknown_choice
from ..models.sites import Place, SiteShape, depth, stack_of


@dataclass(frozen=True)
class Share:
    """One teacher layer in a student layer's module, and the factor its tensors are multiplied by."""

    layer: int
    weight: float = 1.0


Group = tuple[Share, ...]


def _avg_released(layers: range) -> Group:
    """The authors' loader divides by the size of the group but never adds its last layer."""
    if len(layers) < 2:
        raise PlanError(
            f"'avg_released' found a group of one teacher layer ({layers[0]}) and would leave it out entirely; "
            "it needs a teacher at least twice as deep as the student, use 'avg' or 'skip'"
        )
    return tuple(Share(layer, 1 / len(layers)) for layer in layers[:-1])


MATCHINGS: Mapping[str, Callable[[range], Group]] = {
    "skip": lambda layers: (Share(layers[0]),),
    "avg": lambda layers: tuple(Share(layer, 1 / len(layers)) for layer in layers),
    "avg_released": _avg_released,
    "last": lambda layers: (Share(layers[-1]),),
}


def match_layers(matching: str | Sequence[int], teacher_depth: int, student_depth: int) -> tuple[Group, ...]:
    """Pair the layers of two models (paper, section 3.1).

    Student layer i owns the teacher layers from ``i * L_t // L_s`` up to (and without) ``(i + 1) * L_t // L_s``. With
    depths that divide these are the paper's groups of k = L_t / L_s; otherwise the pairing is proportional, and in a
    student deeper than the teacher each group is the one nearest layer below.

    Args:
        matching: a key of `MATCHINGS`, or one teacher layer (0-based) per student layer.
        teacher_depth: L_t.
        student_depth: L_s.

    Returns:
        For each student layer its shares of teacher layers.

    Raises:
        PlanError: an unknown name, or a list that does not fit the two depths.
    """
    if not isinstance(matching, str):
        return _explicit(matching, teacher_depth, student_depth)
    if matching not in MATCHINGS:
        raise PlanError(unknown_choice("layer matching", matching, MATCHINGS) + " (or a list such as 0,2,4)")
    groups = []
    for i in range(student_depth):
        start, stop = i * teacher_depth // student_depth, (i + 1) * teacher_depth // student_depth
        groups.append(MATCHINGS[matching](range(start, max(stop, start + 1))))
    return tuple(groups)


def match_stacks(
    matching: str | Sequence[int], teacher: Mapping[Place, SiteShape], student: Mapping[Place, SiteShape]
) -> dict[str, tuple[Group, ...]]:
    """Pair the layers of each stack of a student with those of the teacher's stack of that name.

    Where the layers of a stack are of several kinds (some with attention, some without), a name of `MATCHINGS` pairs
    layers of one kind only.

    Args:
        matching: as of `match_layers`; a list is for models with one stack.
        teacher: the teacher's sites.
        student: the student's sites.

    Returns:
        Per stack of the student, for each of its layers its shares of teacher layers; none where there are no such.

    Raises:
        PlanError: as of `match_layers`, or a list for several stacks.
    """
    stacks = dict.fromkeys(stack_of(name) for _, name in student)
    if not isinstance(matching, str) and len(stacks) > 1:
        raise PlanError(
            f"found a list of layers for a student with {len(stacks)} lists of layers, expected one of "
            f"{', '.join(MATCHINGS)}"
        )
    return {stack: _match_stack(matching, _kinds(teacher, stack), _kinds(student, stack)) for stack in stacks}


Kind = frozenset[str]


def _match_stack(matching: str | Sequence[int], teacher: Sequence[Kind], student: Sequence[Kind]) -> tuple[Group, ...]:
    if not teacher:
        return ((),) * len(student)
    if not isinstance(matching, str) or (len(set(teacher)) == 1 and len(set(student)) == 1):
        return match_layers(matching, len(teacher), len(student))
    groups: list[Group] = [()] * len(student)
    for kind in set(student) & set(teacher):
        mine, theirs = ([layer for layer, its in enumerate(kinds) if its == kind] for kinds in (student, teacher))
        for layer, group in zip(mine, match_layers(matching, len(theirs), len(mine)), strict=True):
            groups[layer] = tuple(Share(theirs[share.layer], share.weight) for share in group)
    return tuple(groups)


def _kinds(sites: Mapping[Place, SiteShape], stack: str) -> list[Kind]:
    """Tell the kind of each layer of a stack by the sites that it has; those of the whole model do not count."""
    names: list[set[str]] = [set() for _ in range(depth(sites, stack))]
    for layer, name in sites:
        if stack_of(name) == stack and name not in ("final_norm", "pooler"):
            names[layer].add(name)
    return [frozenset(kind) for kind in names]


def _explicit(layers: Sequence[int], teacher_depth: int, student_depth: int) -> tuple[Group, ...]:
    if len(layers) != student_depth:
        raise PlanError(
            f"the layer list names {len(layers)} teacher layers, expected {student_depth}: one per student layer"
        )
    outside = [layer for layer in layers if not 0 <= layer < teacher_depth]
    if outside:
        raise PlanError(
            f"the layer list names layer {outside[0]}, expected 0 to {teacher_depth - 1}: the teacher's layers"
        )
    return tuple((Share(layer),) for layer in layers)
