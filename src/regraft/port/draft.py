"""A plan in the making: each tensor of the student is planned, or the reason why not is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..alignment.methods import Method
from ..errors import PlanError
from ..models.pretrained import Pretrained
from ..models.sites import Place, SiteShape, SpacePair, site_of, space_width, stack_of
from ..modules.axes import Convention, Reads, Role
from ..modules.config import PREFIX
from ..modules.inventory import Holding, Inventory
from ..modules.module import Module
from ..modules.peft_types import PEFT_TYPES, shape_at
from .fused import Fused
from .layers import Group, Share
from .limits import shared_refused, widths_refused
from .parts import Action, Fold, Part, Target, Via, copied_action
from .task_head import TaskHeadPlan


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
    advice: str
    targets: list[Target] = field(default_factory=list)
    holdings: dict[Place, Holding] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    widths: dict[SpacePair, tuple[int, int]] = field(default_factory=dict)
    fused: dict[SpacePair, Fused] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: set[SpacePair] = field(default_factory=set)
    shared: tuple[str, ...] = ()

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
        shapes = [self.teacher_sites[share.layer, site] for share in group]
        if unfit := widths_refused(first, place, self.student_sites[place], shapes, self.advice):
            self.refuse(unfit)
        for role, shape in first.shapes.items():
            parts = tuple(self._part(role, place, *pair) for pair in zip(group, present, strict=True))
            site_shape = self.student_sites[place]
            path = f"{PREFIX}{site_shape.path}."
            expected, into = shape_at(role, shape, site_shape), path + role.into if role.into else ""
            key, action = path + role.suffix, "refused" if unfit else self._action(parts)
            self.targets.append(
                Target(key, expected, action, role.suffix, place, parts, into, role.scaled, role.neutral)
            )

    def add_shared(self, module: Module) -> None:
        """Plan the tensors that all sites share."""
        self.shared = tuple(role.suffix for role in PEFT_TYPES[module.peft_type].shared)
        holdings = (self.inventory.holdings, self.holdings)
        if self.holdings and (why := shared_refused(module, self.teacher_sites, self.student_sites, *holdings)):
            self.refuse(why)
        for key in self.inventory.shared:
            shape, part = tuple(module.tensors[key].shape), Part(key, 1.0, (None,))
            self.targets.append(Target(key, shape, "copied", key, parts=(part,), shared=True))

    def _action(self, parts: tuple[Part, ...]) -> Action:
        pairs = {pair for part in parts for pair in part.pairs}
        if self.refused & pairs:
            return "refused"
        folded = self.method.kind == "linear" and any(part.fold for part in parts)
        if folded or (pairs and not self.method.identity):
            return "mapped"
        return copied_action(parts)

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
                    f"expected the same without a map; {self.advice}"
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
            self._add_head_spaces(head.widths)
        for key, shape in needed.items():
            parts = () if fresh else (head.parts[key],)
            self.targets.append(
                Target(key, shape, self._action(parts) if parts else "fresh", key.removeprefix(PREFIX), None, parts)
            )

    def _add_head_spaces(self, widths: Mapping[SpacePair, tuple[int, int]]) -> None:
        self.widths |= widths
        for pair, (d_s, d_t) in widths.items():
            if self.method.identity and d_s != d_t:
                self.refused.add(pair)
                self.refuse(
                    f"the task head reads {d_t} numbers in {self.teacher.name} ({pair.name}) and {d_s} in "
                    f"{self.student.name}, expected the same without a map; {self.advice}"
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

    def check_runs(self, base_model_prefix: str) -> None:
        """Refuse to fit in sequence what cannot be put in place in the bare teacher."""
        inside = f"{PREFIX}{base_model_prefix}." if self.inventory.head_class else PREFIX
        for key in self.inventory.refused:
            if key.startswith(inside):
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
        """Prefixes of the keys on sites that take something over, and keys of what these share."""
        return (*(f"{PREFIX}{self.student_sites[place].path}." for place in self.holdings), *self.shared)

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
