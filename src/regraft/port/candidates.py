"""What a port in sequence chooses from, and by what.

How well a map predicts activations says little of how well the module then works. So the body, what sits in the layers,
and the head are candidates apart: the body as it is, mapped or silent (scale 0), the head as it is or mapped to what
that body makes of the student. What decides is how often the ported module answers held-out texts as its teacher does;
of a module without a head, how much of the teacher's final hidden states the student's then allow for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from ..alignment.fitting import Score
from ..alignment.maps import Map
from ..alignment.methods import METHODS
from ..alignment.moments import SplitMoments
from ..errors import SamplingError
from ..models.sites import SpacePair
from ..modules.module import Module
from ..tasks.agreement import Agreement
from .answers import NO_TEXTS, Answers
from .execution import Moved, move, port_module, put_together
from .forecast import Fidelity, fidelity
from .in_place import InPlace
from .options import PortOptions
from .plan import Plan
from .spaces import fit_pairs

Origin = Literal["copied", "mapped"]
# The alignment that copies.
_COPY = "none"
# How many standard errors an interval of 95% is wide.
_NORMAL_95 = 2 * 1.96


@dataclass(frozen=True)
class Fit:
    """Maps of some pairs of spaces.

    Attributes:
        origin: whether they leave all as it is.
        maps: per pair; those that have served are dropped, since they are as large as the models' own weights.
        scores: how well each fits.
        places: how much of what it reads there the module keeps.
        moved: what they were used for.
    """

    origin: Origin = "mapped"
    maps: dict[SpacePair, Map] = field(default_factory=dict)
    scores: list[Score[SpacePair]] = field(default_factory=list)
    places: list[Fidelity] = field(default_factory=list)
    moved: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def is_copy(self) -> bool:
        """Whether a method that chooses left all as it is."""
        return all(METHODS[score.method].identity for score in self.scores)

    def add(self, other: Fit) -> None:
        """Take in the maps of further pairs."""
        self.maps.update(other.maps)
        self.scores.extend(other.scores)
        self.places.extend(other.places)


@dataclass(frozen=True)
class Figure:
    """How good a candidate is.

    Attributes:
        metric: what `value` is; see `tasks.agreement`, ``"R2"`` of final hidden states, or ``"score"`` of a judge.
        value: the larger the better; of agreements in percent.
        error: its standard error, by the texts; 0 where that is not known.
        divergence: of the student's answers from the teacher's, see `tasks.agreement`; 0 where none are compared.
    """

    metric: str = ""
    value: float = 0.0
    error: float = 0.0
    divergence: float = 0.0

    @classmethod
    def of(cls, agreement: Agreement) -> Figure:
        """Take over an agreement."""
        low, high = agreement.interval
        return cls(agreement.metric, agreement.percent, (high - low) / _NORMAL_95, agreement.divergence)


@dataclass(frozen=True)
class Candidate:
    """A module that could be the port.

    Attributes:
        body: what sits in the layers.
        head: the task head; without one it has no maps.
        scale: factor of what the body writes.
        figure: how good it is; of no metric where there was no choice.
    """

    body: Fit
    head: Fit
    scale: float
    figure: Figure

    @property
    def parts(self) -> tuple[str, str | None]:
        """Name the body, ``"copied"``, ``"mapped"`` or ``"silent"``, and the head; None without one."""
        return "silent" if self.scale == 0 else self.body.origin, self.head.origin if self.head.maps else None

    def describe(self) -> dict[str, Any]:
        """Say it for the report."""
        body, head = self.parts
        return {"body": body, "head": head, "scale": self.scale, **asdict(self.figure)}


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """Choose the best.

    Those within a standard error of the best one's figure are taken for equals. Of these it is the one whose answers
    diverge least: how sure a head is tells more on few texts than which label it prefers. Where that is the same too,
    it is what is nearest to the teacher's module: at scale 1, copied.
    """
    best = max((one.figure for one in candidates), key=lambda figure: figure.value)

    def rank(one: Candidate) -> tuple[float, float, bool, bool]:
        return one.figure.divergence, abs(one.scale - 1), one.body.origin != "copied", one.head.origin != "copied"

    return min((one for one in candidates if one.figure.value >= best.value - best.error), key=rank)


class Fitting:
    """Fits the maps of one port."""

    def __init__(self, plan: Plan, module: Module, options: PortOptions) -> None:
        """Arguments as for `sequential.fit_in_sequence`."""
        self.plan, self.module, self.options = plan, module, options

    def can_copy(self, pairs: Collection[SpacePair]) -> bool:
        """Tell whether some pairs of spaces are all as wide in either model."""
        widths = [self.plan.widths[pair] for pair in pairs if pair in self.plan.widths]
        return all(d_s == d_t for d_s, d_t in widths)

    def fit(
        self,
        origin: Origin,
        moments: Mapping[SpacePair, SplitMoments],
        pairs: Collection[SpacePair],
        known: Mapping[SpacePair, Map],
    ) -> Fit:
        """Fit some pairs of spaces, beside maps that are known, and say how much of what it reads the module keeps."""
        widths = {pair: self.plan.widths[pair] for pair in pairs if pair in self.plan.widths}
        align = _COPY if origin == "copied" else str(self.options.align)
        structure = self.plan.attention_heads, self.plan.ranks, self.plan.writes
        maps, scores = fit_pairs(align, widths, moments, self.options.seed, *structure)
        places = fidelity(self.plan, self.module.tensors, {**known, **maps}, moments, pairs)
        return Fit(origin, maps, scores, places)

    def move(self, body: Fit, later: Collection[SpacePair]) -> None:
        """Use the maps of a body where all that a tensor needs are known, and drop those that have served.

        Args:
            body: the maps so far.
            later: the pairs that are still to be fitted; how much a module keeps is told where it reads one of them.
        """
        waiting = [target for target in self.plan.targets if target.key not in body.moved]
        ready = [target for target in waiting if target.place is not None and self.plan.needs(target) <= {*body.maps}]
        body.moved.update(move(self.plan, ready, self.module.tensors, body.maps))
        needed = {pair for target in waiting if target not in ready for pair in self.plan.needs(target)}
        needed |= {via.pair for target in self.plan.targets for _, via in target.reads if via.home in later}
        for pair in body.maps.keys() - needed:
            del body.maps[pair]

    def moved(self, body: Fit, head: Fit) -> Moved:
        """Give all that a candidate is made of."""
        waiting = [target for target in self.plan.targets if target.key not in body.moved]
        return {**body.moved, **move(self.plan, waiting, self.module.tensors, {**body.maps, **head.maps})}

    def module_of(self, body: Fit, head: Fit, scale: float) -> Module:
        """Make the module of a candidate."""
        made = put_together(self.plan.targets, self.moved(body, head), self.options.seed, scale)
        return port_module(self.plan, self.module, made)


class Candidates:
    """Judges candidates with the student at hand."""

    def __init__(
        self,
        fitting: Fitting,
        both: InPlace,
        heads: Sequence[SpacePair],
        answers: Answers | None,
        judge: Callable[[Module], float] | None,
        chooses: bool,
        searches: bool,
    ) -> None:
        """Prepare.

        Args:
            fitting: fits the heads.
            both: the two models.
            heads: the pairs of spaces that a task head reads, to be mapped; none without one.
            answers: compares the answers of heads; None where there are none that could be.
            judge: scores a port instead.
            chooses: whether there is a choice of bodies and heads.
            searches: whether there is one of scales.
        """
        self._fitting, self._both, self._heads, self._answers, self._judge = fitting, both, heads, answers, judge
        self._chooses, self._judged = chooses, chooses or searches
        self._read = list(heads) if heads or judge is not None or not self._judged else [both.outputs()]
        both.teach(self._read)

    def of(self, body: Fit, scale: float, again: bool) -> list[Candidate]:
        """Judge a body at a scale, with each head.

        Args:
            body: what sits in the layers.
            scale: factor of what it writes.
            again: whether something else is in place.
        """
        if again:
            self._both.place(body.moved, scale, again=True)
        title = f"the {body.origin} body, scale {scale:g}"
        moments = self._both.moments(self._read, title, again) if self._read else {}
        return [
            Candidate(body, head, scale, self._figure(body, head, scale, moments) if self._judged else Figure())
            for head in self._heads_on(body, moments)
        ]

    def _heads_on(self, body: Fit, moments: Mapping[SpacePair, SplitMoments]) -> list[Fit]:
        mapped = self._fitting.fit("mapped", moments, self._heads, body.maps)
        if not self._chooses or self._answers is None or not self._fitting.can_copy(self._heads):
            return [mapped]
        copied = self._fitting.fit("copied", moments, self._heads, body.maps)
        return [copied] if mapped.is_copy else [copied, mapped]

    def _figure(self, body: Fit, head: Fit, scale: float, moments: Mapping[SpacePair, SplitMoments]) -> Figure:
        if self._judge is not None:
            return Figure("score", self._judge(self._fitting.module_of(body, head, scale)))
        if self._answers is not None:
            return Figure.of(self._answers.agreement(head.maps, self._both.read()))
        widths = {pair: (len(split.fit.mean_s), len(split.fit.mean_t)) for pair, split in moments.items()}
        (score,) = fit_pairs("ridge", widths, moments)[1]
        if score.r2_read is None:
            raise SamplingError(NO_TEXTS)
        return Figure("R2", score.r2_read)
