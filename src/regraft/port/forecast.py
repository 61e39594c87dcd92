"""Will it work? How much of what a module computes from the teacher it can still compute from the student.

1: the student lets the module see all that the teacher's sees. 0: nothing better than its mean. In closed form from
held-out moments: no model runs, nothing is trained. What the module then writes, and whether that helps, is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..alignment.maps import Assignment, Linear, Map
from ..alignment.moments import Moments, SplitMoments
from ..alignment.scores import missed_scatter
from ..models.sites import SpacePair
from .parts import Via
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


def fidelity(
    plan: Plan, tensors: Mapping[str, Tensor], maps: Mapping[SpacePair, Map], moments: Mapping[SpacePair, SplitMoments]
) -> list[Fidelity]:
    """Work out, for each place of the student's module, how much of what it reads it keeps.

    With T what the place computes from h_t (LoRA: the product of B and A; a bottleneck: its down projection; a task
    head: its first layer), C the covariance of h_t and E the second moments of what the map misses of it,
    h_t - R h_s - b, both held out: 1 - tr(T E T') / tr(T C T').

    Args:
        plan: says what each tensor is made of.
        tensors: the teacher's module.
        maps: one per pair of spaces in ``plan.widths``.
        moments: what was sampled, with those of ``plan.reads``.
    """
    targets = {target.key: target for target in plan.targets}
    places = []
    for target in plan.targets:
        if not target.reads:
            continue
        behind = [tensors[part.tensor].double() for part in targets[target.into].parts] if target.into else None
        shares = []
        for number, (part, via) in enumerate(target.reads):
            weight = tensors[part.tensor].double()
            # G'G where another weight G follows, so that nothing wider than the module is multiplied.
            gram = torch.eye(len(weight), dtype=torch.float64) if behind is None else behind[number].T @ behind[number]
            shares.append((part.weight, _share(weight, gram, via, maps[via.pair], moments.get(via.home))))
        layer, site = target.place or (None, "head")
        names = [targets[target.into].name, target.name] if target.into else [target.name]
        name = " @ ".join(name.removesuffix(".weight") for name in names)
        places.append(Fidelity(layer, site, name, _mean(shares)))
    return places


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


def _share(weight: Tensor, gram: Tensor, via: Via, acting: Map, split: SplitMoments | None) -> float | None:
    """Give 1 - tr(G T E T' G') / tr(G T C T' G'), with T (k, d_t) and G'G (k, k)."""
    if split is None or not split.held_out.full:
        return None
    moments: Moments = split.held_out
    linear = Linear.of(acting) if isinstance(acting, Assignment) else acting
    linear = linear if via.has_bias else linear.without_offset()
    varies = weight @ moments.scatter_t @ weight.T
    missed = missed_scatter(moments, linear.reads, linear.offset, weight)
    # tr(G X G') = tr(X G'G).
    total = float((varies * gram).sum())
    # A sum of squares, which rounding may leave below 0.
    return 1 - max(0.0, float((missed * gram).sum())) / total if total > 0 else None


def _mean(shares: Sequence[tuple[float, float | None]]) -> float | None:
    known = [(weight, share) for weight, share in shares if share is not None]
    return sum(weight * share for weight, share in known) / sum(weight for weight, _ in known) if known else None
