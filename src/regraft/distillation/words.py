"""Words, told apart before any tokenizer sees them, so that those of two models can be laid side by side."""

from __future__ import annotations

import re

import numpy as np

from .rows import Ints

# Punctuation around a word is words of its own, and so is each character of a script without spaces, as in BERT.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}](?:[^\s{_IDEOGRAPHS}]*[^\W{_IDEOGRAPHS}])?|[^\w\s]|_+")


def words_of(text: str) -> list[str]:
    """Split a text into words: at white space, and punctuation around a word from the word."""
    return _WORD.findall(text)


def ends_of_words(text: str) -> Ints:
    """Give the places behind the words of a text, in characters, (words,)."""
    return np.array([found.end() for found in _WORD.finditer(text)], dtype=np.int64)
