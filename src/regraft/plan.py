"""Who gets what: every tensor of the teacher's module and every tensor the student needs, before any weight is read.

`transfer` executes a plan and nothing else, so what ``regraft plan`` prints is what will happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checkpoint import Module
from .draft import Draft
from .errors import PlanError, unknown_choice
from .heads import HeadPlan, plan_head
from .inventory import check_fits, take_inventory
from .layers import Group, match_layers
from .models.families import HEADS
from .models.pretrained import BaseModel
from .models.sites import Space, depth, find_sites, heads_of
from .parts import Target
from .roles import CONVENTIONS, Convention
from .student import expected_tensors, student_config


@dataclass(frozen=True)
class Plan:
    """A port, ready to be executed.

    Attributes:
        teacher: name of the teacher.
        student: name of the student.
        config: the PEFT configuration of the student's module.
        groups: per student layer its shares of teacher layers.
        labels: names of the student's labels in the order of its head's rows, empty where they are not known.
        targets: every tensor that the student needs.
        left: teacher tensors that go nowhere -> why.
        widths: the pairs of spaces that need a map -> (d_s, d_t).
        heads: name of a space that attention heads make up -> how many the student has, and the teacher.
        problems: why the port is refused; empty where it is not.
    """

    teacher: str
    student: str
    config: Mapping[str, Any]
    groups: tuple[Group, ...]
    labels: tuple[str, ...]
    targets: tuple[Target, ...]
    left: Mapping[str, str]
    widths: Mapping[Space, tuple[int, int]]
    heads: Mapping[str, tuple[int, int]]
    problems: tuple[str, ...]

    @property
    def head(self) -> str | None:
        """Where the task head comes from, ``"teacher"`` or ``"fresh"``; None for a module without one."""
        actions = {target.action for target in self.targets if target.place is None}
        return None if not actions else "fresh" if "fresh" in actions else "teacher"

    def check(self) -> None:
        """Raise the first problem.

        Raises:
            PlanError: the port is refused.
        """
        if self.problems:
            raise PlanError(self.problems[0])


def make_plan(
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int] = "skip",
    align: str = "none",
    spaces: Convention = "released",
    head: str | None = None,
    labels: Sequence[str] | None = None,
) -> Plan:
    """Plan a port from configurations and shapes alone.

    Args:
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        layers: a key of `layers.MATCHINGS`, or one teacher layer per student layer.
        align: name of the alignment method; with ``"none"`` widths have to agree.
        spaces: ``"released"`` or ``"measured"``, see `roles.Role.spaces`.
        head: ``"teacher"`` to port the task head, ``"fresh"`` to initialise the student's; by default the teacher's
            wherever it can be ported and the label sets agree.
        labels: names of the student's labels in the order of its head's rows; by default the teacher's.

    Raises:
        PlanError: an unknown choice, or layers that cannot be matched.
        ModuleFileError: the module cannot be ported at all, or does not fit its teacher.
    """
    if spaces not in CONVENTIONS:
        raise PlanError(unknown_choice("spaces", spaces, CONVENTIONS))
    if head is not None and head not in HEADS:
        raise PlanError(unknown_choice("head", head, HEADS))
    if labels is not None and len(set(labels)) < len(labels):
        raise PlanError(f"the labels {', '.join(labels)} name one twice, expected each once (--labels)")
    inventory = take_inventory(module, teacher.family)
    teacher_sites = find_sites(teacher.skeleton(inventory.head_class, inventory.num_labels), teacher.family)
    check_fits(module, inventory, teacher_sites, teacher.name)
    skeleton = student.skeleton(inventory.head_class, len(labels) if labels else inventory.num_labels)
    student_sites = find_sites(skeleton, student.family)
    groups = match_layers(layers, depth(teacher_sites), depth(student_sites))

    # Without a map every axis stays in the space it lives in.
    convention: Convention = "measured" if align == "none" else spaces
    draft = Draft(module.source, inventory, teacher, student, teacher_sites, student_sites, align, convention)
    for layer, group in enumerate(groups):
        for site in teacher.family.sites:
            sources = [inventory.held.get((share.layer, site)) for share in group]
            if any(sources):
                draft.add((layer, site), group, sources)
    if not draft.targets:
        reasons = draft.problems or sorted(set(draft.left.values())) or ["its layers are not taken over"]
        raise PlanError(f"nothing of {module.source} lands on {student.name}: {'; '.join(reasons)}")

    config = student_config(
        module.config, student.name, skeleton, student.family, student_sites, draft.held, inventory.head_class
    )
    if module.head_is_random:
        ported = HeadPlan({}, {}, "an earlier port drew the module's at random")
    else:
        ported = plan_head(inventory, teacher, student, teacher_sites, student_sites, module.labels, labels)
    expected = expected_tensors(config, skeleton)
    draft.add_head(ported, head, expected, skeleton.base_model_prefix)
    draft.check(expected)
    left = {
        key: "the student's layers take over other layers"
        for held in inventory.held.values()
        for key in held.tensors.values()
    }
    why = f" ({ported.reason})" if ported.reason else ""
    left |= dict.fromkeys(inventory.head, f"task head: the student's is freshly initialised{why}")
    left |= {**inventory.refused, **draft.left}
    used = {part.tensor for target in draft.targets for part in target.parts}
    return Plan(
        teacher.name,
        student.name,
        config,
        groups,
        tuple(labels or module.labels) if inventory.head_class in student.family.heads else (),
        tuple(draft.targets),
        {key: reason for key, reason in left.items() if key not in used},
        draft.widths,
        heads_of(student, teacher),
        tuple(draft.problems),
    )
