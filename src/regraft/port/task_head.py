"""Who gets what of the task head: the same linear layers, the first one through the map of what the head reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import PlanError
from ..models.families import TaskHead
from ..models.pretrained import Pretrained
from ..models.sites import Place, SiteShape, SpacePair, depth, space_width
from ..modules.config import PREFIX
from ..modules.inventory import Inventory, labels_of_base
from ..modules.module import Module
from .options import PortOptions
from .parts import Fold, Part, Via


@dataclass(frozen=True)
class TaskHeadPlan:
    """The head of the student's module.

    Attributes:
        parts: student key -> what it is made of; empty where the head is freshly initialised.
        widths: the pair of spaces that the head reads -> (d_s, d_t).
        reason: why it is freshly initialised; empty where it is not.
        remedy: what would let it be ported; then it is freshly initialised only where that is asked for.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    widths: Mapping[SpacePair, tuple[int, int]] = field(default_factory=dict)
    reason: str = ""
    remedy: str = ""


def labels_of_rows(
    module: Module, inventory: Inventory, teacher: Pretrained, student: Pretrained, options: PortOptions
) -> tuple[str, ...]:
    """Check the names of labels that were given, and name those of the teacher's head in the order of its rows.

    The module's own names count; those given for it; or, where the student's are given and the same, those of the
    teacher's configuration.

    Returns:
        Empty where nothing names them.

    Raises:
        PlanError: names that are no labels of this module's head.
    """
    labels, named = options.labels, options.teacher_labels
    for option, given in (("--labels", labels), ("--teacher-labels", named)):
        if given is not None and len(set(given)) < len(given):
            raise PlanError(f"the labels {', '.join(given)} name one twice, expected each once ({option})")
    if labels and inventory.head_class not in student.family.task_heads:
        raise PlanError(f"{module.source} has no task head whose labels could be named; leave out --labels")
    if named is None:
        known = labels_of_base(module, teacher)
        return module.labels or (known if sorted(known) == sorted(labels or ()) else ())
    if inventory.num_labels is None:
        raise PlanError(f"{module.source} has no task head whose labels could be named; leave out --teacher-labels")
    if len(named) != inventory.num_labels:
        raise PlanError(
            f"--teacher-labels names {len(named)} labels, expected one for each of the {inventory.num_labels} rows of "
            f"the head of {module.source}"
        )
    if module.labels and module.labels != named:
        raise PlanError(
            f"{module.source} names its labels {', '.join(module.labels)}, --teacher-labels says {', '.join(named)}; "
            "leave it out"
        )
    return named


def plan_task_head(
    module: Module,
    inventory: Inventory,
    teacher: Pretrained,
    student: Pretrained,
    teacher_sites: Mapping[Place, SiteShape],
    student_sites: Mapping[Place, SiteShape],
    names: tuple[str, ...],
    labels: Sequence[str] | None,
) -> TaskHeadPlan:
    """Match the heads of the two models.

    Args:
        module: the teacher's module.
        inventory: the same, taken apart.
        teacher: the model it was trained on.
        student: the model it goes to.
        teacher_sites: the teacher's sites.
        student_sites: the student's sites.
        names: the teacher's label names in the order of its rows; empty where they are not known.
        labels: the student's label names in the order of its rows; None for the teacher's, as they are.
    """
    if module.head_is_random:
        return TaskHeadPlan(reason="an earlier port drew the module's at random")
    head_t = teacher.family.task_heads.get(inventory.head_class)
    head_s = student.family.task_heads.get(inventory.head_class)
    if head_t is None or head_s is None:
        return TaskHeadPlan(reason="this task type has no head that regraft knows")
    if _form(head_t) != _form(head_s):
        return TaskHeadPlan(reason=f"the models' heads differ: {_describe(head_t)} and {_describe(head_s)}")
    if names and len(names) != inventory.num_labels:
        return TaskHeadPlan(reason=f"the module names {len(names)} labels for a head of {inventory.num_labels} rows")
    pair = SpacePair(depth(student_sites) - 1, depth(teacher_sites) - 1, head_s.reads)
    d_s = space_width(student_sites, pair.student_layer, pair.name)
    d_t = space_width(teacher_sites, pair.teacher_layer, pair.name)
    if not d_s or not d_t:
        return TaskHeadPlan(reason=f"a model has no {head_s.reads.replace('_', ' ')} vector, which the head reads")
    if len(head_s.linears) > 1 and d_s != d_t:
        return TaskHeadPlan(
            reason=f"the head has a hidden layer of its own, {d_t} wide in the teacher and {d_s} in the student"
        )
    if labels and not names and len(labels) == inventory.num_labels:
        return TaskHeadPlan(
            reason="it does not name its labels, so nothing says which row is which of --labels",
            remedy="name them in the order of its rows (--teacher-labels)",
        )
    if labels is not None and sorted(labels) != sorted(names):
        known = ", ".join(names) or "not known"
        return TaskHeadPlan(
            reason=f"the label sets do not agree: the teacher's are {known}, the student's {', '.join(labels)}"
        )
    rows = None
    if labels is not None and list(labels) != list(names):
        rows = tuple(names.index(name) for name in labels)
    parts = {}
    for number, (path_t, path_s) in enumerate(zip(head_t.linears, head_s.linears, strict=True), start=1):
        its_rows = rows if number == len(head_s.linears) else None
        weight, bias = (f"{PREFIX}{path_t}.{leaf}" for leaf in ("weight", "bias"))
        if weight not in inventory.head:
            return TaskHeadPlan(reason=f"the module holds no {path_t}")
        has_bias = bias in inventory.head
        # Only the first layer reads the model; what it says is as wide in the student.
        via = Via(pair, pair, reads=True, has_bias=has_bias) if number == 1 else None
        parts[f"{PREFIX}{path_s}.weight"] = Part(weight, 1.0, (None, via), rows=its_rows)
        if has_bias:
            fold = Fold(weight, pair) if number == 1 else None
            parts[f"{PREFIX}{path_s}.bias"] = Part(bias, 1.0, (None,), fold, its_rows)
    for path_t, path_s in zip(head_t.norms, head_s.norms, strict=True):
        for leaf in ("weight", "bias"):
            if f"{PREFIX}{path_t}.{leaf}" in inventory.head:
                parts[f"{PREFIX}{path_s}.{leaf}"] = Part(f"{PREFIX}{path_t}.{leaf}", 1.0, (None,))
    return TaskHeadPlan(parts, {pair: (d_s, d_t)})


def _form(head: TaskHead) -> tuple[object, ...]:
    return len(head.linears), len(head.norms), head.activation, head.reads


def _describe(head: TaskHead) -> str:
    layers = "one linear layer" if len(head.linears) == 1 else f"{len(head.linears)} linear layers ({head.activation})"
    return f"{layers} on the {head.reads.replace('_', ' ')} vector"
