"""How much memory a port in sequence is expected to take at its peak, term by term.

Counted is what regraft asks for: not Python and its libraries, and not what the system's allocator keeps of what it was
given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import torch

from ..activations.batches import Batches, in_order
from ..activations.observation import has_pooler, observable
from ..activations.options import RunOptions
from ..activations.sampling import FOLDS
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, Place, SiteShape, SpacePair, find_sites
from .in_place import made_of
from .options import PortOptions
from .plan import Plan
from .spaces import judged_pairs
from .taught import made_from, site_read

_DOUBLE = 8
# Matrices of the width of a space that fitting a map takes at once: the covariance, its eigenvectors and what LAPACK's
# divide and conquer needs for them (two, and a copy), what is solved for, the map that is there already.
_TO_FIT = 8
# Vectors of a token while a layer runs: its input, what it is added to and the sum; in between two of the widest.
_OUTER, _INNER = 3, 2


@dataclass(frozen=True)
class Memory:
    """Bytes that a port in sequence is expected to take.

    Attributes:
        weights: of both models; of one where they are not there at a time.
        held: of what enters the next layer of both models and of what the teacher computes, in memory.
        on_disk: of the rest of it.
        taking: of the stage that takes most while its moments are taken, with a batch.
        fitting: of the stage that takes most while its maps are fitted, with what is worked out of its moments.
        on_gpu: whether weights are on a GPU, where moments are taken; maps are fitted on the CPU.
    """

    weights: int
    held: int
    on_disk: int
    taking: int
    fitting: int
    on_gpu: bool = False

    @property
    def gpu(self) -> int:
        """What a GPU has to have room for."""
        return self.weights + self.taking if self.on_gpu else 0

    @property
    def total(self) -> int:
        """What there is on the CPU."""
        return self.held + (self.fitting if self.on_gpu else self.weights + max(self.taking, self.fitting))

    def __str__(self) -> str:
        """Say it in a sentence."""
        terms = {"weights": self.weights, "activations": self.held, "moments": max(self.taking, self.fitting)}
        on_gpu = ""
        if self.on_gpu:
            own = {"weights": self.weights, "moments": self.taking}
            on_gpu = f"{_gigabytes(self.gpu)} GB on the GPU ({_said(own)}) and "
            terms = {"activations": self.held, "moments": self.fitting}
        disk = f"; {_gigabytes(self.on_disk)} GB more on disk" if self.on_disk else ""
        return (
            f"Expected peak memory: {on_gpu}{_gigabytes(self.total)} GB beside Python and its libraries "
            f"({_said(terms)}){disk}."
        )


def expected_memory(
    plan: Plan, teacher: Pretrained, student: Pretrained, texts: Sequence[Text], options: PortOptions, run: RunOptions
) -> Memory:
    """Work out what a port in sequence takes, from shapes and the number of tokens; no weights are loaded.

    Args:
        plan: what needs maps.
        teacher: the model the module was trained on.
        student: the model it goes to.
        texts: what both will run on.
        options: how the module is ported, settled.
        run: where the models run, and whether both are there at a time.

    Raises:
        SamplingError: texts or tokenizers that do not serve.
    """
    both = [_Model.of(base, run) for base in (teacher, student)]
    model_t, model_s = both
    made = Batches(teacher, student, in_order(texts), options)
    batches = list(made)
    made.counts()
    tokens = [batch.teacher.ids.size for batch in batches], [batch.student.ids.size for batch in batches]
    paired = [batch.pairs.count for batch in batches]
    poolers = has_pooler(model_t.skeleton) and has_pooler(model_s.skeleton)
    pairs = observable({*plan.widths, *plan.reads}, poolers)
    sizes = _Sizes(plan, model_s, model_t, pairs)
    layers = [list(pairs) for _, pairs in groupby(sorted(pairs), key=lambda pair: pair.student_layer)]
    states_t, states_s = (sum(some) * model.hidden * model.item for some, model in zip(tokens, both, strict=True))
    running_t, running_s = (max(some) * model.per_token for some, model in zip(tokens, both, strict=True))
    taught = [sum(sizes.widths(pair)[1] for pair in sizes.seen(here)) * sum(paired) * model_t.item for here in layers]
    # What heads read, or a module without one is judged by, of the texts that are held out.
    judged = [batch for batch in batches if batch.held_out is not None]
    read = sum(batch.teacher.ids.size for batch in judged) * model_t.hidden * model_t.item
    read += sum(batch.student.ids.size for batch in judged) * model_s.hidden * model_s.item
    weights, running = model_t.weights + model_s.weights, max(running_t, running_s)
    held = states_t + states_s + max(taught, default=0) + read
    if run.one_at_a_time:
        last = sum(paired) * model_t.hidden * model_t.item  # its final hidden states
        held = sum(taught) + last + read + max(states_t, states_s + sizes.linear_layers * model_t.item)
        weights, running = model_s.weights, running_s
    stages = [stage for here in layers for stage in sizes.stages(here)]
    taking = max(
        (sizes.taken(some) + max(running, sizes.adding(some, max(paired))) for some in stages), default=running
    )
    fitting = max((sizes.taken(some) + sizes.fitting(some) for some in stages), default=0)
    in_memory = min(held, int(run.hold_memory * 1e9))
    memory = Memory(weights, in_memory, held - in_memory, taking, fitting, run.runs_on_gpu)
    # The teacher may take more than all that comes after it.
    alone = replace(memory, weights=model_t.weights, taking=running_t, fitting=fitting if memory.on_gpu else 0)
    return max(memory, alone, key=lambda one: (one.gpu, one.total)) if run.one_at_a_time else memory


@dataclass(frozen=True)
class _Model:
    """What counts of a model."""

    skeleton: Any
    sites: Mapping[Place, SiteShape]
    item: int
    hidden: int

    @staticmethod
    def of(base: Pretrained, run: RunOptions) -> _Model:
        skeleton = base.skeleton()
        dtype = run.torch_dtype or getattr(base.config, "dtype", None) or torch.float32
        sites = find_sites(skeleton, base.family)
        narrowest = min(shape.in_width for shape in sites.values())
        hidden = getattr(base.config.get_text_config(), "hidden_size", narrowest)
        return _Model(skeleton, sites, dtype.itemsize, hidden)

    @property
    def weights(self) -> int:
        return self.item * sum(int(parameter.numel()) for parameter in self.skeleton.parameters())

    @property
    def per_token(self) -> int:
        widest = max(shape.out_width for shape in self.sites.values())
        return (_OUTER * self.hidden + _INNER * widest) * self.item


@dataclass(frozen=True)
class _Sizes:
    """What the moments of pairs of spaces take."""

    plan: Plan
    student: _Model
    teacher: _Model
    pairs: Sequence[SpacePair]

    def widths(self, pair: SpacePair) -> tuple[int, int]:
        return self.plan.widths.get(pair, (self.student.hidden, self.teacher.hidden))

    def source(self, pair: SpacePair) -> SpacePair | None:
        own = made_from(self.student.skeleton, self.student.sites, (pair.student_layer, pair.name))
        its = made_from(self.teacher.skeleton, self.teacher.sites, (pair.teacher_layer, pair.name))
        return made_of(pair, self.pairs, own, its)

    def seen(self, pairs: Iterable[SpacePair]) -> list[SpacePair]:
        """Leave out what is worked out from another pair."""
        return sorted({self.source(pair) or pair for pair in pairs})

    def stages(self, pairs: Iterable[SpacePair]) -> list[list[SpacePair]]:
        """Sort by what is read: the sites that read one space are one stage; what heads read is the last of all."""

        def stage(pair: SpacePair) -> str:
            read = site_read(self.student.sites, (pair.student_layer, pair.name))
            return pair.name if pair.name in TASK_HEAD_SPACES else read

        return [list(some) for _, some in groupby(sorted(pairs, key=stage), key=stage)]

    def taken(self, stage: Sequence[SpacePair]) -> int:
        """Give what the moments of a stage take."""
        folded = judged_pairs(self.plan.reads)
        return sum((2 + FOLDS * (pair in folded)) * _whole(*self.widths(pair)) for pair in self.seen(stage)) * _DOUBLE

    def adding(self, stage: Sequence[SpacePair], paired: int) -> int:
        """Give what adding a batch takes, of which so many tokens are paired."""
        seen = self.seen(stage)
        # A batch's own, and the sum that takes the place of what was there; what was seen, and that about its mean.
        return 2 * max(_whole(*self.widths(pair)) for pair in seen) * _DOUBLE + 2 * paired * self._seen_per_token(seen)

    def fitting(self, stage: Sequence[SpacePair]) -> int:
        """Give what fitting the maps of a stage takes beside its moments; they are dropped behind it."""
        made = sum(2 * self._made(pair) for pair in stage if self.source(pair) is not None)
        maps = {pair: self._map(pair) for pair in stage}
        most = max(self._to_fit(pair) + sum(maps.values()) - maps[pair] for pair in stage)
        return (made + most) * _DOUBLE

    @cached_property
    def linear_layers(self) -> int:
        """How many weights the teacher's linear layers have whose outputs are worked out of their inputs."""
        sources = {pair: self.source(pair) for pair in self.pairs}
        return sum(self.widths(pair)[1] * self.widths(source)[1] for pair, source in sources.items() if source)

    def _map(self, pair: SpacePair) -> int:
        d_s, d_t = self.plan.widths.get(pair, (0, 0))
        return (1 + (pair in self.plan.writes)) * d_s * d_t

    def _seen_per_token(self, seen: Sequence[SpacePair]) -> int:
        return sum(sum(self.widths(pair)) for pair in seen) * self.student.item

    def _made(self, pair: SpacePair) -> int:
        """What is worked out of a pair: the covariance across whole, the others in the directions they span."""
        d_s, d_t = self.widths(pair)
        k_s, k_t = self.plan.ranks.get(pair, (d_s, d_t))
        within = sum(k * k + (d * k if k < d else 0) for d, k in ((d_s, k_s), (d_t, k_t)))
        return d_s * d_t + within

    def _to_fit(self, pair: SpacePair) -> int:
        return _TO_FIT * max(self.widths(pair)) ** 2 if pair in self.plan.widths else 0


def _whole(d_s: int, d_t: int) -> int:
    return d_s * d_s + d_t * d_t + d_s * d_t


def _said(terms: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_gigabytes(size)}" for name, size in terms.items())


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2g}" if size < 1e10 else f"{size / 1e9:.0f}"
