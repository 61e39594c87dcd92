"""What is done with the rows of a task, by its task type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from ..files.texts import Text
from .encoding import encode_split, most_frequent, score
from .labelled import check_labelled, inputs_of
from .language import check_language, encode_windows, language_collator, pack, score_language, texts_of
from .records import Task

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """What is done with rows.

    Attributes:
        check: picks the task's columns of a row, None for one that is marked as missing; of the task, what to call the
            row, the row, the names of the columns in it, and the texts that stand for a missing one.
        texts: gives what is to be read of a checked row, as plain texts and pairs of them.
        encode: makes of a split what is scored; of the task, the split, the tokenizer and how many tokens fit.
        pack: makes of it what is trained on.
        collator: gives what makes a padded batch of encoded rows.
        score: gives the scores by name; of the task, and what is kept of the outputs and of the labels.
        constant: finds the answer that most rows have, and what always giving it would score.
        words: whether the tokenizer is to be told that texts are split into words.
    """

    check: Callable[[Task, str, Row, Mapping[str, str], set[str]], dict[str, Any] | None]
    texts: Callable[[Task, Row], list[Text]]
    encode: Callable[[Task, Dataset, Any, int], Dataset]
    pack: Callable[[Task, Dataset, Any, int], Dataset]
    collator: Callable[[Any], Any]
    score: Callable[[Task, NDArray[Any], NDArray[np.int64]], dict[str, float]]
    constant: Callable[[Task, Dataset], tuple[str, float] | None]
    words: bool = False


def _none(_: Task, __: Dataset) -> None:
    return None


KINDS: Mapping[str, Kind] = {
    "TOKEN_CLS": Kind(
        check_labelled,
        inputs_of,
        encode_split,
        encode_split,
        DataCollatorForTokenClassification,
        score,
        _none,  # its score counts spans
        words=True,
    ),
    "SEQ_CLS": Kind(
        check_labelled, inputs_of, encode_split, encode_split, DataCollatorWithPadding, score, most_frequent
    ),
    "CAUSAL_LM": Kind(check_language, texts_of, encode_windows, pack, language_collator, score_language, _none),
}
"""PEFT's task type -> what is done with rows."""
