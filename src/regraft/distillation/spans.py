"""Where a model finds the answer to a question: how likely each word of a context is its start, and its end.

Words are told apart before any tokenizer sees them, so answers of two models can be laid side by side. A word is the
start if any of its tokens is: its logit is the logsumexp of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TaskError
from ..files.texts import Text
from .rows import Rows
from .words import ends_of_words

_WORDS = "word_of_token"


def encode_questions(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[dict[str, Tensor], Rows]:
    """Encode questions and contexts as models of question answering read them; a row is a word of a context.

    A token is of the first word that ends after it begins, so one that holds the space before a word is of that word.

    Args:
        tokenizer: one that knows the places of its tokens.
        texts: pairs of a question and the context that is asked.
        max_length: tokens after which a context is cut; a question never is.

    Raises:
        TaskError: texts that are no pairs, a question that leaves no room, or a tokenizer that does not serve.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"{type(tokenizer).__name__} reports no character offsets, expected a fast tokenizer for question answering"
        )
    pairs = [text for text in texts if isinstance(text, tuple)]
    if len(pairs) < len(texts):
        raise TaskError(
            f"found {len(texts) - len(pairs)} texts that are no pairs, expected each question with its context for "
            "question answering; name two columns of a table (--column question,context)"
        )
    questions, contexts = ([pair[side] for pair in pairs] for side in (0, 1))
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if long := sum(len(ids) >= room for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]):
        raise TaskError(
            f"{long} questions fill the {max_length} tokens that are read, so that no context is; expected a question "
            "first, its context second (--column question,context), or a larger --max-length"
        )
    encoded = tokenizer(
        questions,
        contexts,
        padding=True,
        truncation="only_second",
        max_length=max_length,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    starts, words = encoded.pop("offset_mapping")[..., 0].numpy(), np.full(encoded["input_ids"].shape, -1)
    for number, context in enumerate(contexts):
        ends = ends_of_words(context)
        of_context = np.array([side == 1 for side in encoded.sequence_ids(number)])
        found = np.searchsorted(ends, starts[number], side="right")
        words[number] = np.where(of_context & (found < len(ends)), found, -1)
    rows = [(text, word) for text, own in enumerate(words) for word in np.unique(own[own >= 0])]
    text, word = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return {**encoded, _WORDS: torch.from_numpy(words)}, Rows(text, word, word)


def span_logits(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Give the logits of each word, as the start of the answer and as its end.

    Args:
        model: of question answering.
        inputs: what `encode_questions` gives.

    Returns:
        (texts, words, 2); very low where a text has no such word.
    """
    words = inputs[_WORDS]
    said = model(**{name: tensor for name, tensor in inputs.items() if name != _WORDS})
    logits = torch.stack([said.start_logits, said.end_logits], dim=-1).float()
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    others = words[:, None, :] != numbers[:, None]
    least = torch.finfo(logits.dtype).min  # infinity would have no gradient where a word has no token
    return logits[:, None].masked_fill(others[..., None], least).logsumexp(2)


def mean_of_words(states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Average (texts, tokens, width) states over the tokens of each word of a context; (texts, words, width)."""
    words = inputs[_WORDS]
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    own = (words[:, None, :] == numbers[:, None]).to(states.dtype)
    return own @ states / own.sum(-1, keepdim=True).clamp(min=1)


def span_distance(_: Tensor, temperature: float, *_of_labels: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give the loss that says how far a student's starts and ends are from its teacher's.

    Args:
        temperature: what logits are divided by.

    Returns:
        From rows of the student's and of the teacher's, (rows, 2), and the texts that they are of, to (texts,): the
        Kullback-Leibler divergences of the start and of the end, over the words that both have, added, times the
        squared temperature; in nats.
    """

    def distance(student: Tensor, teacher: Tensor, text: Tensor) -> Tensor:
        place = torch.unique(text, return_inverse=True)[1]
        mine, its = (_log_softmax(logits.float() / temperature, place) for logits in (student, teacher))
        return temperature**2 * _summed((its.exp() * (its - mine)).sum(1, keepdim=True), place)[:, 0]

    return distance


def _log_softmax(logits: Tensor, text: Tensor) -> Tensor:
    """Normalise each column over the rows of a text, numbered from 0."""
    count = int(text.max()) + 1 if len(text) else 0
    where = text[:, None].expand_as(logits)
    low = logits.new_full((count, logits.shape[1]), -torch.inf)
    largest = low.scatter_reduce(0, where, logits.detach(), "amax")[text]
    shifted = logits - largest
    return shifted - _summed(shifted.exp(), text).log()[text]


def _summed(values: Tensor, text: Tensor) -> Tensor:
    count = int(text.max()) + 1 if len(text) else 0
    return values.new_zeros(count, values.shape[1]).index_add(0, text, values)
