"""What models with a task head read: texts, and words that are told apart before any tokenizer sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TaskError
from ..files.texts import Text
from ..tasks.encoding import first_pieces
from .rows import Rows
from .words import words_of


def encode_texts(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[Any, Rows]:
    """Encode texts, or pairs of them; a row is a text.

    Args:
        tokenizer: of the model.
        texts: plain texts, or pairs.
        max_length: tokens after which one is cut.

    Raises:
        TaskError: texts and pairs of texts mixed.
    """
    pairs = [text for text in texts if isinstance(text, tuple)]
    if pairs and len(pairs) < len(texts):
        raise TaskError(
            f"found {len(pairs)} pairs of texts among {len(texts)} texts, expected pairs alone or texts alone"
        )
    columns = [list(column) for column in zip(*pairs, strict=True)] if pairs else [list(texts)]
    encoded = tokenizer(*columns, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return encoded, Rows(np.arange(len(texts)), np.zeros(len(texts), dtype=np.int64), None)


def encode_words(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[Any, Rows]:
    """Encode the words of texts; a row is a word, answered by its first piece. Arguments as for `encode_texts`."""
    words = [words_of(text if isinstance(text, str) else " ".join(text)) for text in texts]
    encoded = tokenizer(
        words, is_split_into_words=True, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    rows = [
        (text, word, token)
        for text in range(len(texts))
        for token, word in enumerate(first_pieces(encoded.word_ids(text)))
        if word is not None
    ]
    text, word, token = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return encoded, Rows(text, word, token)
