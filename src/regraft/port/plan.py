"""Who gets what: every tensor of the teacher's module and every tensor the student needs, before any weight is read.

`transfer` executes a plan and nothing else, so what ``regraft plan`` prints is what will happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..alignment.methods import Method, method_named
from ..errors import PlanError
from ..models.pretrained import Pretrained
from ..models.sites import (
    Place,
    SiteShape,
    SpacePair,
    attention_heads,
    find_sites,
    site_of,
    space_rank,
    space_width,
    stack_of,
)
from ..modules.config import PREFIX, expected_tensors
from ..modules.inventory import Holding, Inventory, check_fits, take_inventory
from ..modules.module import Module
from ..modules.peft_types import Convention, Reads, Role, shape_at
from .advice import loss_refused
from .fused import Fused
from .layers import Group, Share, match_stacks
from .options import PortOptions
from .parts import Action, Fold, Part, Target, Via
from .student import student_config
from .task_head import TaskHeadPlan, labels_of_rows, plan_task_head


@dataclass(frozen=True)
class Plan:
    """A port, ready to be executed.

    Attributes:
        teacher: name of the teacher.
        student: name of the student.
        config: the PEFT configuration of the student's module.
        groups: per stack, and layer of the student in it, its shares of teacher layers.
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
        actions = {target.action for target in self.targets if target.place is None}
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
    teacher_sites = find_sites(teacher.skeleton(inventory.head_class, inventory.num_labels), teacher.family)
    check_fits(module, inventory, teacher_sites, teacher.name)
    skeleton = student.skeleton(inventory.head_class, len(labels) if labels else inventory.num_labels)
    student_sites = find_sites(skeleton, student.family)
    method = method_named(str(options.align))
    # Without a map every axis stays in the space it lives in.
    convention: Convention = "measured" if method.identity else options.spaces or "measured"
    draft = Draft(module.source, inventory, teacher, student, teacher_sites, student_sites, method, convention)
    groups = match_stacks(options.layers, teacher_sites, student_sites)
    draft.add_layers(groups)
    config = student_config(module.config, student, skeleton, student_sites, draft.holdings, inventory.head_class)
    head = plan_task_head(module, inventory, teacher, student, teacher_sites, student_sites, names, labels)
    expected = expected_tensors(config, skeleton)
    draft.add_head(head, options.head, expected, skeleton.base_model_prefix)
    draft.check(expected)
    lost = {**inventory.refused, **draft.left}
    if lost and not options.drop:
        draft.refuse(loss_refused(module.source, lost))
    if options.sequential:
        draft.check_runs(inventory.refused)
    return Plan(
        teacher.name,
        student.name,
        config,
        groups,
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


@dataclass
class Draft:
    """A plan in the making."""

    source: str
    inventory: Inventory
    teacher: Pretrained
    student: Pretrained
    teacher_sites: Mapping[Place, SiteShape]
    student_sites: Mapping[Place, SiteShape]
    method: Method
    spaces: Convention
    targets: list[Target] = field(default_factory=list)
    holdings: dict[Place, Holding] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    widths: dict[SpacePair, tuple[int, int]] = field(default_factory=dict)
    fused: dict[SpacePair, Fused] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: set[SpacePair] = field(default_factory=set)

    def add_layers(self, groups: Mapping[str, Sequence[Group]]) -> None:
        """Plan every site of every student layer that takes something over.

        Raises:
            PlanError: none does.
        """
        for (_, site), holding in self.inventory.holdings.items():
            if stack_of(site) not in groups:
                self.left |= dict.fromkeys(holding.tensors.values(), f"{self.student.name} has no {stack_of(site)}")
        for stack, its_groups in groups.items():
            sites = [site for site in self.teacher.family.places if stack_of(site) == stack]
            for layer, group in enumerate(its_groups):
                for site in sites:
                    sources = [self.inventory.holdings.get((share.layer, site)) for share in group]
                    if any(sources):
                        self.add((layer, site), group, sources)
        if not self.targets:
            reasons = self.problems or sorted(set(self.left.values())) or ["its layers are not taken over"]
            raise PlanError(f"nothing of {self.source} lands on {self.student.name}: {'; '.join(reasons)}")

    def add(self, place: Place, group: Group, sources: Sequence[Holding | None]) -> None:
        """Plan one site of one student layer, made of the group's layers."""
        site = place[1]
        present = [holding for holding in sources if holding is not None]
        if place not in self.student_sites:
            self.left |= {
                key: f"{self.student.name} has no {site}" for holding in present for key in holding.tensors.values()
            }
            return
        if self.method.needs_moments and self.teacher.family.reads(site) != "texts":
            inputs = self.teacher.family.reads(site)
            self.refuse(f"{site} reads {inputs}, which cannot be sampled; copy the module (--align none)")
        first = present[0]
        if len(present) < len(group) or any(
            (holding.shapes, holding.alpha) != (first.shapes, first.alpha) for holding in present
        ):
            layers = ", ".join(str(share.layer) for share in group)
            self.refuse(
                f"layers {layers} of the module differ at {site} in rank, alpha or presence and cannot be averaged; "
                "use --layers skip"
            )
            return
        self.holdings[place] = first
        for role, shape in first.shapes.items():
            parts = tuple(self._part(role, place, *pair) for pair in zip(group, present, strict=True))
            site_shape = self.student_sites[place]
            path = f"{PREFIX}{site_shape.path}."
            expected, into = shape_at(role, shape, site_shape), path + role.into if role.into else ""
            self.targets.append(
                Target(path + role.suffix, expected, self._action(parts), role.suffix, place, parts, into)
            )

    def _action(self, parts: tuple[Part, ...]) -> Action:
        pairs = {pair for part in parts for pair in part.pairs}
        if self.refused & pairs:
            return "refused"
        folded = self.method.kind == "linear" and any(part.fold for part in parts)
        if folded or (pairs and not self.method.identity):
            return "mapped"
        if parts[0].rows is not None:
            return "reordered"
        return "copied" if len(parts) == 1 and parts[0].weight == 1 else "averaged"

    def _part(self, role: Role, place: Place, share: Share, holding: Holding) -> Part:
        biased = {other.beside for other in holding.tensors}
        vias = self._vias(role, place, share.layer, role.suffix in biased)
        fold = None
        for weight, key in holding.tensors.items():
            if weight.suffix == role.beside and (via := self._vias(weight, place, share.layer, has_bias=True)[-1]):
                fold = Fold(key, via.pair)
        return Part(holding.tensors[role], share.weight, vias, fold)

    def _vias(self, role: Role, place: Place, teacher_layer: int, has_bias: bool) -> tuple[Via | None, ...]:
        """Name the map that acts on each axis, note its widths, refuse what no map can do."""
        layer, site = place
        vias: list[Via | None] = []
        for axis, lives, mapped in zip(
            role.axes, role.spaces(site, "measured"), role.spaces(site, self.spaces), strict=True
        ):
            if lives is None or mapped is None:
                vias.append(None)
                continue
            pair = SpacePair(layer, teacher_layer, mapped)
            home = SpacePair(layer, teacher_layer, lives)
            d_s, d_t = self._widths(home)
            reads = isinstance(axis, Reads)
            vias.append(Via(pair, home, reads, reads and has_bias))
            if pair == home and site_of(site).parts and not reads:
                self.fused[pair] = Fused.of(pair, self.student_sites[place], self.teacher_sites[teacher_layer, site])
                self.widths |= {part: self._widths(part) for part in self.fused[pair].parts}
                unequal = any(d_s != d_t for d_s, d_t in map(self._widths, self.fused[pair].parts))
            else:
                self.widths[pair] = self._widths(pair)
                unequal = d_s != d_t
            if self.method.identity and unequal:
                self.refused.add(pair)
                self.refuse(
                    f"{site} is {d_t} wide in {self.teacher.name} ({lives}) and {d_s} in {self.student.name}, "
                    "expected the same without a map; use --align auto with --texts or --moments"
                )
            elif pair != home and self.widths[pair] != (d_s, d_t):
                self.refused.add(pair)
                self.refuse(
                    f"{role.suffix} on {site} lives in {lives} ({d_t} -> {d_s}), which the released convention "
                    f"maps like {mapped}, of another width; use --spaces measured"
                )
        return tuple(vias)

    def add_head(
        self, head: TaskHeadPlan, origin: str | None, expected: Mapping[str, tuple[int, ...]], base_model_prefix: str
    ) -> None:
        """Plan the task head: of what is not planned yet, the only thing that may be missing from the module."""
        planned = {target.key for target in self.targets}
        inside = (f"{PREFIX}{base_model_prefix}.", *self._on_sites())
        needed = {key: shape for key, shape in expected.items() if key not in planned and not key.startswith(inside)}
        if not needed or self.inventory.head_class not in self.student.family.task_heads:
            if origin == "teacher":
                self.refuse(f"{self.source} has no task head that could be ported; leave out --head")
            return
        fresh = origin == "fresh" or not needed.keys() <= head.parts.keys()
        if fresh and (origin == "teacher" or (head.remedy and not origin)):
            remedy = f"{head.remedy}, or " if head.remedy else ""
            self.refuse(f"the head of {self.source} cannot be ported: {head.reason}; {remedy}use --head fresh")
        if not fresh:
            self.widths |= head.widths
        for key, shape in needed.items():
            parts = () if fresh else (head.parts[key],)
            self.targets.append(
                Target(key, shape, self._action(parts) if parts else "fresh", key.removeprefix(PREFIX), None, parts)
            )

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Compare what is planned with what PEFT expects."""
        planned = {target.key: target for target in self.targets}
        for key, shape in expected.items():
            name = key.removeprefix(PREFIX)
            if key in planned:
                if planned[key].shape != shape:  # a mistake in a family's record
                    self.refuse(f"{key} would have shape {planned[key].shape}, PEFT expects {shape}")
            elif key.startswith(self._on_sites()):
                self.refuse(f"{self.source} has nothing for {key}, which PEFT expects; is the file complete?")
            else:
                self.refuse(
                    f"{self.source} holds {name} whole (modules_to_save), a pretrained part of the model that no map "
                    "takes to the student; train the module without it"
                )
        for key in planned.keys() - expected.keys():
            self.refuse(f"{self.source} leads to {key}, which its own configuration does not provide for")

    def check_runs(self, unknown: Mapping[str, str]) -> None:
        """Refuse to fit in sequence what cannot be put in place in the bare teacher."""
        skeleton = self.teacher.skeleton(self.inventory.head_class)
        bare = f"{skeleton.base_model_prefix}." if self.inventory.head_class else ""
        for key in unknown:
            if key.startswith(f"{PREFIX}{bare}"):
                self.refuse(
                    f"{self.source} changes what the teacher computes with {key}, which regraft cannot put in place to "
                    "fit in sequence; fit --apart"
                )

    def left_behind(self, why_fresh: str) -> dict[str, str]:
        """Say of every teacher tensor that nothing is made of why it goes nowhere."""
        left = {
            key: "the student's layers take over other layers"
            for holding in self.inventory.holdings.values()
            for key in holding.tensors.values()
        }
        why = f" ({why_fresh})" if why_fresh else ""
        left |= dict.fromkeys(self.inventory.head, f"task head: the student's is freshly initialised{why}")
        left |= {**self.inventory.refused, **self.left}
        used = {part.tensor for target in self.targets for part in target.parts}
        return {key: reason for key, reason in left.items() if key not in used}

    def _on_sites(self) -> tuple[str, ...]:
        return tuple(f"{PREFIX}{self.student_sites[place].path}." for place in self.holdings)

    def refuse(self, problem: str) -> None:
        """Note why the port is refused."""
        if problem not in self.problems:
            self.problems.append(problem)

    def across(self, size: Callable[[Mapping[Place, SiteShape], int, str], int], pair: SpacePair) -> tuple[int, int]:
        """Give a size of the student's space and of the teacher's."""
        return (
            size(self.student_sites, pair.student_layer, pair.name),
            size(self.teacher_sites, pair.teacher_layer, pair.name),
        )

    def _widths(self, pair: SpacePair) -> tuple[int, int]:
        return self.across(space_width, pair)
