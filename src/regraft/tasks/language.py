"""Language modelling: from texts and conversations to packed blocks, and from log-likelihoods to scores.

A text is read after the token that the tokenizer puts before texts or, where it puts none, after the end of another
text, so that all of its tokens are scored, and scores of models with other tokenizers are of the same text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import DataCollatorForTokenClassification

from ..errors import TaskError
from ..files.texts import Text
from .chats import ANSWERS, find_answers
from .encoding import IGNORED
from .records import Task


def check_language(
    task: Task, where: str, row: Mapping[str, Any], renamed: Mapping[str, str], missing: set[str]
) -> dict[str, Any] | None:
    """Pick the text or the conversation of a row; the conversation where it has both.

    Args:
        task: the task.
        where: what to call the row.
        row: column -> value.
        renamed: name of a column of the task -> its name in the data.
        missing: texts that stand for a missing one.

    Returns:
        None for a row that is marked as missing.

    Raises:
        TaskError: it has neither, or one that nothing can be learnt from.
    """
    name = task.inputs[0]
    text, conversation = row.get(renamed[name]), row.get(renamed[task.messages])
    if conversation is not None:
        return {name: None, task.messages: _checked(conversation, f"{where}: {renamed[task.messages]!r}")}
    if text is None:
        raise TaskError(
            f"{where}: no {renamed[name]!r} and no {renamed[task.messages]!r}, found {', '.join(row)}; mend the row, "
            "or name the column (--column NAME=COLUMN)"
        )
    if not isinstance(text, str):
        raise TaskError(f"{where}: {renamed[name]!r} is of type {type(text).__name__}, expected a text")
    if text.strip() in missing:
        return None
    if not text.strip():
        raise TaskError(f"{where}: {renamed[name]!r} is empty; leave the row out")
    return {name: text, task.messages: None}


def _checked(conversation: Any, where: str) -> list[dict[str, str]]:
    messages = conversation if isinstance(conversation, list) else [None]
    turns = [
        {key: message[key] for key in ("role", "content")}
        for message in messages
        if isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))
    ]
    if len(turns) < len(messages):
        raise TaskError(f"{where} holds something else than messages, expected a list of {{role, content}}, both texts")
    answers = [turn["content"] for turn in turns if turn["role"] == ANSWERS]
    if not answers:
        raise TaskError(f"{where} has no answer, expected a message of the role {ANSWERS}; leave the row out")
    if not all(answer.strip() for answer in answers):
        raise TaskError(f"{where} has an empty answer; leave the row out")
    return turns


def texts_of(task: Task, row: Mapping[str, Any]) -> list[Text]:
    """Give what is to be read of a row, as plain texts: its text, or the messages of its conversation."""
    conversation = row[task.messages]
    return [row[task.inputs[0]]] if conversation is None else [turn["content"] for turn in conversation]


class Tokens(NamedTuple):
    """The tokens of a row.

    Attributes:
        tokens: their ids.
        labels: the same where a token is to be predicted, else `IGNORED`.
        size: UTF-8 bytes of what is to be predicted.
    """

    tokens: list[int]
    labels: list[int]
    size: int


@dataclass(frozen=True)
class Reader:
    """A tokenizer, with the tokens that it has between texts.

    Attributes:
        tokenizer: the tokenizer.
        begin: what it puts before a text; may be none.
        end: the end of a text.
    """

    tokenizer: Any
    begin: list[int]
    end: int

    @classmethod
    def of(cls, tokenizer: Any) -> Reader:
        """Ask a tokenizer what stands before and behind a text.

        Raises:
            TaskError: it knows no end of a text.
        """
        probe = tokenizer("a", return_special_tokens_mask=True)
        tokens, own = probe["input_ids"], [at for at, special in enumerate(probe["special_tokens_mask"]) if not special]
        first, last = (own[0], own[-1] + 1) if own else (0, 0)
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else next(iter(tokens[last:]), None)
        if end is None:
            raise TaskError(
                f"{type(tokenizer).__name__} has no token for the end of a text, expected one (eos_token); use a "
                "tokenizer of a language model"
            )
        return cls(tokenizer, tokens[:first], end)

    def text(self, text: str) -> Tokens:
        """Encode a text, without what stands before and behind it."""
        tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return Tokens(tokens, [*tokens], len(text.encode()))

    def check_template(self) -> None:
        """Refuse a tokenizer without a chat template.

        Raises:
            TaskError: it has none.
        """
        if not self.tokenizer.chat_template:
            raise TaskError(
                f"the {type(self.tokenizer).__name__} has no chat template for messages; use a model that has one, or "
                "rows of texts"
            )

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> Tokens:
        """Encode a conversation as the tokenizer's template has it; its answers are to be predicted, and their ends.

        The bytes are those of the answers alone: what ends them is the template's.

        Raises:
            TaskError: there is no template, or one that does not render the conversation.
        """
        self.check_template()
        if not self.tokenizer.is_fast:
            raise TaskError(
                f"{type(self.tokenizer).__name__} cannot tell which token belongs to an answer; use a fast tokenizer"
            )
        text, answers = find_answers(self.tokenizer, messages)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens, places = encoded["input_ids"], encoded["offset_mapping"]
        labels = [
            token if any(answer.start <= at and to <= answer.end for answer in answers) else IGNORED
            for token, (at, to) in zip(tokens, places, strict=True)
        ]
        return Tokens(tokens, labels, sum(len(text[answer.said : answer.through].encode()) for answer in answers))


def pack(task: Task, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Encode rows to train on: one after another, the end of a text behind each, cut into blocks.

    Texts that share a block see each other, as is usual where language models are trained. A conversation ends as its
    template ends it.

    Args:
        task: the task.
        rows: one of its splits.
        tokenizer: of the model.
        max_length: tokens of a block; the last of a thousand rows may be shorter.

    Raises:
        TaskError: the tokenizer or its chat template does not serve.
    """
    reader = Reader.of(tokenizer)

    def packed(text: str | None, conversation: Any) -> tuple[list[int], list[int]]:
        if text is None:
            tokens, labels, _ = reader.conversation(conversation)
            return tokens, labels
        tokens, labels, _ = reader.text(text)
        return [*reader.begin, *tokens, reader.end], [*[IGNORED] * len(reader.begin), *labels, reader.end]

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[list[int]]]:
        pairs = [packed(*row) for row in zip(batch[task.inputs[0]], batch[task.messages], strict=True)]
        tokens, labels = (list(chain.from_iterable(column)) for column in zip(*pairs, strict=True))
        cuts = range(0, len(tokens), max_length)
        blocks = [(tokens[at : at + max_length], labels[at : at + max_length]) for at in cuts]
        return _columns(block for block in blocks if _predicts(block[1]))

    return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Packing")


