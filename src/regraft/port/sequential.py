"""Fit maps layer by layer to what the models do with the module in place.

What a moved module will read are the student's activations behind its own earlier parts, and what it should make of
them is what the teacher's module makes of the teacher's. So maps are fitted with the teacher's module active, and in
the student what has been ported so far: layer by layer, within a layer in stages, from what reads its input to what
writes its output; the task head's last of all, with everything in place. It is the order in which quantisation and
pruning are calibrated (Frantar et al., GPTQ, ICLR 2023, section 4), and as there each layer runs over all texts before
the next one does.

How well a map predicts activations says little of how well the module then works. So a method that chooses has its
body, what sits in the layers, chosen apart from its head, by what the whole port answers: see `candidates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..activations.batches import in_order
from ..activations.options import RunOptions
from ..activations.sampling import Sample, source_of
from ..alignment.fitting import Score
from ..alignment.methods import method_named
from ..alignment.moments import SplitMoments
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, SpacePair
from ..modules.module import Module
from .answers import Answers
from .candidates import Candidate, Candidates, Fit, Fitting, choose
from .execution import Moved
from .forecast import Fidelity
from .in_place import InPlace, Stage, in_place
from .options import PortOptions
from .plan import Plan

# What ``--scale auto`` chooses from.
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
# At which maps are fitted where the scale is still to be searched.
_UNSCALED = 1.0


@dataclass(frozen=True)
class Fitted:
    """What the maps of a port made of a module, and what they were fitted on.

    Attributes:
        moved: what the student's tensors are made of.
        scores: how well each map fits. They, and `places`, are of where the mapped body was in place.
        sample: what they were fitted on; in sequence without the moments, which are dropped when they have served.
        places: how much of what the module reads it keeps; None where no covariances were sampled.
        scale: factor of what the module writes.
        scales: scale that was tried -> the figure of the best candidate; empty where none was searched.
        candidates: what was judged; empty where there was no choice.
        chosen: one of these; None likewise.
    """

    moved: Moved
    scores: Sequence[Score[SpacePair]]
    sample: Sample | None
    places: Sequence[Fidelity] | None
    scale: float
    scales: Mapping[float, float]
    candidates: Sequence[Candidate] = ()
    chosen: Candidate | None = None


def fit_in_sequence(
    plan: Plan,
    module: Module,
    teacher: Pretrained,
    student: Pretrained,
    texts: Sequence[Text],
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
        judge: scores a port, to choose by; by default its own answers, see `candidates`.

    Raises:
        SamplingError: texts or activations that do not serve.
    """
    pairs = sorted({*plan.widths, *plan.reads})
    heads = [pair for pair in pairs if pair.name in TASK_HEAD_SPACES]
    scale, searched = (_UNSCALED, True) if options.factor is None else (options.factor, False)
    fitting, ordered = Fitting(plan, module, options), in_order(texts)
    with in_place(plan, module, teacher, student, ordered, options, run) as both:
        # What is judged is what leaves the model's own layers.
        chooses = method_named(str(options.align)).chooses and scale != 0 and both.has_outputs
        there, *others = _bodies([pair for pair in pairs if pair not in heads], fitting, both, scale, chooses)
        answers = Answers.of(plan, module, teacher, student, heads)
        candidates = Candidates(fitting, both, heads, answers, judge, chooses, searched)
        tried = candidates.of(there, scale, again=False)
        for body in others:
            tried += candidates.of(body, scale, again=True)
        moved = choose(tried).body
        for factor in SCALES if searched else (0.0,) if chooses else ():
            if factor != scale:
                tried += candidates.of(moved, factor, again=True)
        sample = Sample(source_of(teacher, student, options, ordered), {}, *both.counts, both.held_out_texts)
    best = choose(tried)
    by_scale = {factor: [one for one in tried if one.body is moved and one.scale == factor] for factor in SCALES}
    return Fitted(
        fitting.moved(best.body, best.head),
        [*best.body.scores, *best.head.scores],
        sample,
        [*best.body.places, *best.head.places],
        best.scale,
        {factor: choose(some).figure.value for factor, some in by_scale.items() if searched},
        tried if chooses else [],
        best if chooses else None,
    )


def _bodies(pairs: Sequence[SpacePair], fitting: Fitting, both: InPlace, scale: float, chooses: bool) -> list[Fit]:
    """Fit what sits in the layers, from the first to the last; return the one that is in place then, and others."""
    mapped, copied = Fit("mapped"), Fit("copied")
    bodies = [mapped, copied] if chooses and fitting.can_copy(pairs) else [mapped]
    later = {*pairs}
    for stages in both.layers(pairs):
        both.teach([pair for stage in stages for pair in stage])
        for stage in stages:
            # Not kept by any name: the next stage's would be taken beside them.
            _add(bodies, fitting, both.moments(stage, f"layer {stage[0].student_layer}"), stage)
            later -= {*stage}
            for body in bodies:
                fitting.move(body, later)
            both.place(mapped.moved, scale)
    return [copied] if len(bodies) > 1 and mapped.is_copy else bodies


def _add(bodies: Sequence[Fit], fitting: Fitting, moments: Mapping[SpacePair, SplitMoments], stage: Stage) -> None:
    for body in bodies:
        body.add(fitting.fit(body.origin, moments, stage, body.maps))
