"""A module in place in its teacher and, as far as it is ported, in the student, both running over the same batches."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..activations.batches import Batch, Batches
from ..activations.observation import Activations, Space, observable, of_student, of_teacher
from ..activations.options import RunOptions
from ..activations.sampling import Sums
from ..activations.shelf import Shelf, holding
from ..activations.walk import Walk, in_order_of_computation
from ..alignment.moments import Moments, SplitMoments
from ..models.adapters import base_layer
from ..models.pretrained import Pretrained
from ..models.sites import (
    TASK_HEAD_SPACES,
    Place,
    SiteShape,
    SpacePair,
    depth,
    find_sites,
    find_space,
    site_of,
    stack_of,
)
from ..modules.adapted import AdaptedModel
from ..modules.module import Module
from .execution import Moved, put_together
from .options import PortOptions
from .plan import Plan
from .spaces import judged_pairs

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
        run: where the models run.

    Raises:
        SamplingError: texts or tokenizers that do not serve.
    """
    with _loaded(teacher, run) as loaded_t, _loaded(student, run) as loaded_s, holding(run.hold_memory * 1e9) as shelf:
        if loaded_s.loaded is loaded_t.loaded:  # either has a module of its own
            loaded_s = replace(loaded_s, loaded=copy.deepcopy(loaded_s.loaded))
        batches = Batches(loaded_t, loaded_s, texts, options)
        made = list(batches)
        counts = batches.counts()
        silent = {
            target.key: module.tensors[target.parts[0].tensor]
            if target.shared
            else torch.full(target.shape, target.neutral, dtype=module.tensors[target.parts[0].tensor].dtype)
            for target in plan.targets
            if target.place is not None or target.shared
        }
        taught = AdaptedModel.of(loaded_t, module)
        ported = AdaptedModel.of(loaded_s, Module(dict(plan.config), silent, "the port so far"))
        with taught.running(None, None) as model_t, ported.running(None, None) as model_s:
            yield InPlace(plan, (taught, model_t), (ported, model_s), made, counts, shelf, run.quiet)