def encode_windows(task: Task, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Encode rows to score: each by itself, so that no score depends on what else there is.

    One of more than `max_length` tokens is cut into windows, in which every token is scored once; arguments as for
    `pack`. The column ``bytes`` holds the UTF-8 bytes of what is scored, those of a cut one beside its first window.
    """
    reader = Reader.of(tokenizer)

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        windows, sizes = [], []
        for text, conversation in zip(batch[task.inputs[0]], batch[task.messages], strict=True):
            row = reader.conversation(conversation) if text is None else reader.text(text)
            own = [window for window in _windows(row, reader, max_length) if _predicts(window[1])]
            windows += own
            sizes += [row.size, *[0] * len(own)][: len(own)]
        return {**_columns(windows), "bytes": sizes}

    return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenizing")


def _windows(row: Tokens, reader: Reader, length: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a sequence; a window that begins with a token to predict gets something before it to predict it from."""
    before = reader.begin or [reader.end]
    at = 0
    while at < len(row.tokens):
        start = before if row.labels[at] != IGNORED else []
        to = at + max(1, length - len(start))
        yield [*start, *row.tokens[at:to]], [*[IGNORED] * len(start), *row.labels[at:to]]
        at = to


def _predicts(labels: Sequence[int]) -> bool:
    return any(label != IGNORED for label in labels[1:])


def _columns(pairs: Iterable[tuple[list[int], list[int]]]) -> dict[str, list[list[int]]]:
    pairs = list(pairs)
    tokens, labels = [ids for ids, _ in pairs], [labels for _, labels in pairs]
    return {"input_ids": tokens, "attention_mask": [[1] * len(ids) for ids in tokens], "labels": labels}


def language_collator(tokenizer: Any) -> Any:
    """Return what makes a padded batch of encoded rows: on the right, where no position depends on it."""
    padding = copy.deepcopy(tokenizer)
    padding.padding_side = "right"
    return DataCollatorForTokenClassification(padding)


def score_language(task: Task, nats: NDArray[np.floating[Any]], counts: NDArray[np.int64]) -> dict[str, float]:
    """Score log-likelihoods.

    Args:
        task: names the scores.
        nats: (windows,) minus the log-likelihood of each.
        counts: (windows, 2) tokens that were predicted, and UTF-8 bytes of what they stand for.

    Returns:
        The mean loss of a token in nats; its exponential; and bits per byte (Gao et al. 2020, "The Pile"), which alone
        compares models whose tokenizers differ.
    """
    total = float(nats.astype(np.float64).sum())
    tokens, size = (int(count) for count in counts.sum(0))
    values = total / tokens, math.exp(min(total / tokens, 700.0)), total / math.log(2) / size
    return dict(zip(task.metrics, values, strict=True))
