"""Watch what models compute in their spaces while they run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SamplingError
from ..models.adapters import base_layer
from ..models.families import Family
from ..models.pretrained import Pretrained
from ..models.sites import PER_TEXT, TASK_HEAD_SPACES, SpacePair, find_sites, find_space
from .batches import Batch, Batches, Texts
from .options import RunOptions, SampleOptions
from .pairing import Encoding, Ints, Pairs, pool
from .shelf import holding

# A space of a layer, and what was observed in it: (n, d), one row per pair.
Space = tuple[int, str]
Activations = Mapping[Space, Tensor]


def observe(
    teacher: Pretrained,
    student: Pretrained,
    pairs: Sequence[SpacePair],
    texts: Sequence[str],
    feed: Callable[[Activations, Activations, Texts | None], None],
    options: SampleOptions,
    run: RunOptions,
    title: str,
) -> tuple[int, int, int]:
    """Run both models over `texts` and call `feed` with what is paired in each batch.

    Args:
        teacher: one model.
        student: the other.
        pairs: where to observe them. Spaces of a whole text are left out where either model lacks a pooler.
        texts: what `in_order` gave.
        feed: takes the student's activations, the teacher's, each on its model's device, and of a batch that is held
            out its texts, else None.
        options: as for `sampling.sample`.
        run: as for `sampling.sample`.
        title: of the progress bar.

    Returns:
        The number of pairs, of student tokens that were paired, and of all student tokens.

    Raises:
        SamplingError: tokenizers or activations that do not serve, or too few tokens paired.
    """
    batches = Batches(teacher, student, texts, options)
    look = _held if run.one_at_a_time else _running
    with look(teacher, pairs, batches, run) as (pooler, its), student.running(run.torch_dtype, run.device) as model:
        there = observable(pairs, pooler and has_pooler(model))
        watched = watch(model, student.family, "student", {(pair.student_layer, pair.name) for pair in there})
        for number, batch in enumerate(tqdm(batches, desc=title, unit="batch", disable=run.quiet)):
            with recording(watched) as seen:
                run_on(model, batch.student)
            feed(of_student(seen, batch.pairs, student.family), its(number, batch), batch.held_out)
    return batches.counts()


_Taught = tuple[bool, Callable[[int, Batch], Activations]]
"""Whether the teacher has a pooler, and what gives its activations in the batch of some number."""


@contextmanager
def _running(teacher: Pretrained, pairs: Sequence[SpacePair], _: Batches, run: RunOptions) -> Iterator[_Taught]:
    with teacher.running(run.torch_dtype, run.device) as model:
        spaces = {(pair.teacher_layer, pair.name) for pair in observable(pairs, has_pooler(model))}
        watched = watch(model, teacher.family, "teacher", spaces)

        def look(_: int, batch: Batch) -> Activations:
            with recording(watched) as seen:
                run_on(model, batch.teacher)
            return of_teacher(seen, batch.pairs, teacher.family)

        yield has_pooler(model), look


@contextmanager
def _held(teacher: Pretrained, pairs: Sequence[SpacePair], batches: Batches, run: RunOptions) -> Iterator[_Taught]:
    """Run the teacher over all batches first, hold what it computes and let it go."""
    with holding(run.hold_memory * 1e9) as shelf:
        with _running(teacher, pairs, batches, run) as (pooler, look):
            for number, batch in enumerate(tqdm(batches, "Running the teacher", unit="batch", disable=run.quiet)):
                found = look(number, batch)
                for space, x in found.items():
                    shelf[space, number] = x
                spaces = [*found]
        del look
        free_memory()
        yield pooler, lambda number, _: {space: shelf[space, number] for space in spaces}


def free_memory() -> None:
    """Give back what a model took that nothing names any more; its layers and hooks name each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def has_pooler(model: Any) -> bool:
    """Tell whether a model makes one vector of a whole text."""
    # A checkpoint may lack the pooler that its class has; heads that need it are told by `port.spaces.fit_pairs`.
    return getattr(model, "pooler", None) is not None


