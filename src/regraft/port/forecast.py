"""Will it work? How much of what a module computes from the teacher it can still compute from the student.

1: the student lets the module see all that the teacher's sees. 0: nothing better than its mean. In closed form from
held-out moments: no model runs, nothing is trained. What the module then writes, and whether that helps, is not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..alignment.maps import Assignment, Linear, Map
from ..alignment.moments import Moments, SplitMoments
from ..alignment.scores import margin, missed_scatter
from ..models.sites import SpacePair
from .parts import Via
from .plan import Plan

# From which expectation on a port is said to help.
LIKELY, POSSIBLE = 0.5, 0.2
# A wider interval may reach from what is unlikely to help to what is likely to, so nothing is said.
WIDEST = LIKELY - POSSIBLE


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
        margin: half the width of its 95% interval, by the folds of held-out texts; None where these were not kept, or
            fewer than two texts held out.
    """

    layer: int | None
    site: str
    name: str
    r2: float | None
    margin: float | None = None


def fidelity(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    maps: Mapping[SpacePair, Map],
    moments: Mapping[SpacePair, SplitMoments],
    pairs: Collection[SpacePair] | None = None,
) -> list[Fidelity]:
    """Work out, for each place of the student's module, how much of what it reads it keeps.

    With T what the place computes from h_t (LoRA: the product of B and A; a bottleneck: its down projection; a task
    head: its first layer), C the covariance of h_t and E the second moments of what the map misses of it,
    h_t - R h_s - b, both held out: 1 - tr(T E T') / tr(T C T').

    Args:
        plan: says what each tensor is made of.
        tensors: the teacher's module.
        maps: one per pair of spaces in ``plan.widths``.
        moments: what was sampled, with those of the pairs that are read.
        pairs: leave out places that read none of these; by default none are left out.
    """
    targets = {target.key: target for target in plan.targets}
    places = []
    for target in plan.targets:
        homes = {via.home for _, via in target.reads}
        if not homes or (pairs is not None and homes.isdisjoint(pairs)):
            continue
        behind = [tensors[part.tensor].double() for part in targets[target.into].parts] if target.into else None
        reads = []
        for number, (part, via) in enumerate(target.reads):
            weight = tensors[part.tensor].double()
            # G'G where another weight G follows, so that nothing wider than the module is multiplied.
            gram = torch.eye(len(weight), dtype=torch.float64) if behind is None else behind[number].T @ behind[number]
            split = moments.get(via.home)
            if split is not None and split.held_out.full:
                reads.append(_Read.of(part.weight, weight, gram, via, maps[via.pair], split))
        layer, site = target.place or (None, "head")
        names = [targets[target.into].name, target.name] if target.into else [target.name]
        name = " @ ".join(name.removesuffix(".weight") for name in names)
        places.append(Fidelity(layer, site, name, _kept(reads), _margin(reads)))
    return places


