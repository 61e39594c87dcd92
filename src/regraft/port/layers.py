"""Which teacher layers each student layer takes over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import PlanError, unknown_choice


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
