"""From rows with labels to what a model takes, and from its logits to scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

from ..errors import TaskError
from .records import Task

IGNORED = -100


def encode_split(task: Task, dataset: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Tokenize. Of a word the first piece carries its tag, everything else is ignored.

    Args:
        task: the task.
        dataset: one of its splits; targets are names of labels.
        tokenizer: a fast tokenizer, for words.
        max_length: tokens after which an input is cut (of two texts the longer one).

    Raises:
        TaskError: the tokenizer cannot tell which piece belongs to which word.
    """
    words = task.task_type == "TOKEN_CLS"
    index = {name: i for i, name in enumerate(task.labels)}
    if words and not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"{type(tokenizer).__name__} cannot tell which piece belongs to which word; use a fast tokenizer"
        )

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        inputs = [batch[name] for name in task.inputs]
        encoded = tokenizer(*inputs, is_split_into_words=words, truncation=True, max_length=max_length)
        if not words:
            return {**encoded, "labels": [index[name] for name in batch[task.target]]}
        tags = [[index[name] for name in names] for names in batch[task.target]]
        return {**encoded, "labels": [_of_first_pieces(encoded.word_ids(row), tags[row]) for row in range(len(tags))]}

    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, desc="Tokenizing")


def _of_first_pieces(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    return [IGNORED if word is None else tags[word] for word in first_pieces(words)]


def first_pieces(words: Sequence[int | None]) -> list[int | None]:
    """Keep the number of a word at its first piece alone.

    Args:
        words: the word that each token is of, None for special tokens.
    """
    return [None if word == before else word for word, before in zip(words, [None, *words[:-1]], strict=True)]


def score(task: Task, predictions: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> dict[str, float]:
    """Score logits in percent.

    Args:
        task: its labels name the columns of the logits.
        predictions: (texts, labels) or (sentences, tokens, labels) logits.
        labels: (texts,) or (sentences, tokens) indices into the task's labels, `IGNORED` where no word begins.

    Returns:
        For words: precision, recall and F1 of spans, micro-averaged, as conlleval does. For texts: accuracy.
    """
    best = predictions.argmax(-1)
    if task.task_type == "SEQ_CLS":
        return {"accuracy": 100 * float((best == labels).mean())}
    labelled = labels != IGNORED
    names = np.array(task.labels)
    spans = [names[row[mask]].tolist() for row, mask in zip(best, labelled, strict=True)]
    truth = [names[row[mask]].tolist() for row, mask in zip(labels, labelled, strict=True)]
    scores = precision_recall_fscore_support(truth, spans, average="micro", zero_division=0)
    return {name: 100 * float(value) for name, value in zip(("precision", "recall", "f1"), scores, strict=False)}


def most_frequent(task: Task, rows: Dataset) -> tuple[str, float]:
    """Find the label that most texts have, and what always answering it would score, in percent.

    Args:
        task: the task.
        rows: those that are scored; targets are names of labels.
    """
    label, count = Counter(rows[task.target]).most_common(1)[0]
    return label, 100 * count / len(rows)
