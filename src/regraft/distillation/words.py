"""Words, told apart before any tokenizer sees them, so that those of two models can be laid side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..files.texts import Text
from ..tasks.encoding import first_pieces
from .rows import Ints, Rows

# Punctuation around a word is words of its own, and so is each character of a script without spaces, as in BERT.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}](?:[^\s{_IDEOGRAPHS}]*[^\W{_IDEOGRAPHS}])?|[^\w\s]|_+")


def words_of(text: str) -> list[str]:
    """Split a text into words: at white space, and punctuation around a word from the word."""
    return _WORD.findall(text)


def ends_of_words(text: str) -> Ints:
    """Give the places behind the words of a text, in characters, (words,)."""
    return np.array([found.end() for found in _WORD.finditer(text)], dtype=np.int64)


def encode_words(tokenizer: Any, texts: Sequence[Text], max_length: int) -> tuple[Any, Rows]:
    """Encode texts as lists of words; a row is a word, answered by its first token.

    Args:
        tokenizer: one that knows which word a token is of.
        texts: plain texts, or pairs of them, which are read one behind the other.
        max_length: tokens after which a text is cut.
    """
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
