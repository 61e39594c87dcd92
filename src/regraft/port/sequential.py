"""Fit maps layer by layer to what the models do with the module in place.

What a moved module will read are the student's activations behind its own earlier layers, and what it should make of
them is what the teacher's module makes of the teacher's. So the maps of a layer are fitted with the teacher's module
active, and in the student what has been ported to the layers below; the task head's last of all, with everything in
place. It is the order in which quantisation and pruning are calibrated (Frantar et al., GPTQ, ICLR 2023, section 4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch

from ..activations.options import RunOptions
from ..activations.sampling import Sample, sample
from ..alignment.fitting import Score
from ..alignment.maps import Linear, Map
from ..errors import SamplingError
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, SpacePair, depth, find_sites
from ..modules.adapted import AdaptedModel
from ..modules.module import Module
from .execution import port_module
from .forecast import Forecast, fidelity
from .options import PortOptions
from .plan import Plan
from .spaces import fit_pairs, judged_pairs

# What ``--scale auto`` chooses from.
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Fitted:
    """The maps of a port and what they were fitted on.

    Attributes:
        maps: per pair of spaces.
        scores: how well each fits.
        sample: the moments that each was fitted on, all as one.
        scale: factor of what the module writes.
        scales: scale that was tried -> how much of what the teacher's head computes (without a head, of the teacher's
            final hidden states) the student allows for, R2 on held-out tokens, or what the judge said; empty where
            none was searched.
    """

    maps: Mapping[SpacePair, Map]
    scores: Sequence[Score[SpacePair]]
    sample: Sample | None
    scale: float
    scales: Mapping[float, float]


@contextmanager
def _loaded(base: Pretrained, run: RunOptions) -> Iterator[Pretrained]:
    """Load a model once for several runs over texts."""
    with base.running(run.torch_dtype, run.device) as model:
        yield replace(base, loaded=model, given_tokenizer=base.given_tokenizer or base.tokenizer())


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
        texts: to run both on, once for each layer of the student and once for the head.
        options: how the module is ported, settled; a scale that is searched is the best of `SCALES`.
        run: where the models run.
        judge: scores a port, to choose the scale by; by default what the student allows for, see `Fitted.scales`.

    Raises:
        SamplingError: texts or activations that do not serve.
    """
    pairs = sorted({*plan.widths, *plan.reads})
    heads = [pair for pair in pairs if pair.name in TASK_HEAD_SPACES]
    on_sites = [pair for pair in pairs if pair.name not in TASK_HEAD_SPACES]
    scale, shares = options.factor, {}
    with _loaded(teacher, run) as loaded_t, _loaded(student, run) as loaded_s:
        if loaded_s.loaded is loaded_t.loaded:  # either has a module of its own
            loaded_s = replace(loaded_s, loaded=copy.deepcopy(loaded_s.loaded))
        fit = _Fit(plan, module, loaded_t, loaded_s, texts, options, RunOptions(quiet=run.quiet))
        for layer, stage in groupby(on_sites, key=lambda pair: pair.student_layer):
            fit.add(list(stage), 1.0 if scale is None else scale, f"layer {layer}")
        if scale is None:
            shares = {factor: fit.share(heads, factor, judge) for factor in SCALES}
            scale = max(shares, key=lambda factor: (shares[factor], -abs(factor - 1)))  # of equals the nearest to 1
        if heads:
            fit.add(heads, scale, "the head")
    moments = {pair: split for one in fit.samples for pair, split in one.moments.items()}
    last = fit.samples[-1]
    source = replace(last.source, teacher_weights=teacher.weights_id, student_weights=student.weights_id)
    return Fitted(fit.maps, fit.scores, replace(last, source=source, moments=moments), scale, shares)


@dataclass(frozen=True)
class _Fit:
    """Two loaded models, a module on the teacher, how to run them over texts, and what is fitted so far."""

    plan: Plan
    module: Module
    teacher: Pretrained
    student: Pretrained
    texts: Sequence[str]
    options: PortOptions
    run: RunOptions
    maps: dict[SpacePair, Map] = field(default_factory=dict)
    scores: list[Score[SpacePair]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def add(self, pairs: Sequence[SpacePair], scale: float, what: str) -> None:
        """Fit the maps of some pairs of spaces to what the models do with the port so far in place."""
        maps, scores, sampled = self.fit(pairs, scale, what)
        self.maps.update(maps)
        self.scores.extend(scores)
        self.samples.append(sampled)

    def fit(
        self, pairs: Sequence[SpacePair], scale: float, what: str
    ) -> tuple[dict[SpacePair, Map], list[Score[SpacePair]], Sample]:
        sampled = self.sample(pairs, scale, what)
        widths = {pair: self.plan.widths[pair] for pair in pairs if pair in self.plan.widths}
        align, seed = str(self.options.align), self.options.seed
        return *fit_pairs(align, widths, sampled.moments, seed, self.plan.attention_heads), sampled

    def sample(self, pairs: Sequence[SpacePair], scale: float, what: str) -> Sample:
        """Sample with the module in place on both sides."""
        ported = port_module(self.plan, self.module, self.completed({}), self.options.seed, scale)
        teacher, student = AdaptedModel.of(self.teacher, self.module), AdaptedModel.of(self.student, ported)
        folded, title = judged_pairs(self.plan.reads), f"Sampling for {what}"
        return sample(teacher, student, pairs, self.texts, self.options, self.run, folded=folded, title=title)

    def completed(self, maps: Mapping[SpacePair, Map]) -> dict[SpacePair, Map]:
        """Add to maps those fitted so far, and for those still missing silent ones, that read and write nothing."""
        return {**{pair: _silent(*widths) for pair, widths in self.plan.widths.items()}, **self.maps, **maps}

    def share(self, heads: Sequence[SpacePair], scale: float, judge: Callable[[Module], float] | None) -> float:
        """Judge a scale by a score or by what can be read off the student in the end, see `Fitted.scales`."""
        what = f"scale {scale:g}"
        if judge is not None:
            maps = self.fit(heads, scale, what)[0] if heads else {}
            return judge(port_module(self.plan, self.module, self.completed(maps), self.options.seed, scale))
        moments = self.sample(heads or [_outputs(self.student, self.teacher)], scale, what).moments
        widths = {pair: (len(split.fit.mean_s), len(split.fit.mean_t)) for pair, split in moments.items()}
        maps, scores = fit_pairs("ridge", widths, moments)
        if not heads:
            return _known(scores[0].r2_read)
        return _known(Forecast.of(fidelity(self.plan, self.module.tensors, self.completed(maps), moments)).head)


def _outputs(student: Pretrained, teacher: Pretrained) -> SpacePair:
    last_s, last_t = (depth(find_sites(base.skeleton(), base.family)) - 1 for base in (student, teacher))
    return SpacePair(last_s, last_t, "final_hidden")


def _known(share: float | None) -> float:
    if share is None:
        raise SamplingError("scale auto has no held-out tokens to judge by, expected a tenth of the texts; give more")
    return share


def _silent(d_s: int, d_t: int) -> Linear:
    zero = torch.zeros(d_s, d_t, dtype=torch.float64)
    return Linear(zero.T, zero[0], zero, zero[:, 0])
