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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..activations.options import RunOptions
from ..activations.sampling import Sample, sample
from ..alignment.fitting import Score
from ..alignment.maps import Linear, Map
from ..errors import SamplingError
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, SpacePair, depth, find_sites
from ..modules.adapted import AdaptedModel
from ..modules.module import Module
from .execution import transfer_tensors
from .forecast import Forecast, fidelity
from .options import PortOptions
from .plan import Plan
from .spaces import fit_pairs

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
def held_loaded(base: Pretrained, run: RunOptions) -> Iterator[Pretrained]:
    """Load a model once for several runs over texts."""
    with base.running(run.torch_dtype, run.device) as model:
        yield replace(base, loaded=model, given_tokenizer=base.given_tokenizer or base.tokenizer())


@dataclass(frozen=True)
class _Pair:
    """Two loaded models, a module on the teacher, and how to run them over texts."""

    plan: Plan
    module: Module
    teacher: Pretrained
    student: Pretrained
    texts: Sequence[str]
    options: PortOptions
    run: RunOptions

    def completed(self, maps: Mapping[SpacePair, Map]) -> dict[SpacePair, Map]:
        """Add to maps those that are still missing: silent ones, that read and write nothing."""
        return {**{space: _silent(*widths) for space, widths in self.plan.widths.items()}, **maps}

    def sampled(self, maps: Mapping[SpacePair, Map], spaces: Sequence[SpacePair], scale: float, title: str) -> Sample:
        """Sample with the module in place on both sides; where the student's has no map yet, it is silent."""
        tensors = transfer_tensors(self.plan, self.module.tensors, self.completed(maps), scale=scale)
        ported = Module(dict(self.plan.config), tensors, "the port so far")
        return sample(
            AdaptedModel.of(self.teacher, self.module),
            AdaptedModel.of(self.student, ported),
            spaces,
            self.texts,
            self.options,
            self.run,
            title=title,
        )


def fit_in_sequence(
    plan: Plan,
    module: Module,
    teacher: Pretrained,
    student: Pretrained,
    texts: Sequence[str],
    options: PortOptions,
    run: RunOptions,
    judge: Callable[[dict[str, Tensor]], float] | None = None,
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
        judge: scores the student's tensors, to choose the scale by; by default what the student allows for, see
            `Fitted.scales`.

    Raises:
        SamplingError: texts or activations that do not serve.
    """
    needed = {*plan.widths, *plan.reads}
    heads = [space for space in sorted(needed) if space.name in TASK_HEAD_SPACES]
    layers = sorted({space.student_layer for space in needed.difference(heads)})
    stages = [sorted(s for s in needed.difference(heads) if s.student_layer == layer) for layer in layers]
    maps: dict[SpacePair, Map] = {}
    scores: list[Score[SpacePair]] = []
    samples: list[Sample] = []
    align, seed, scale = str(options.align), options.seed, options.factor
    with held_loaded(teacher, run) as loaded_t, held_loaded(student, run) as loaded_s:
        if loaded_s.loaded is loaded_t.loaded:  # either has a module of its own
            loaded_s = replace(loaded_s, loaded=copy.deepcopy(loaded_s.loaded))
        pair = _Pair(plan, module, loaded_t, loaded_s, texts, options, RunOptions(quiet=run.quiet))

        def fit(
            spaces: Sequence[SpacePair], factor: float, what: str
        ) -> tuple[dict[SpacePair, Map], list[Score[SpacePair]], Sample]:
            taken = pair.sampled(maps, spaces, factor, f"Sampling for {what}")
            widths = {space: plan.widths[space] for space in spaces if space in plan.widths}
            return *fit_pairs(align, widths, taken.moments, seed, plan.attention_heads), taken

        def keep(found: dict[SpacePair, Map], scored: list[Score[SpacePair]], taken: Sample) -> None:
            maps.update(found)
            scores.extend(scored)
            samples.append(taken)

        for layer, spaces in zip(layers, stages, strict=True):
            keep(*fit(spaces, 1.0 if scale is None else scale, f"layer {layer}"))
        shares: dict[float, float] = {}
        for factor in SCALES if scale is None else ():
            if judge is None:
                shares[factor] = _share(pair, maps, heads, factor)
            else:
                last = fit(heads, factor, f"scale {factor:g}")[0] if heads else {}
                shares[factor] = judge(transfer_tensors(plan, module.tensors, {**maps, **last}, seed, factor))
        if scale is None:
            scale = max(shares, key=lambda factor: (shares[factor], -abs(factor - 1)))  # of equals the nearest to 1
        if heads:
            keep(*fit(heads, scale, "the head"))
    moments = {space: split for one in samples for space, split in one.moments.items()}
    final = samples[-1]
    source = replace(final.source, teacher_weights=teacher.weights_id, student_weights=student.weights_id)
    return Fitted(maps, scores, replace(final, source=source, moments=moments), scale, shares)


def _share(pair: _Pair, maps: Mapping[SpacePair, Map], heads: Sequence[SpacePair], scale: float) -> float:
    """Judge a scale by what can be read off the student in the end, see `Fitted.scales`."""
    spaces = heads or [_outputs(pair.student, pair.teacher)]
    taken = pair.sampled(maps, spaces, scale, f"Sampling for scale {scale:g}").moments
    widths = {space: split.fit.cross.shape for space, split in taken.items()}
    read, scores = fit_pairs("ridge", {space: (d_s, d_t) for space, (d_s, d_t) in widths.items()}, taken)
    if not heads:
        return _known(scores[0].r2_read)
    places = fidelity(pair.plan, pair.module.tensors, pair.completed({**maps, **read}), taken)
    return _known(Forecast.of(places).head)


def _outputs(student: Pretrained, teacher: Pretrained) -> SpacePair:
    lasts = [depth(find_sites(base.skeleton(), base.family)) - 1 for base in (student, teacher)]
    return SpacePair(lasts[0], lasts[1], "final_hidden")


def _known(share: float | None) -> float:
    if share is None:
        raise SamplingError("scale auto has no held-out tokens to judge by, expected a tenth of the texts; give more")
    return share


def _silent(d_s: int, d_t: int) -> Linear:
    zero = torch.zeros(d_s, d_t, dtype=torch.float64)
    return Linear(zero.T, zero[0], zero, zero[:, 0])