@dataclass(frozen=True)
class Forecast:
    """What is known of a port before any training.

    Attributes:
        places: how much of what the module reads it keeps, per place.
        module: the mean over places, each counted once; None: not known.
        head: the task head's; None without one.
        silent: whether nothing is ported that could help.
        margin: half the width of the 95% interval of the head's or, without one, of the module's; None: not known.
        held_out_texts: how many texts it was judged on; None: not known.
    """

    places: tuple[Fidelity, ...]
    module: float | None
    head: float | None
    silent: bool = False
    margin: float | None = None
    held_out_texts: int | None = None

    @staticmethod
    def of(places: Sequence[Fidelity], silent: bool = False, held_out_texts: int | None = None) -> Forecast:
        """Sum up."""
        sites = [place for place in places if place.layer is not None and place.r2 is not None]
        heads = [place for place in places if place.layer is None]
        # A mean deviates no more than its terms do on average; the places with folds stand for all.
        margins = [place.margin for place in heads or sites if place.margin is not None]
        return Forecast(
            tuple(places),
            fmean(place.r2 for place in sites if place.r2 is not None) if sites else None,
            heads[0].r2 if heads else None,
            silent,
            fmean(margins) if margins else None,
            held_out_texts,
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the figure that the verdict goes by; None: not known."""
        figure = self._figure
        return None if figure is None or self.margin is None else (figure - self.margin, min(1.0, figure + self.margin))

    @property
    def expected(self) -> dict[str, Any]:
        """The two figures, and the interval of the one that the verdict goes by, by name."""
        return {"module": self.module, "head": self.head, "interval": self.interval and [*self.interval]}

    @property
    def verdict(self) -> str | None:
        """Whether the port will help, in a sentence, by the task head or, without one, the module; None: not known."""
        if self._figure is None or self.silent:
            return None
        if self.interval is None:
            return "No verdict: nothing tells how sure this is; give more texts, or sample the moments again."
        low, high = self.interval
        if high - low > WIDEST:
            whose = "module" if self.head is None else "head"
            texts = "" if self.held_out_texts is None else f"{self.held_out_texts} "
            return (
                f"No verdict: {texts}held-out texts leave the {whose}'s R2 between {low:.2f} and {high:.2f}; "
                "give more texts."
            )
        if low >= LIKELY:
            return "This port is likely to help."
        if low >= POSSIBLE:
            return "This port may help." if high < LIKELY else "This port may help, and perhaps is likely to."
        if high >= POSSIBLE:
            return "This port may help, or be no better than a random start; more texts would tell."
        return "This port is unlikely to help; expect no more than a random start."

    @property
    def _figure(self) -> float | None:
        return self.module if self.head is None else self.head


@dataclass(frozen=True)
class _Read:
    """What a place computes from one layer of the teacher, and what it makes of the student's: moments of both.

    Attributes:
        weight: of the layer among those that are averaged.
        gram: (k, k) G'G, with G what follows.
        held_out: of k dimensions each.
        folds: likewise.
    """

    weight: float
    gram: Tensor
    held_out: Moments
    folds: tuple[Moments, ...]

    @staticmethod
    def of(share: float, weight: Tensor, gram: Tensor, via: Via, acting: Map, split: SplitMoments) -> _Read:
        """Look through a weight, (k, d_t), and the map that it is ported by."""
        linear = Linear.of(acting) if isinstance(acting, Assignment) else acting
        linear = linear if via.has_bias else linear.without_offset()
        through = weight @ linear.reads, weight @ linear.offset, weight
        return _Read(share, gram, split.held_out.mapped(*through), tuple(fold.mapped(*through) for fold in split.folds))

    def kept(self, moments: Moments) -> float | None:
        """Give 1 - tr(G T E T' G') / tr(G T C T' G'); None where nothing varies."""
        # tr(G X G') = tr(X G'G).
        total = float((moments.scatter_t * self.gram).sum())
        # A sum of squares, which rounding may leave below 0.
        missed = max(0.0, float((missed_scatter(moments) * self.gram).sum()))
        return 1 - missed / total if total > 0 else None


def _kept(reads: Sequence[_Read]) -> float | None:
    return _mean([(read.weight, read.kept(read.held_out)) for read in reads])


def _margin(reads: Sequence[_Read]) -> float | None:
    """Give half the width of the interval of `_kept`, from leaving out each fold that holds texts."""
    without = []
    for number in range(min((len(read.folds) for read in reads), default=0)):
        if any(read.folds[number].n for read in reads):
            rest = [reduce(add, read.folds[:number] + read.folds[number + 1 :]) for read in reads]
            without.append(_mean([(read.weight, read.kept(one)) for read, one in zip(reads, rest, strict=True)]))
    return margin([share for share in without if share is not None])


def _mean(shares: Sequence[tuple[float, float | None]]) -> float | None:
    known = [(weight, share) for weight, share in shares if share is not None]
    return sum(weight * share for weight, share in known) / sum(weight for weight, _ in known) if known else None