def observable(pairs: Collection[SpacePair], poolers: bool) -> list[SpacePair]:
    """Leave out the spaces of a whole text unless both models have a pooler."""
    return [pair for pair in pairs if poolers or pair.name not in PER_TEXT]


def of_student(observed: Activations, pairs: Pairs, family: Family) -> dict[Space, Tensor]:
    """Pool the student's token vectors to one per pair; what stands for a whole text already has one."""
    return _pooled(observed, pairs.student_rows, pairs.student_pair, pairs.count, family)


def of_teacher(observed: Activations, pairs: Pairs, family: Family) -> dict[Space, Tensor]:
    """As `of_student`, the teacher's."""
    return _pooled(observed, pairs.teacher_rows, pairs.teacher_pair, pairs.count, family)


def _pooled(observed: Activations, rows: Ints, pair: Ints, count: int, family: Family) -> dict[Space, Tensor]:
    return {
        space: x if space[1] in PER_TEXT else pool(x, rows, pair, count, family.causal) for space, x in observed.items()
    }


Watched = Mapping[Space, tuple[Any, bool, tuple[range, ...]]]
"""Per space the submodule to hook, whether the space is its input, and of which dimensions; none for all."""


def watch(model: Any, family: Family, who: str, spaces: Collection[Space]) -> Watched:
    """Find where spaces can be observed.

    Raises:
        SamplingError: a space that the model lacks.
    """
    sites = find_sites(model, family)
    watched = {}
    for layer, space in spaces:
        observed = find_space(sites, layer, space)
        if observed is None:
            raise SamplingError(f"the {who} has no {space} in layer {layer}; choose other --sites or --layers")
        module = model.get_submodule(observed.shape.path)
        if space not in TASK_HEAD_SPACES:  # what a module on the site reads, and adds to: without what itself adds
            module = base_layer(module)
        watched[layer, space] = module, observed.side == "in", observed.rows
    return watched


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """Ends a run of a model of which all that was wanted has been seen."""


@contextmanager
def recording(watched: Watched, stop: bool = False) -> Iterator[dict[Space, Tensor]]:
    """Record, while a model runs inside, (texts * tokens, d) per space, (texts, d) of the spaces of a whole text.

    Args:
        watched: what `watch` gave.
        stop: whether the run ends, by `Stopped`, as soon as all was seen.
    """
    seen: dict[Space, Tensor] = {}

    def keep(key: Space, value: Tensor, rows: tuple[range, ...]) -> None:
        # A bottleneck calls a normalisation again, with what it adds.
        value = value.flatten(0, -2)
        part = torch.cat([value[:, some.start : some.stop] for some in rows], dim=1) if rows else value
        seen.setdefault(key, part)
        if stop and len(seen) == len(watched):
            raise Stopped

    def entering(key: Space, rows: tuple[range, ...]) -> Any:
        return lambda _module, args, kwargs: keep(key, args[0] if args else next(iter(kwargs.values())), rows)

    def leaving(key: Space, rows: tuple[range, ...]) -> Any:
        return lambda _module, _args, output: keep(key, output, rows)

    with ExitStack() as hooks:
        for key, (module, is_input, rows) in watched.items():
            if is_input:  # seen before the module runs, which the last of a run then need not
                hooks.enter_context(module.register_forward_pre_hook(entering(key, rows), with_kwargs=True))
            else:
                hooks.enter_context(module.register_forward_hook(leaving(key, rows)))
        yield seen


@torch.inference_mode()
def run_on(model: Any, encoding: Encoding) -> None:
    """Run a bare model on a batch; one that is stopped ends early."""
    device = next(model.parameters()).device
    ids = torch.from_numpy(encoding.ids).to(device)
    # A decoder beside an encoder reads the same text, so that both have one vector per token.
    beside = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        model(input_ids=ids, attention_mask=torch.from_numpy(encoding.attention).to(device), **beside)
    except Stopped:
        return
