"""Who gets what: every tensor of the teacher's module and every tensor the student needs, before any weight is read.

`transfer` executes a plan and nothing else, so what ``regraft plan`` prints is what will happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..alignment.methods import method_named
from ..errors import PlanError
from ..models.pretrained import Pretrained
from ..models.sites import SpacePair, attention_heads, depth, find_sites, space_rank, stack_of
from ..modules.axes import Convention
from ..modules.inventory import check_fits, take_inventory
from ..modules.module import Module
from .advice import loss_refused
from .draft import Draft
from .fused import Fused
from .layers import Group, match_stacks
from .limits import limits_refused, width_advice
from .options import PortOptions
from .parts import Target
from .student import expected_of_student, student_config
from .task_head import labels_of_rows, plan_task_head


@dataclass(frozen=True)
class Plan:
    """A port, ready to be executed.

    Attributes:
        teacher: name of the teacher.
        student: name of the student.
        config: the PEFT configuration of the student's module.
        groups: per stack, and layer of the student in it, its shares of teacher layers.
        teacher_layers: stack -> how many layers the teacher has there.
        labels: names of the student's labels in the order of its head's rows, empty where they are not known.
        targets: every tensor that the student needs.
        left: teacher tensors that go nowhere -> why.
        lost: those of them without which the module is not what was trained, wherever it goes.
        widths: the pairs of spaces that need a map -> (d_s, d_t).
        ranks: the same -> how many dimensions the student's activations and the teacher's span.
        fused: the pairs of spaces of fused projections -> the pairs of their parts, which are mapped.
        attention_heads: name of a space that they make up -> how many the student has, and the teacher.
        problems: why the port is refused; empty where it is not.
    """

    teacher: str
    student: str
    config: Mapping[str, Any]
    groups: Mapping[str, tuple[Group, ...]]
    teacher_layers: Mapping[str, int]
    labels: tuple[str, ...]
    targets: tuple[Target, ...]
    left: Mapping[str, str]
    lost: tuple[str, ...]
    widths: Mapping[SpacePair, tuple[int, int]]
    ranks: Mapping[SpacePair, tuple[int, int]]
    fused: Mapping[SpacePair, Fused]
    attention_heads: Mapping[str, tuple[int, int]]
    problems: tuple[str, ...]

    @property
    def head(self) -> str | None:
        """Where the task head comes from, ``"teacher"`` or ``"fresh"``; None for a module without one."""
        actions = {target.action for target in self.targets if target.place is None and not target.shared}
        return None if not actions else "fresh" if "fresh" in actions else "teacher"

    @property
    def silent(self) -> tuple[tuple[str, int], ...]:
        """The student's layers that get nothing, as (stack, layer)."""
        served = {(stack_of(target.place[1]), target.place[0]) for target in self.targets if target.place is not None}
        layers = ((stack, layer) for stack, groups in self.groups.items() for layer in range(len(groups)))
        return tuple(at for at in layers if at not in served)

    @property
    def reads(self) -> set[SpacePair]:
        """The pairs of spaces that the module reads: those whose moments a forecast needs."""
        return {via.home for target in self.targets for _, via in target.reads}

    @property
    def writes(self) -> set[SpacePair]:
        """The pairs of spaces whose maps it writes through."""
        vias = (via for target in self.targets for part in target.parts for via in part.vias)
        pairs = {via.pair for via in vias if via is not None and not via.reads}
        return pairs.union(*(one.parts for pair, one in self.fused.items() if pair in pairs))

    def describe(self) -> dict[str, Any]:
        """Say who gets what in words and numbers: what ``regraft.json`` says of a port before anything is fitted."""
        return {
            "teacher": self.teacher,
            "student": self.student,
            "teacher_layers": dict(self.teacher_layers),
            "groups": {
                stack: [[asdict(share) for share in group] for group in own] for stack, own in self.groups.items()
            },
            "head": self.head,
            "tensors": {target.key: target.describe() for target in self.targets},
            "left": dict(self.left),
            "lost": list(self.lost),
        }

    def needs(self, target: Target) -> set[SpacePair]:
        """Name the pairs of spaces without whose maps a tensor cannot be made."""
        return {part for pair in target.pairs for part in (self.fused[pair].parts if pair in self.fused else (pair,))}

    def check(self) -> None:
        """Raise the first problem.

        Raises:
            PlanError: the port is refused.
        """
        if self.problems:
            raise PlanError(self.problems[0])


def make_plan(module: Module, teacher: Pretrained, student: Pretrained, options: PortOptions) -> Plan:
    """Plan a port from configurations and shapes alone.

    Args:
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        options: how, settled. Without an alignment widths have to agree. The task head is by default the teacher's,
            wherever it can be ported and the label sets agree.

    Raises:
        PlanError: an unknown choice, or layers that cannot be matched.
        ModuleFileError: the module cannot be ported at all, or does not fit its teacher.
    """
    labels = options.labels
    inventory = take_inventory(module, teacher.family)
    names = labels_of_rows(module, inventory, teacher, student, options)
    taught = teacher.skeleton(inventory.head_class, inventory.num_labels)
    teacher_sites = find_sites(taught, teacher.family)
    check_fits(module, inventory, teacher_sites, teacher.name)
    skeleton = student.skeleton(inventory.head_class, len(labels) if labels else inventory.num_labels)
    student_sites = find_sites(skeleton, student.family)
    method = method_named(str(options.align))
    # Without a map every axis stays in the space it lives in.
    convention: Convention = "measured" if method.identity else options.spaces or "measured"
    sites, advice = (teacher_sites, student_sites), width_advice(module)
    draft = Draft(module.source, inventory, teacher, student, *sites, method, convention, advice)
    groups = match_stacks(options.layers, teacher_sites, student_sites)
    for problem in limits_refused(module, method, groups, options):
        draft.refuse(problem)
    draft.add_layers(groups)
    draft.add_shared(module)
    config = student_config(module.config, student, skeleton, student_sites, draft.holdings, inventory.head_class)
    head = plan_task_head(module, inventory, teacher, student, teacher_sites, student_sites, names, labels)
    expected = expected_of_student(config, skeleton)
    draft.add_head(head, options.head, expected, skeleton.base_model_prefix)
    draft.check(expected)
    lost = {**inventory.refused, **draft.left}
    if lost and not options.drop:
        draft.refuse(loss_refused(module.source, lost))
    if options.sequential:
        draft.check_runs(taught.base_model_prefix)
    return Plan(
        teacher.name,
        student.name,
        config,
        groups,
        {stack: depth(teacher_sites, stack) for stack in groups},
        tuple(labels or names) if inventory.head_class in student.family.task_heads else (),
        tuple(draft.targets),
        draft.left_behind(head.reason),
        tuple(sorted(lost)),
        draft.widths,
        {pair: draft.across(space_rank, pair) for pair in draft.widths},
        draft.fused,
        attention_heads(student, teacher),
        tuple(draft.problems),
    )
