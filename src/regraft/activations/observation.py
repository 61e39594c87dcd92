"""Run two models over the same texts and hand on, batch by batch, the activations of the tokens that go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SamplingError
from ..models.families import Family
from ..models.pretrained import Pretrained
from ..models.sites import PER_TEXT, TASK_HEAD_SPACES, SpacePair, find_sites, find_space
from ..seeding import generator
from .options import RunOptions, SampleOptions
from .pairing import PAIRINGS, Encoding, Ints, encode, pool

# One batch in ten is held out, at least one.
HELD_OUT_SHARE = 0.1
MIN_PAIRS = 64
# At the least, so that few texts leave some to hold out.
_BATCHES = 4


@dataclass(frozen=True)
class Texts:
    """The texts of a batch.

    Attributes:
        count: how many.
        of_pair: (n,) the number of the text that each pair of tokens is from.
    """

    count: int
    of_pair: Tensor


# A space of a layer, and what was observed in it: (n, d), one row per pair.
Space = tuple[int, str]
Activations = Mapping[Space, Tensor]


def in_order(texts: Sequence[str]) -> list[str]:
    """Leave out empty texts and sort the others by length, which saves padding and makes their order not matter.

    Raises:
        SamplingError: one string, or too few texts.
    """
    if isinstance(texts, str):
        raise SamplingError("got one string for texts, expected a list of texts")
    texts = [text for text in texts if text.strip()]
    if len(texts) < 2:
        raise SamplingError(
            f"found {len(texts)} non-empty texts, expected at least 2 (a tenth is held out); "
            "give plain text, one per line, some hundred lines"
        )
    return sorted(texts, key=lambda text: (len(text), text))


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
    for base in (teacher, student):
        if base.family.inputs != "texts":
            raise SamplingError(
                f"{base.name} ({base.config.model_type}) reads {base.family.inputs}, expected a model that reads "
                "texts; copy the module (--align none, without --texts)"
            )
    tokenizer_t, tokenizer_s = teacher.tokenizer(), student.tokenizer()
    pair_tokens = PAIRINGS[options.pairing](tokenizer_t, tokenizer_s)
    size = max(1, min(options.batch_size, len(texts) // _BATCHES))
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    held_out = held_out_batches(len(batches))
    count = paired = tokens = 0
    where = run.torch_dtype, run.device
    with teacher.running(*where) as model_t, student.running(*where) as model_s:
        # A checkpoint may lack the pooler that its class has; heads that need it are told by `port.spaces.fit_pairs`.
        poolers = all(getattr(model, "pooler", None) is not None for model in (model_t, model_s))
        there = [pair for pair in pairs if poolers or pair.name not in PER_TEXT]
        watched_t = _watched(model_t, teacher.family, "teacher", {(pair.teacher_layer, pair.name) for pair in there})
        watched_s = _watched(model_s, student.family, "student", {(pair.student_layer, pair.name) for pair in there})
        for number, batch in enumerate(tqdm(batches, desc=title, unit="batch", disable=run.quiet)):
            encoding_t = encode(tokenizer_t, batch, min(options.max_length, teacher.longest))
            encoding_s = encode(tokenizer_s, batch, min(options.max_length, student.longest))
            in_batch = pair_tokens(batch, encoding_t, encoding_s)
            count += in_batch.count
            paired += in_batch.paired_student_tokens
            tokens += in_batch.student_tokens
            if not in_batch.count:
                continue
            x_t = _observe(model_t, watched_t, encoding_t)
            x_s = _observe(model_s, watched_s, encoding_s)
            x_t = _pooled(x_t, in_batch.teacher_rows, in_batch.teacher_pair, in_batch.count, teacher)
            x_s = _pooled(x_s, in_batch.student_rows, in_batch.student_pair, in_batch.count, student)
            text = torch.from_numpy(in_batch.text_of_pair(encoding_s.ids.shape[1]))
            feed(x_s, x_t, Texts(len(batch), text) if number in held_out else None)
    if count < MIN_PAIRS:
        raise SamplingError(
            f"paired {count} tokens ({paired} of {tokens} student tokens), expected at least {MIN_PAIRS}; "
            + ("give more texts" if options.pairing == "offsets" else "give more texts or use pairing 'offsets'")
        )
    return count, paired, tokens


def held_out_batches(count: int) -> set[int]:
    """Choose the batches to hold out: a tenth, drawn over all lengths of text, the same for the same number."""
    order = torch.randperm(count, generator=generator(0, "held-out batches"))
    return set(order[: max(1, round(count * HELD_OUT_SHARE))].tolist()) if count > 1 else set()


def _pooled(observed: Activations, rows: Ints, pair: Ints, count: int, base: Pretrained) -> dict[Space, Tensor]:
    """Pool token vectors to one per pair; what stands for a whole text already has one."""
    return {
        key: x if key[1] in PER_TEXT else pool(x, rows, pair, count, base.family.causal) for key, x in observed.items()
    }


Watched = tuple[Any, bool, tuple[range, ...]]


def _watched(model: Any, family: Family, who: str, spaces: set[Space]) -> dict[Space, Watched]:
    """Find, for each (layer, space), the submodule to hook, whether the space is its input, and of which dimensions."""
    sites = find_sites(model, family)
    watched = {}
    for layer, space in spaces:
        observed = find_space(sites, layer, space)
        if observed is None:
            raise SamplingError(f"the {who} has no {space} in layer {layer}; choose other --sites or --layers")
        module = model.get_submodule(observed.shape.path)
        if space not in TASK_HEAD_SPACES:  # what a module on the site reads, and adds to: without what itself adds
            module = getattr(module, "base_layer", module)
        watched[layer, space] = module, observed.side == "in", observed.rows
    return watched


@torch.inference_mode()
def _observe(model: Any, watched: Mapping[Space, Watched], encoding: Encoding) -> dict[Space, Tensor]:
    """Return (texts * tokens, d) activations per (layer, space), (texts, d) for the spaces of a whole text."""
    activations: dict[Space, Tensor] = {}

    def hook(key: Space, is_input: bool, rows: tuple[range, ...]) -> Any:
        def record(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            value = (args[0] if args else next(iter(kwargs.values()))) if is_input else output
            # A bottleneck calls a normalisation again, with what it adds.
            value = value.flatten(0, -2)
            part = torch.cat([value[:, some.start : some.stop] for some in rows], dim=1) if rows else value
            activations.setdefault(key, part)

        return record

    device = next(model.parameters()).device
    with ExitStack() as hooks:
        for key, (module, is_input, rows) in watched.items():
            hooks.enter_context(module.register_forward_hook(hook(key, is_input, rows), with_kwargs=True))
        ids = torch.from_numpy(encoding.ids).to(device)
        # A decoder beside an encoder reads the same text, so that both have one vector per token.
        beside = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        model(input_ids=ids, attention_mask=torch.from_numpy(encoding.attention).to(device), **beside)
    return activations
