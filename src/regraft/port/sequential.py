"""Fit maps layer by layer to what the models do with the module in place.

What a moved module will read are the student's activations behind its own earlier parts, and what it should make of
them is what the teacher's module makes of the teacher's. So maps are fitted with the teacher's module active, and in
the student what has been ported so far: layer by layer, within a layer in stages, from what reads its input to what
writes its output; the task head's last of all, with everything in place. It is the order in which quantisation and
pruning are calibrated (Frantar et al., GPTQ, ICLR 2023, section 4), and as there each layer runs over all texts before
the next one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..activations.batches import in_order
from ..activations.options import RunOptions
from ..activations.sampling import Sample, source_of
from ..alignment.fitting import Score
from ..alignment.maps import Map
from ..alignment.moments import SplitMoments
from ..errors import SamplingError
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, SpacePair
from ..modules.module import Module
from .execution import port_module
from .forecast import Fidelity, Forecast, fidelity
from .in_place import InPlace, in_place
from .options import PortOptions
from .plan import Plan
from .spaces import fit_pairs

# What ``--scale auto`` chooses from.
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
# At which maps are fitted where the scale is still to be searched.
_UNSCALED = 1.0


@dataclass(frozen=True)
class Fitted:
    """The maps of a port and what they were fitted on.

    Attributes:
        maps: per pair of spaces.
        scores: how well each fits.
        sample: what they were fitted on; in sequence without the moments, which are dropped when they have served.
        places: how much of what the module reads it keeps; None where no covariances were sampled.
        scale: factor of what the module writes.
        scales: scale that was tried -> how much of what the teacher's head computes (without a head, of the teacher's
            final hidden states) the student allows for, R2 on held-out tokens, or what the judge said; empty where
            none was searched.
    """

    maps: Mapping[SpacePair, Map]
    scores: Sequence[Score[SpacePair]]
    sample: Sample | None
    places: Sequence[Fidelity] | None
    scale: float
    scales: Mapping[float, float]


def fit_in_sequence(
    plan: Plan,
    module: Module,
    teacher: Pretrained,
    student: Pretrained,
    texts: Sequence[str],
    options: PortOptions,
    run: RunOptions,
    judge: Callable[[Module], float] | None = None,
) -> Fitted:
    """Fit the maps of a plan layer by layer, then the task head's.

    Args:
        plan: what needs maps.
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        texts: to run both on, a layer at a time.
        options: how the module is ported, settled; a scale that is searched is the best of `SCALES`.
        run: where the models run.
        judge: scores a port, to choose the scale by; by default what the student allows for, see `Fitted.scales`.

    Raises:
        SamplingError: texts or activations that do not serve.
    """
    pairs = sorted({*plan.widths, *plan.reads})
    heads = [pair for pair in pairs if pair.name in TASK_HEAD_SPACES]
    scale, shares = options.factor, dict[float, float]()
    moments: Mapping[SpacePair, SplitMoments] = {}
    ordered = in_order(texts)
    with in_place(plan, module, teacher, student, ordered, options, run) as both:
        fit = _Fit(plan, module, both, options)
        for stages in both.layers([pair for pair in pairs if pair not in heads]):
            both.teach([pair for stage in stages for pair in stage])
            for stage in stages:
                fit.add(both.moments(stage, f"layer {stage[0].student_layer}"), stage)
                both.place(fit.maps, _UNSCALED if scale is None else scale)
        if scale is None:
            scale, shares, moments = fit.search(heads, judge)
        elif heads:
            both.teach(heads)
            moments = both.moments(heads, "the head")
        fit.add(moments, heads)
        sample = Sample(source_of(teacher, student, options, ordered), {}, *both.counts, both.held_out_texts)
    return Fitted(fit.maps, fit.scores, sample, fit.places, scale, shares)


@dataclass(frozen=True)
class _Fit:
    """What is fitted so far to a module in place."""

    plan: Plan
    module: Module
    both: InPlace
    options: PortOptions
    maps: dict[SpacePair, Map] = field(default_factory=dict)
    scores: list[Score[SpacePair]] = field(default_factory=list)
    places: list[Fidelity] = field(default_factory=list)

    def add(self, moments: Mapping[SpacePair, SplitMoments], pairs: Sequence[SpacePair]) -> None:
        """Fit the maps of some pairs of spaces, and say how much of what it reads there the module keeps."""
        maps, scores = self.fit(moments, pairs)
        self.maps.update(maps)
        self.scores.extend(scores)
        self.places.extend(fidelity(self.plan, self.module.tensors, self.maps, moments, pairs))

    def fit(
        self, moments: Mapping[SpacePair, SplitMoments], pairs: Sequence[SpacePair]
    ) -> tuple[dict[SpacePair, Map], list[Score[SpacePair]]]:
        widths = {pair: self.plan.widths[pair] for pair in pairs if pair in self.plan.widths}
        align, seed = str(self.options.align), self.options.seed
        return fit_pairs(align, widths, moments, seed, self.plan.attention_heads, self.plan.ranks, self.plan.writes)

    def search(
        self, heads: Sequence[SpacePair], judge: Callable[[Module], float] | None
    ) -> tuple[float, dict[float, float], dict[SpacePair, SplitMoments]]:
        """Try `SCALES`; return the best, the share of each, and the moments that the head is to be fitted on."""
        read = list(heads) or ([self.both.outputs()] if judge is None else [])
        self.both.teach(read)
        shares: dict[float, float] = {}
        best, kept = _UNSCALED, dict[SpacePair, SplitMoments]()
        # First the one that is in place, with all that is held; of equals the nearest to it is kept.
        for factor in sorted(SCALES, key=lambda factor: abs(factor - _UNSCALED)):
            anew = factor != _UNSCALED
            if anew:
                self.both.place(self.maps, factor, again=True)
            moments = self.both.moments(read, f"scale {factor:g}", anew) if read else {}
            shares[factor] = self._share(heads, factor, moments, judge)
            if not anew or shares[factor] > shares[best]:
                best, kept = factor, moments
        return best, {factor: shares[factor] for factor in SCALES}, kept

    def _share(
        self,
        heads: Sequence[SpacePair],
        scale: float,
        moments: Mapping[SpacePair, SplitMoments],
        judge: Callable[[Module], float] | None,
    ) -> float:
        """Judge a scale by a score or by what can be read off the student in the end, see `Fitted.scales`."""
        if judge is not None:
            maps = {**self.maps, **self.fit(moments, heads)[0]}
            return judge(port_module(self.plan, self.module, maps, self.options.seed, scale))
        widths = {pair: (len(split.fit.mean_s), len(split.fit.mean_t)) for pair, split in moments.items()}
        maps, scores = fit_pairs("ridge", widths, moments)
        if not heads:
            return _known(scores[0].r2_read)
        places = fidelity(self.plan, self.module.tensors, {**self.maps, **maps}, moments, heads)
        return _known(Forecast.of(places).head)


def _known(share: float | None) -> float:
    if share is None:
        raise SamplingError("scale auto has no held-out tokens to judge by, expected a tenth of the texts; give more")
    return share
