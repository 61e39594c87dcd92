"""A module in place in its teacher and, as far as it is ported, in the student, both running over the same batches."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..activations.batches import Batch, Batches
from ..activations.observation import Space, free_memory, has_pooler, observable, of_student
from ..activations.options import RunOptions
from ..activations.sampling import Sums
from ..activations.shelf import Shelf, holding
from ..activations.walk import in_order_of_computation
from ..alignment.moments import Moments, SplitMoments
from ..models.adapters import bare
from ..models.pretrained import Pretrained
from ..models.sites import SpacePair, depth, find_sites, find_space, stack_of
from ..modules.adapted import AdaptedModel
from ..modules.module import Module
from .execution import Moved, put_together
from .options import PortOptions
from .plan import Plan
from .spaces import judged_pairs
from .taught import Taught, keep_read, made_from, walk_through, weight_of

Stage = list[SpacePair]


@contextmanager
def in_place(
    plan: Plan,
    module: Module,
    teacher: Pretrained,
    student: Pretrained,
    texts: Sequence[str],
    options: PortOptions,
    run: RunOptions,
) -> Iterator[InPlace]:
    """Load both models, put the module in place in the teacher and a silent one in the student.

    Args:
        plan: what the student's module is made of.
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        texts: what `in_order` gave.
        options: how the module is ported.
        run: where the models run, and whether both are there at a time.

    Raises:
        SamplingError: texts or tokenizers that do not serve.
    """
    batches = Batches(teacher, student, texts, options)
    made = list(batches)
    counts = batches.counts()
    silent = {
        target.key: module.tensors[target.parts[0].tensor]
        if target.shared
        else torch.full(target.shape, target.neutral, dtype=module.tensors[target.parts[0].tensor].dtype)
        for target in plan.targets
        if target.place is not None or target.shared
    }
    spaces = {(pair.teacher_layer, pair.name) for pair in {*plan.widths, *plan.reads}}
    if not run.one_at_a_time and student.loaded is not None and bare(student.loaded) is bare(teacher.loaded):
        student = replace(student, loaded=copy.deepcopy(bare(student.loaded)))  # either has a module of its own
    with ExitStack() as opened:
        shelf = opened.enter_context(holding(run.hold_memory * 1e9))
        if run.one_at_a_time:
            with _running(teacher, module, run) as running:
                taught = Taught(*running, made, spaces, shelf)
                taught.let_go(_asked(plan, taught, student))
            del running
            free_memory()
        else:
            taught = Taught(*opened.enter_context(_running(teacher, module, run)), made, spaces, shelf)
        ported = Module(dict(plan.config), silent, "the port so far")
        yield InPlace(
            plan, taught, opened.enter_context(_running(student, ported, run)), made, counts, shelf, run.quiet
        )


@contextmanager
def _running(base: Pretrained, module: Module, run: RunOptions) -> Iterator[tuple[AdaptedModel, Any]]:
    """Load a model once for several runs over texts, with a module in place."""
    with base.running(run.torch_dtype, run.device) as model:
        adapted = AdaptedModel.of(replace(base, loaded=model), module)
        with adapted.running(None, None) as model_with:
            yield adapted, model_with


def _asked(plan: Plan, taught: Taught, student: Pretrained) -> set[Space]:
    """Name what a student that is not there yet will ask for, see `InPlace.teach`."""
    model = student.skeleton() if student.loaded is None else bare(student.loaded)
    sites = find_sites(model, student.family)
    pairs = observable({*plan.widths, *plan.reads}, taught.has_pooler)

    def source(pair: SpacePair) -> SpacePair | None:
        # A skeleton does not show what is quantised.
        own = "" if student.is_quantised else made_from(model, sites, (pair.student_layer, pair.name))
        return made_of(pair, pairs, own, taught.made_from((pair.teacher_layer, pair.name)))

    return {(pair.teacher_layer, (source(pair) or pair).name) for pair in pairs}


class InPlace:
    """Two models over the same batches, layer by layer, with a module in place in both.

    Attributes:
        counts: number of pairs of tokens, of student tokens that were paired, and of all student tokens.
        has_outputs: whether the final hidden states of both models tell all that the module does.
        held_out_texts: how many texts are held out.
    """

    def __init__(
        self,
        plan: Plan,
        taught: Taught,
        student: tuple[AdaptedModel, Any],
        batches: Sequence[Batch],
        counts: tuple[int, int, int],
        shelf: Shelf,
        quiet: bool,
    ) -> None:
        """Begin in front of the first layer; the arguments are what `in_place` makes."""
        self._plan, self._batches, self._shelf, self._quiet = plan, batches, shelf, quiet
        self._taught, (self._base_s, self._model_s) = taught, student
        self._sites_s = find_sites(self._model_s, self._base_s.family)
        self._poolers = taught.has_pooler and has_pooler(self._model_s)
        self.counts = counts
        self.held_out_texts = sum(batch.held_out.count for batch in batches if batch.held_out)
        needed = {(pair.student_layer, pair.name) for pair in {*plan.widths, *plan.reads}}
        self._folded = judged_pairs(plan.reads)
        self._placed: set[str] = set()
        final = self.outputs()
        ends = (self._sites_s, final.student_layer), (taught.sites, final.teacher_layer)
        whole = any(stack_of(name) for _, name in needed)
        self.has_outputs = not whole and all(find_space(*end, final.name) is not None for end in ends)
        self._student = walk_through(*student, "student", [batch.student for batch in batches], needed, shelf)

    def layers(self, pairs: Collection[SpacePair]) -> list[list[Stage]]:
        """Sort pairs of spaces by layers of the student, and in these by stages, in order of computation."""
        spaces = {(pair.student_layer, pair.name) for pair in pairs}
        order = in_order_of_computation(self._base_s, self._model_s, self._batches[0].student, spaces)
        stages = [sorted(pair for pair in pairs if (pair.student_layer, pair.name) in stage) for stage in order]
        by_layer = groupby(stages, key=lambda stage: (stack_of(stage[0].name), stage[0].student_layer))
        return [list(stages_of_layer) for _, stages_of_layer in by_layer]

    def teach(self, pairs: Collection[SpacePair]) -> None:
        """Hold what the teacher computes in some spaces, and nothing else but what heads read."""
        pairs = observable(pairs, self._poolers)
        sources = {self._source(pair, pairs) or pair for pair in pairs}
        self._taught.hold({(pair.teacher_layer, pair.name) for pair in sources})

    def moments(self, pairs: Collection[SpacePair], what: str, anew: bool = False) -> dict[SpacePair, SplitMoments]:
        """Take the moments of pairs of spaces of one layer of the student, which the teacher has been asked for.

        Args:
            pairs: where. Spaces of a whole text are left out where either model lacks a pooler.
            what: for, in the title of the progress bar.
            anew: whether the student runs from the start, since what is in place below has changed.
        """
        pairs = observable(pairs, self._poolers)
        if not pairs:
            return {}
        sources = {pair: self._source(pair, pairs) for pair in pairs}
        seen = sorted({source or pair for pair, source in sources.items()})
        folded = {sources.get(pair) or pair for pair in self._folded}
        sums = Sums(seen, True, folded)
        spaces = {(pair.student_layer, pair.name) for pair in seen}
        taught = {(pair.teacher_layer, pair.name) for pair in seen}
        runs = self._student.look_from_the_start(spaces) if anew else self._student.look(spaces)
        titled = tqdm(runs, f"Sampling for {what}", len(self._batches), unit="batch", disable=self._quiet)
        for number, (batch, observed) in enumerate(zip(self._batches, titled, strict=True)):
            x_t = {space: self._taught[space, number] for space in taught}
            keep_read(self._shelf, "student", number, batch, observed)
            sums.add(of_student(observed, batch.pairs, self._base_s.family), x_t, batch.held_out)
        found = sums.moments()
        return {
            pair: found[pair] if source is None else self._through(found[source], pair)
            for pair, source in sources.items()
            if (source or pair) in found
        }

    def place(self, moved: Moved, scale: float, again: bool = False) -> None:
        """Put in place in the student what is moved there so far.

        Args:
            moved: what its tensors are made of.
            scale: factor of what the module writes.
            again: whether what is there already is replaced too.
        """
        new = moved.keys() if again else moved.keys() - self._placed
        targets = [target for target in self._plan.targets if target.key in new]
        tensors = put_together(targets, moved, scale=scale)
        places = {target.key: (target.place, target.name) for target in targets if target.place is not None}
        self._base_s.put(self._model_s, {places[key]: tensor for key, tensor in tensors.items()})
        self._placed |= tensors.keys()

    def outputs(self) -> SpacePair:
        """Name the pair of the final hidden states."""
        return SpacePair(depth(self._sites_s) - 1, depth(self._taught.sites) - 1, "final_hidden")

    def read(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Give, batch by batch, what task heads read of held-out texts, as last seen: the teacher's, the student's."""
        for number, batch in enumerate(self._batches):
            if batch.held_out is not None:
                yield batch, self._shelf["read", "teacher", number], self._shelf["read", "student", number]

    def _source(self, pair: SpacePair, pairs: Collection[SpacePair]) -> SpacePair | None:
        own = made_from(self._model_s, self._sites_s, (pair.student_layer, pair.name))
        return made_of(pair, pairs, own, self._taught.made_from((pair.teacher_layer, pair.name)))

    def _through(self, split: SplitMoments, pair: SpacePair) -> SplitMoments:
        """Work out the moments of a pair of spaces from those of what linear layers make them of."""
        own = weight_of(self._model_s, self._sites_s, (pair.student_layer, pair.name))
        its = self._taught.weight((pair.teacher_layer, pair.name))
        weights = [tensor.to("cpu", torch.float64) for tensor in (*own, *its)]

        def through(moments: Moments) -> Moments:
            return moments.mapped(*weights)

        folds = map(through, split.folds) if pair in self._folded else ()
        return SplitMoments(through(split.fit), through(split.held_out), tuple(folds))


def made_of(pair: SpacePair, pairs: Collection[SpacePair], *spaces: str) -> SpacePair | None:
    """Name the pair that a linear layer makes this one of in both models, if it is one of `pairs`.

    Args:
        pair: what is made.
        pairs: what there is to make it of.
        spaces: what `made_from` says of either model.
    """
    source = replace(pair, name=spaces[0])
    return source if len({*spaces}) == 1 and source in pairs else None