@contextmanager
def _loaded(base: Pretrained, run: RunOptions) -> Iterator[Pretrained]:
    """Load a model once for several runs over texts."""
    with base.running(run.torch_dtype, run.device) as model:
        yield replace(base, loaded=model, given_tokenizer=base.given_tokenizer or base.tokenizer())


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
        teacher: tuple[AdaptedModel, Any],
        student: tuple[AdaptedModel, Any],
        batches: Sequence[Batch],
        counts: tuple[int, int, int],
        shelf: Shelf,
        quiet: bool,
    ) -> None:
        """Begin in front of the first layer of both; the arguments are what `in_place` makes."""
        self._plan, self._batches, self._shelf, self._quiet = plan, batches, shelf, quiet
        (self._base_t, self._model_t), (self._base_s, self._model_s) = teacher, student
        self._sites_t, self._sites_s = (find_sites(model, base.family) for base, model in (teacher, student))
        self.counts = counts
        self.held_out_texts = sum(batch.held_out.count for batch in batches if batch.held_out)
        needed = {*plan.widths, *plan.reads}
        self._folded = judged_pairs(plan.reads)
        seen = observable(self._model_t, self._model_s, needed)
        self._heads = {(pair.teacher_layer, pair.name) for pair in seen if pair.name in TASK_HEAD_SPACES}
        self._placed: set[str] = set()
        self._taught: set[Space] = set()
        # A list of layers beside the model's own is not the one that is walked through.
        whole = any(stack_of(pair.name) for pair in needed)
        final = self.outputs()
        ends = (self._sites_s, final.student_layer), (self._sites_t, final.teacher_layer)
        self.has_outputs = not whole and all(find_space(*end, final.name) is not None for end in ends)
        self._teacher = Walk(*teacher, "teacher", [batch.teacher for batch in batches], shelf, whole)
        self._student = Walk(*student, "student", [batch.student for batch in batches], shelf, whole)
        for base, walk in ((self._base_t, self._teacher), (self._base_s, self._student)):
            if not walk.by_layer:
                warnings.warn(
                    f"{base.name} ({base.config.model_type}) cannot be run one layer at a time, so the whole model is "
                    "run for each; the port is the same and takes longer",
                    stacklevel=2,
                )

    def layers(self, pairs: Collection[SpacePair]) -> list[list[Stage]]:
        """Sort pairs of spaces by layers of the student, and in these by stages, in order of computation."""
        spaces = {(pair.student_layer, pair.name) for pair in pairs}
        order = in_order_of_computation(self._base_s, self._model_s, self._batches[0].student, spaces)
        stages = [sorted(pair for pair in pairs if (pair.student_layer, pair.name) in stage) for stage in order]
        by_layer = groupby(stages, key=lambda stage: (stack_of(stage[0].name), stage[0].student_layer))
        return [list(stages_of_layer) for _, stages_of_layer in by_layer]

    def teach(self, pairs: Collection[SpacePair]) -> None:
        """Hold what the teacher computes in some spaces, and nothing else but what heads read."""
        pairs = observable(self._model_t, self._model_s, pairs)
        sources = {self._source(pair, pairs) or pair for pair in pairs}
        wanted = {(pair.teacher_layer, pair.name) for pair in sources}
        self._shelf.drop_where(lambda key: key[0] == "taught" and key[1] not in wanted | self._heads)
        self._taught &= wanted | self._heads
        missing = wanted - self._taught
        by_layer = self._teacher.by_layer
        for layer in sorted({layer for layer, _ in missing}) if by_layer else [None]:
            here = {space for space in missing if layer in (None, space[0])}
            # What heads read leaves the last layer, so that one run of it serves both.
            if here and layer in (None, depth(self._sites_t) - 1):
                here |= {space for space in self._heads if space not in self._taught}
            self._hold(here)

    def moments(self, pairs: Collection[SpacePair], what: str, anew: bool = False) -> dict[SpacePair, SplitMoments]:
        """Take the moments of pairs of spaces of one layer of the student, which the teacher has been asked for.

        Args:
            pairs: where. Spaces of a whole text are left out where either model lacks a pooler.
            what: for, in the title of the progress bar.
            anew: whether the student runs from the start, since what is in place below has changed.
        """
        pairs = observable(self._model_t, self._model_s, pairs)
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
            x_t = {space: self._shelf["taught", space, number] for space in taught}
            self._keep_read("student", number, observed)
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
        return SpacePair(depth(self._sites_s) - 1, depth(self._sites_t) - 1, "final_hidden")

    def read(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Give, batch by batch, what task heads read of held-out texts, as last seen: the teacher's, the student's."""
        for number, batch in enumerate(self._batches):
            if batch.held_out is not None:
                yield batch, self._shelf["read", "teacher", number], self._shelf["read", "student", number]

    def _keep_read(self, who: str, number: int, observed: Activations) -> None:
        """Hold all that a task head reads of a batch that is held out, beside what is paired of it."""
        for (_, name), states in observed.items():
            if name in TASK_HEAD_SPACES and self._batches[number].held_out is not None:
                self._shelf["read", who, number] = states

    def _hold(self, spaces: set[Space]) -> None:
        if not spaces:
            return
        runs = self._teacher.look(spaces, leave=True)
        for number, (batch, observed) in enumerate(zip(self._batches, runs, strict=True)):
            self._keep_read("teacher", number, observed)
            for space, x in of_teacher(observed, batch.pairs, self._base_t.family).items():
                self._shelf["taught", space, number] = x
        self._taught |= spaces

    def _source(self, pair: SpacePair, pairs: Collection[SpacePair]) -> SpacePair | None:
        return made_of(pair, pairs, (self._model_s, self._sites_s), (self._model_t, self._sites_t))

    def _through(self, split: SplitMoments, pair: SpacePair) -> SplitMoments:
        """Work out the moments of a pair of spaces from those of what linear layers make them of."""
        weights = (
            *_weight(self._model_s, self._sites_s, (pair.student_layer, pair.name)),
            *_weight(self._model_t, self._sites_t, (pair.teacher_layer, pair.name)),
        )

        def through(moments: Moments) -> Moments:
            return moments.mapped(*weights)

        folds = map(through, split.folds) if pair in self._folded else ()
        return SplitMoments(through(split.fit), through(split.held_out), tuple(folds))


Sites = Mapping[Place, SiteShape]


def made_of(
    pair: SpacePair, pairs: Collection[SpacePair], student: tuple[Any, Sites], teacher: tuple[Any, Sites]
) -> SpacePair | None:
    """Name the pair that a linear layer makes this one of in both models, with their sites, if it is one of `pairs`."""
    spaces = (pair.student_layer, pair.name), (pair.teacher_layer, pair.name)
    reads = {_reads(*model, space) for model, space in zip((student, teacher), spaces, strict=True)}
    source = replace(pair, name=reads.pop())
    return source if not reads and source in pairs else None


def site_read(sites: Sites, space: Space) -> str:
    """Name what the site reads that a space is on one of the sides of; empty where there is none."""
    found = find_space(sites, *space)
    if found is None:
        return ""
    return next(site_of(name).reads for (_, name), shape in sites.items() if shape.path == found.shape.path)


def _reads(model: Any, sites: Sites, space: Space) -> str:
    """Name the space that a plain linear layer makes a space of; empty where none does."""
    found = find_space(sites, *space)
    if found is None or found.side == "in":
        return ""
    plain = type(base_layer(model.get_submodule(found.shape.path))) is torch.nn.Linear
    return site_read(sites, space) if plain else ""


def _weight(model: Any, sites: Sites, space: Space) -> tuple[Tensor, Tensor]:
    """Give weight and bias of the linear layer that makes a space, in double precision."""
    found = find_space(sites, *space)
    assert found is not None
    linear = base_layer(model.get_submodule(found.shape.path))
    weight = linear.weight.detach().to("cpu", torch.float64)
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().to("cpu", torch.float64)
    rows = [torch.arange(some.start, some.stop) for some in found.rows]
    return (weight[torch.cat(rows)], bias[torch.cat(rows)]) if rows else (weight, bias)
