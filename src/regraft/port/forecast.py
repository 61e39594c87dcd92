"""Will it work? How much of what a module computes from the teacher it can still compute from the student.

1: the student lets the module see all that the teacher's sees. 0: nothing better than its mean. In closed form from
held-out moments: no model runs, nothing is trained. What the module then writes, and whether that helps, is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..alignment.maps import Assignment, Linear, Map
from ..alignment.moments import Moments, SplitMoments
from ..alignment.scores import missed_scatter
from ..models.sites import Space
from ..modules.config import PREFIX
from ..modules.peft_types import Role, roles_of
from .parts import Part, Target, Via
from .plan import Plan

# From which expectation on a port is said to help.
LIKELY, POSSIBLE = 0.5, 0.2


@dataclass(frozen=True)
class Fidelity:
    """How much of what one place of a module reads the student provides.

    Attributes:
        layer: of the student; None for the task head.
        site: its name, ``"head"`` for the task head.
        name: of the weight that reads.
        r2: share of the variance of what it computes from the teacher's activations, on held-out tokens, that the
            ported one recovers from the student's; negative where its mean would be nearer; None where nothing varies
            or the moments lack covariances. Where layers are averaged, the mean over them by their weights.
    """

    layer: int | None
    site: str
    name: str
    r2: float | None


@dataclass(frozen=True)
class _Reading:
    """A weight that reads, and what acts on it.

    Attributes:
        weight: (k, d_t).
        gram: (k, k), G'G where another weight G follows with nothing between, else the identity.
        reads: the pair of spaces that it reads.
        via: the map that the port takes, which may have been fitted on other spaces (`roles.Reads.released`).
    """

    weight: Tensor
    gram: Tensor
    reads: Space
    via: Via


def fidelity(
    plan: Plan, tensors: Mapping[str, Tensor], maps: Mapping[Space, Map], moments: Mapping[Space, SplitMoments]
) -> list[Fidelity]:
    """Work out, for each place of the student's module, how much of what it reads it keeps.

    With T what the place computes from h_t (LoRA: the product of B and A; a bottleneck: its down projection; a task
    head: its first layer), C the covariance of h_t and E the second moments of what the map misses of it,
    h_t - R h_s - b, both held out: 1 - tr(T E T') / tr(T C T').

    Args:
        plan: says what each tensor is made of.
        tensors: the teacher's module.
        maps: one per pair of spaces in ``plan.widths``.
        moments: what was sampled, with the spaces that `spaces_read` names.
    """
    targets = {target.key: target for target in plan.targets}
    found = []
    for target, role in _reading(plan):
        shares = [
            (part.weight, _share(reading, maps[reading.via.space], moments.get(reading.reads)))
            for part, reading in _readings(target, role, targets, tensors)
        ]
        layer, site = target.place or (None, "head")
        found.append(Fidelity(layer, site, _name(target, role), _mean(shares)))
    return found


def spaces_read(plan: Plan) -> set[Space]:
    """Name the pairs of spaces that the module reads: those whose moments `fidelity` needs."""
    return {_space(target, role, via) for target, role in _reading(plan) for _, via in _vias(target)}


@dataclass(frozen=True)
class Forecast:
    """What is known of a port before any training.

    Attributes:
        places: how much of what the module reads it keeps, per place.
        module: the mean over places, each counted once; None: not known.
        head: the task head's; None without one.
        silent: whether nothing is ported that could help.
    """

    places: tuple[Fidelity, ...]
    module: float | None
    head: float | None
    silent: bool = False

    @staticmethod
    def of(places: Sequence[Fidelity], silent: bool = False) -> Forecast:
        """Sum up."""
        sites = [place.r2 for place in places if place.layer is not None and place.r2 is not None]
        heads = [place.r2 for place in places if place.layer is None]
        return Forecast(tuple(places), fmean(sites) if sites else None, heads[0] if heads else None, silent)

    @property
    def expected(self) -> dict[str, float | None]:
        """The two figures by name."""
        return {"module": self.module, "head": self.head}

    @property
    def verdict(self) -> str | None:
        """Whether the port will help, in a sentence, by the task head or, without one, the module; None: not known."""
        value = self.module if self.head is None else self.head
        if value is None or self.silent:
            return None
        if value >= LIKELY:
            return "This port is likely to help."
        if value >= POSSIBLE:
            return "This port may help."
        return "This port is unlikely to help; expect no more than a random start."


def _reading(plan: Plan) -> Iterator[tuple[Target, Role | None]]:
    """List the tensors that read, with their roles (None in a task head)."""
    for target in plan.targets:
        if _vias(target):
            yield target, None if target.place is None else _role(target, str(plan.config["peft_type"]))


def _vias(target: Target) -> list[tuple[Part, Via]]:
    """Give the maps of what a tensor reads, per part; what a weight reads is its last axis."""
    return [(part, via) for part in target.parts if (via := part.vias[-1]) is not None and via.reads]


def _role(target: Target, peft_type: str) -> Role:
    assert target.place is not None
    return next(role for role in roles_of(peft_type, target.place[1]) if target.key.endswith(f".{role.suffix}"))


def _space(target: Target, role: Role | None, via: Via) -> Space:
    if role is None or target.place is None:
        return via.space
    name = role.spaces(target.place[1], "measured")[-1]
    assert name is not None
    return Space(via.space.student_layer, via.space.teacher_layer, name)


def _name(target: Target, role: Role | None) -> str:
    own = target.key.removeprefix(PREFIX) if role is None else role.suffix
    return " @ ".join(name.removesuffix(".weight") for name in (role.into if role else "", own) if name)


def _readings(
    target: Target, role: Role | None, targets: Mapping[str, Target], tensors: Mapping[str, Tensor]
) -> Iterator[tuple[Part, _Reading]]:
    behind: list[Tensor | None] = [None] * len(target.parts)
    if role is not None and role.into:
        follower = targets[target.key.removesuffix(role.suffix) + role.into]
        behind = [tensors[part.tensor].double() for part in follower.parts]
    for (part, via), after in zip(_vias(target), behind, strict=True):
        weight = tensors[part.tensor].double()
        gram = torch.eye(len(weight), dtype=torch.float64) if after is None else after.T @ after
        yield part, _Reading(weight, gram, _space(target, role, via), via)


def _share(reading: _Reading, acting: Map, split: SplitMoments | None) -> float | None:
    if split is None or not split.held_out.full:
        return None
    moments: Moments = split.held_out
    linear = Linear.of(acting) if isinstance(acting, Assignment) else acting
    linear = linear if reading.via.has_bias else linear.without_offset()
    varies = reading.weight @ moments.scatter_t @ reading.weight.T
    missed = missed_scatter(moments, linear.reads, linear.offset, reading.weight)
    # tr(G X G') = tr(X G'G), so that nothing wider than the module is multiplied.
    total = float((varies * reading.gram).sum())
    # A sum of squares, which rounding may leave below 0.
    return 1 - max(0.0, float((missed * reading.gram).sum())) / total if total > 0 else None


def _mean(shares: Sequence[tuple[float, float | None]]) -> float | None:
    known = [(weight, share) for weight, share in shares if share is not None]
    return sum(weight * share for weight, share in known) / sum(weight for weight, _ in known) if known else None
