"""What a language model says of a text: how likely it is, up to every place where a token ends.

Likelihoods of pieces of text need no vocabulary, so those of two models can be laid side by side whatever their
tokenizers: between two places at which tokens of both end lies a chunk that both give a probability (Minixhofer et al.,
Cross-Tokenizer Distillation via Approximate Likelihood Matching, NeurIPS 2025, arXiv 2503.20083). A row of the answers
is such a place, and holds the log-likelihood of all before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import TaskError
from ..files.texts import Text
from ..tasks.language import Reader
from ..training.language import rows_at_once, token_losses
from .rows import Ints, Rows

# Divides log-likelihoods, so that chunks are judged by how likely they are at all; the paper's setting.
_TEMPERATURE = 100.0
# The least by which a likelihood falls short of 1, after that.
_LEAST = 1e-6


def encode_tokens(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[dict[str, Tensor], Rows]:
    """Encode texts as language models are scored (`tasks.language`); a row is the end of a token.

    Pieces of one character, such as a tokenizer of bytes has, end where the last of them does.

    Args:
        tokenizer: of a language model, one that knows the places of its tokens.
        texts: plain texts.
        max_length: tokens after which a text is cut.

    Raises:
        TaskError: pairs of texts, or a tokenizer that does not serve.
    """
    reader, before, encoded = encoded_texts(tokenizer, texts, max_length)
    rows = [
        (text, end, token + len(before))
        for text, places in enumerate(encoded["offset_mapping"])
        for end, token in {end: token for token, (_, end) in enumerate(places) if end}.items()
    ]
    text, end, token = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return padded([[*before, *own] for own in encoded["input_ids"]], reader.end), Rows(text, end, token)


def encoded_texts(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[Reader, list[int], Any]:
    """Encode texts without what stands before them; arguments and errors as for `encode_tokens`.

    Returns:
        What knows the tokens between texts, those that stand before a text, and the tokens with their places.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"{type(tokenizer).__name__} reports no character offsets, expected a fast tokenizer for a language model"
        )
    if pairs := [text for text in texts if not isinstance(text, str)]:
        raise TaskError(f"found {len(pairs)} pairs of texts, expected texts alone for a language model")
    reader = Reader.of(tokenizer)
    before = reader.begin or [reader.end]
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=True,
        max_length=max(1, max_length - len(before)),
        return_offsets_mapping=True,
    )
    return reader, before, encoded


def padded(sequences: Sequence[Sequence[int]], padding: int) -> dict[str, Tensor]:
    """Make a batch of tokens: ``input_ids`` and ``attention_mask``, (texts, tokens), padded on the right."""
    ids = np.full((len(sequences), max(map(len, sequences), default=0)), padding, dtype=np.int64)
    attention = np.zeros_like(ids)
    for row, own in enumerate(sequences):
        ids[row, : len(own)], attention[row, : len(own)] = own, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(attention)}


def log_likelihoods(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Add up the log-likelihoods of tokens, each given those before it.

    Args:
        model: a causal language model.
        inputs: what it is to read: ``input_ids`` and ``attention_mask``, (texts, tokens).

    Returns:
        (texts, tokens, 1), in nats, at each token those of all up to it; 0 at the first, which nothing predicts.
    """
    ids = inputs["input_ids"]
    at_once = len(ids) if torch.is_grad_enabled() else rows_at_once(model, ids.shape[1])
    parts = zip(*(torch.split(one, at_once) for one in (ids, inputs["attention_mask"])), strict=True)
    losses = [token_losses(model(input_ids=some, attention_mask=mask).logits, some) for some, mask in parts]
    return F.pad(-torch.cat(losses).cumsum(1), (1, 0))[..., None]


def chunks(totals: Tensor, text: Tensor) -> Tensor:
    """Take the log-likelihoods of chunks from those of all before their ends.

    Args:
        totals: (rows, 1), in the order of texts and of places in them.
        text: (rows,) the number of the text.

    Returns:
        (rows,), at most 0 up to rounding.
    """
    before = F.pad(totals[:-1, 0], (1, 0))
    starts = F.pad(text[1:] != text[:-1], (1, 0), value=True)
    return totals[:, 0] - before.masked_fill(starts, 0)


def likelihood_distance(student: Tensor, teacher: Tensor, text: Tensor) -> Tensor:
    """Give the approximate likelihood matching loss of each chunk, arXiv 2503.20083, equation 6.

    With a and b the log-likelihoods of a chunk under teacher and student and t a temperature,
    -(e^(a/t) b/t + (1 - e^(a/t)) log(1 - e^(b/t))).

    Args:
        student: (rows, 1) what `log_likelihoods` gives of the student, at places where tokens of both end.
        teacher: the same of the teacher.
        text: (rows,) the number of the text of each.

    Returns:
        (rows,).
    """
    a, b = ((chunks(totals.float(), text) / _TEMPERATURE).clamp(max=0) - _LEAST for totals in (teacher, student))
    return -(a.exp() * b + (1 - a.exp()) * torch.log1p(-b.exp()))


def changes(totals: Tensor, without: Tensor, text: Tensor) -> Tensor:
    """Say how a module changes its base's mind: log p of chunks with it minus log p without.

    Source: Jung & Kim, TiTok, ICLR 2026, arXiv 2510.04682, where it is the excess score of a token.

    Args:
        totals: (rows, 1) what `log_likelihoods` gives of the model with its module.
        without: (rows, 1) of the model alone.
        text: (rows,) the number of the text.

    Returns:
        (rows,), in nats; above 0 where the module makes likelier what is there.
    """
    return chunks(totals, text) - chunks(without, text)


def weighed_by_changes(
    distance: Callable[[Tensor, Tensor, Tensor], Tensor], usual: float
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Weigh a loss by how much the teacher's module changes, up or down.

    Args:
        distance: from rows of the student's and of the teacher's, and the number of the text of each, to (rows,).
        usual: what has weight 1.

    Returns:
        The same of the teacher's rows with one more column, last: what the first is without the module.
    """

    def weighed(student: Tensor, teacher: Tensor, text: Tensor) -> Tensor:
        change = changes(teacher[:, :1], teacher[:, -1:], text)
        return distance(student, teacher[:, :-1], text) * change.abs() / usual

    return weighed


def bits_per_byte(totals: Tensor, text: Ints, end: Ints, texts: Sequence[Text]) -> float:
    """Give the bits that a model needs for each UTF-8 byte of the texts, as far as these were read.

    Args:
        totals: (rows, 1) what `log_likelihoods` gives, in the order of texts and of places in them.
        text: (rows,) the number of the text.
        end: (rows,) the place in it, in characters.
        texts: the texts.
    """
    last = np.flatnonzero(np.diff(text, append=-1))
    size = sum(len(str(texts[number])[:place].encode()) for number, place in zip(text[last], end[last], strict=True))
    return float(-totals[torch.from_numpy(last)].sum()) / (size * math.log(2))
