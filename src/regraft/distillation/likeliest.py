"""What a language model expects of each token: the likeliest, one by one, and the rest as one.

For models of one tokenizer: their tokens mean the same, so all that a model says of a token can be learnt, and not how
likely the one was that came.

A row is a token of a text, or its end where it was not cut, and its columns are, for K likeliest tokens: the
log-likelihood of all up to it, as in `likelihood`; K + 1 log-probabilities, the last one of all other tokens together;
and the K ids, which float32 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..files.fingerprints import hash_rows
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..tasks.language import Reader
from ..training.language import rows_at_once, token_losses
from .likelihood import encoded_texts, log_likelihoods, padded
from .losses import divergence
from .rows import Rows

_LIKELIEST = 64
# The log-probability of what is impossible: float16 holds it, and its exponential is 0.
_NEVER = -1e4
_KNOWN = "known_tokens"


def tokens_of(base: Pretrained, texts: Sequence[Text]) -> str:
    """Tell the tokens of a model from those of others.

    By its vocabulary, by how many of it the model has logits for, and by the ids that its tokenizer gives to texts.
    """
    tokenizer = base.tokenizer()
    reader, known = Reader.of(tokenizer), min(len(tokenizer), base.config.get_text_config().vocab_size)
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return hash_rows([sorted(tokenizer.get_vocab().items()), known, reader.begin, reader.end, ids])


def encode_all_tokens(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[dict[str, Tensor], Rows]:
    """Encode texts as `likelihood.encode_tokens` does, with their ends; a row is any token, told by its number.

    Where the answer is, is the token before it, from which it is predicted. Arguments and errors as there.
    """
    reader, before, encoded = encoded_texts(tokenizer, texts, max_length)
    whole = [[*before, *own, reader.end][:max_length] for own in encoded["input_ids"]]
    rows = [(text, number) for text, ids in enumerate(whole) for number in range(len(ids) - len(before))]
    text, number = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    inputs = {**padded(whole, reader.end), _KNOWN: torch.tensor(len(tokenizer))}
    return inputs, Rows(text, number, number + len(before) - 1)


def of_next(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Give at each token the log-likelihood of all up to the next one, (texts, tokens, 1), see `log_likelihoods`."""
    return log_likelihoods(model, inputs).roll(-1, 1)


def next_logits(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Give at each token the logits of the next one, (texts, tokens, vocabulary)."""
    logits: Tensor = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits


def likeliest(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Give at each token what a model expects of the next one.

    Args:
        model: a causal language model.
        inputs: what `encode_all_tokens` gives.

    Returns:
        (texts, tokens, 2 + 2 K), the columns as above. Logits beyond the tokenizer's tokens are of the rest.
    """
    ids, mask, known = inputs["input_ids"], inputs["attention_mask"], int(inputs[_KNOWN])
    at_once = rows_at_once(model, ids.shape[1])
    found = []
    for some, attended in zip(torch.split(ids, at_once), torch.split(mask, at_once), strict=True):
        logits = model(input_ids=some, attention_mask=attended).logits.float()
        totals = F.pad(-token_losses(logits, some).cumsum(1), (0, 1))[..., None]
        of_tokens = logits[..., :known]
        top = of_tokens.topk(min(_LIKELIEST, of_tokens.shape[-1])).indices
        found.append(torch.cat([totals, classes(logits, top), top.to(totals)], dim=-1))
    return torch.cat(found)


def classes(logits: Tensor, ids: Tensor) -> Tensor:
    """Give the log-probabilities of some tokens, and of all others together.

    Args:
        logits: (..., vocabulary).
        ids: (..., K) the tokens.

    Returns:
        (..., K + 1); very low of the others where there are none.
    """
    whole = logits.logsumexp(-1, keepdim=True)
    some = logits.gather(-1, ids) - whole
    if ids.shape[-1] == logits.shape[-1]:
        return F.pad(some, (0, 1), value=_NEVER)
    rest = logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - whole
    return torch.cat([some, rest], dim=-1).clamp(min=_NEVER)


def likeliest_distance(temperature: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give the loss that says how far a student is from expecting what its teacher expects.

    Args:
        temperature: what the log-probabilities of the classes are divided by.

    Returns:
        From (rows, vocabulary) logits of the student, (rows, 2 + 2 K) of the teacher and the texts that they are of to
        (rows,): the Kullback-Leibler divergence of the student's classes from the teacher's, times the squared
        temperature, in nats.
    """

    def distance(student: Tensor, teacher: Tensor, _: Tensor) -> Tensor:
        count = teacher.shape[1] // 2 - 1
        expected, ids = teacher[:, 1 : count + 2], teacher[:, count + 2 :].long()
        return divergence(classes(student.float(), ids), expected, temperature)

    return distance


def packed(answers: Tensor) -> dict[str, Tensor]:
    """Take the columns apart for a file: float32, float16 and int32; or the first where that is all there is."""
    if answers.shape[1] == 1:
        return {"logits": answers}
    count = answers.shape[1] // 2 - 1
    totals, expected, ids = torch.split(answers, [1, count + 1, count], dim=1)
    return {"logits": totals, "likeliest": expected.half(), "ids": ids.int()}


def unpacked(tensors: Mapping[str, Tensor]) -> Tensor:
    """Put together what was taken apart."""
    names = ("logits", "likeliest", "ids")
    return torch.cat([tensors[name].float() for name in names if name in tensors], dim=1)
