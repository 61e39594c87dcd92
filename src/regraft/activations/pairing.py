"""Which student token goes with which teacher token when both models read the same text.

`position` is the paper's rule: the same piece at the same index. `offsets` works across tokenizers: it cuts each text
at the character boundaries that both tokenizers respect, and pairs what lies between two cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SamplingError

Ints = NDArray[np.int64]

_BOUNDARY = "\u2581\u0120 "  # how SentencePiece and byte-level BPE write the space before a word
_WHITESPACE = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


@dataclass(frozen=True)
class Encoding:
    """One batch of texts through one tokenizer, padded; arrays are (texts, tokens).

    Attributes:
        ids: token ids.
        attention: 1 where there is a token, 0 on padding.
        special: 1 on special tokens and padding.
        spans: index of the first character of each token, and behind its last, (texts, tokens, 2); None where the
            tokenizer reports no offsets.
    """

    ids: Ints
    attention: Ints
    special: Ints
    spans: Ints | None

    def first(self, count: int) -> Encoding:
        """Give the first texts alone."""
        spans = None if self.spans is None else self.spans[:count]
        return Encoding(self.ids[:count], self.attention[:count], self.special[:count], spans)


@dataclass(frozen=True)
class Pairs:
    """Paired tokens of one batch, by row in the activations flattened to (texts * tokens, d).

    Row ``student_rows[i]`` belongs to pair ``student_pair[i]``, and likewise for the teacher; a pair may hold several
    rows of either. Both lists are in order of text and position.

    Attributes:
        count: number of pairs.
        student_tokens: student tokens that could have been paired (no padding, no special tokens).
    """

    count: int
    student_rows: Ints
    student_pair: Ints
    teacher_rows: Ints
    teacher_pair: Ints
    student_tokens: int

    @property
    def paired_student_tokens(self) -> int:
        """Student tokens that belong to a pair."""
        return len(self.student_rows)

    def text_of_pair(self, length: int) -> Ints:
        """Give the number of the text that each pair is from, (count,), of texts padded to `length` student tokens."""
        texts = np.empty(self.count, dtype=np.int64)
        texts[self.student_pair] = self.student_rows // length
        return texts

    def begin_words(self, texts: Sequence[str], student: Encoding) -> NDArray[np.bool_]:
        """Tell which pairs begin a word, (count,): first in the text, behind white space, or at or behind punctuation.

        Special tokens begin none. A tokenizer that reports no offsets cannot tell; then all others do.

        Args:
            texts: those of the batch.
            student: as its student reads them.
        """
        length = student.ids.shape[1]
        first = self.student_rows[np.searchsorted(self.student_pair, np.arange(self.count))]
        begins: NDArray[np.bool_] = student.special.reshape(-1)[first] == 0
        if student.spans is not None:
            spans = student.spans.reshape(-1, 2)[first]
            said = zip(first // length, spans.tolist(), strict=True)
            begins &= [_begins_word(texts[text][:end], start) for text, (start, end) in said]
        return begins


def _begins_word(text: str, start: int) -> bool:
    """Tell whether what is visible of a text from some character on begins a word."""
    token = text[start:].lstrip()
    before = text[: len(text) - len(token)][-1:]
    return bool(token) and not (before.isalnum() and token[0].isalnum())


class Position:
    """The same piece string at the same index, padding excluded (the authors' code)."""

    def __init__(self, teacher: Any, student: Any) -> None:
        """Match the two vocabularies once, so that a batch takes one comparison of arrays."""
        student_id = student.get_vocab()
        teacher_vocabulary = teacher.get_vocab()
        self._student_id = np.full(max(teacher_vocabulary.values()) + 1, -1, dtype=np.int64)
        for piece, index in teacher_vocabulary.items():
            self._student_id[index] = student_id.get(piece, -1)

    def __call__(self, texts: Sequence[str], teacher: Encoding, student: Encoding) -> Pairs:
        """Pair the tokens of one batch."""
        del texts
        length = min(teacher.ids.shape[1], student.ids.shape[1])
        same = self._student_id[teacher.ids[:, :length]] == student.ids[:, :length]
        same &= (teacher.attention[:, :length] & student.attention[:, :length]).astype(bool)
        text, token = np.nonzero(same)
        order = np.arange(len(text))
        return Pairs(
            count=len(text),
            student_rows=text * student.ids.shape[1] + token,
            student_pair=order,
            teacher_rows=text * teacher.ids.shape[1] + token,
            teacher_pair=order,
            student_tokens=int(student.attention.sum()),
        )


class Offsets:
    """Spans of characters on whose boundaries both tokenizers agree; special tokens excluded."""

    def __init__(self, teacher: Any, student: Any) -> None:
        """Refuse tokenizers that do not report offsets."""
        for who, tokenizer in (("teacher", teacher), ("student", student)):
            if not getattr(tokenizer, "is_fast", False):
                raise SamplingError(
                    f"the {who}'s tokenizer ({type(tokenizer).__name__}) reports no character offsets, "
                    "expected a fast tokenizer; use pairing 'position'"
                )
        # SentencePiece gives a lone word-boundary piece the first character of the word it precedes.
        self._blank = [
            [index for piece, index in tokenizer.get_vocab().items() if not piece.strip(_BOUNDARY)]
            for tokenizer in (teacher, student)
        ]

    def __call__(self, texts: Sequence[str], teacher: Encoding, student: Encoding) -> Pairs:
        """Pair the tokens of one batch.

        The texts are laid end to end, so that one pass over arrays serves the whole batch: a cut between two
        characters survives where it lies inside no token of either side, and a span between surviving cuts counts
        where tokens of both sides cover all its visible characters.
        """
        lengths = np.array([len(text) for text in texts])
        first = np.concatenate([[0], np.cumsum(lengths)])
        characters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        visible = ~np.isin(characters, _WHITESPACE)
        tokens = [
            (encoding.special == 0) & ~np.isin(encoding.ids, blank)
            for encoding, blank in zip((teacher, student), self._blank, strict=True)
        ]
        sides = [
            _place(encoding, mask, first, visible) for encoding, mask in zip((teacher, student), tokens, strict=True)
        ]

        cuts = np.ones(len(visible), dtype=bool)
        for _, starts, ends in sides:
            cuts &= _between(starts + 1, ends, len(visible)) == 0
        cuts[first[:-1][lengths > 0]] = True
        span = np.cumsum(cuts) - 1
        spans = int(span[-1]) + 1 if len(span) else 0

        whole = np.ones(spans, dtype=bool)
        for _, starts, ends in sides:
            uncovered = visible & (_between(starts, ends, len(visible)) == 0)
            whole[span[uncovered]] = False
            whole &= np.bincount(span[starts], minlength=spans) > 0
        number = np.cumsum(whole) - 1

        paired = []
        for rows, starts, _ in sides:
            counts = whole[span[starts]]
            paired.append((rows[counts], number[span[starts[counts]]]))
        (teacher_rows, teacher_pair), (student_rows, student_pair) = paired
        return Pairs(
            count=int(whole.sum()),
            student_rows=student_rows,
            student_pair=student_pair,
            teacher_rows=teacher_rows,
            teacher_pair=teacher_pair,
            student_tokens=int(tokens[1].sum()),
        )


def _place(
    encoding: Encoding, mask: NDArray[np.bool_], first: Ints, visible: NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints]:
    """Return rows, starts and ends of the tokens of a mask with visible characters, in the laid-out characters."""
    assert encoding.spans is not None
    text, token = np.nonzero(mask)
    starts, ends = encoding.spans[text, token].T + first[text]
    # Tokenizers disagree on whether the space before a word is part of it: shrink every token to what is visible.
    before = np.concatenate([[0], np.cumsum(visible)])
    position = np.append(np.flatnonzero(visible), 0)
    some = before[ends] > before[starts]
    text, token, starts, ends = text[some], token[some], starts[some], ends[some]
    starts, ends = position[before[starts]], position[before[ends] - 1] + 1
    return text * encoding.ids.shape[1] + token, starts, ends


def _between(starts: Ints, ends: Ints, length: int) -> Ints:
    """Count, for each of `length` indices, the ranges [start, end) that contain it."""
    steps = np.zeros(length + 1, dtype=np.int64)
    valid = ends > starts
    np.add.at(steps, starts[valid], 1)
    np.add.at(steps, ends[valid], -1)
    return np.cumsum(steps)[:-1]


Pairing = Callable[[Sequence[str], Encoding, Encoding], Pairs]
PAIRINGS: Mapping[str, Callable[[Any, Any], Pairing]] = {"position": Position, "offsets": Offsets}
"""A pairing is made for two tokenizers, which it may refuse; then it pairs the tokens of batches."""


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoding:
    """Tokenize a batch, padded to its longest text and cut at `max_length` tokens."""
    offsets = bool(getattr(tokenizer, "is_fast", False))
    batch = tokenizer(
        list(texts),
        padding=True,
        padding_side="right",  # so that equal indices are equal positions
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=offsets,
        return_tensors="np",
    )
    ids, attention, special = (
        np.asarray(batch[key], dtype=np.int64) for key in ("input_ids", "attention_mask", "special_tokens_mask")
    )
    special = np.where(attention == 0, 1, special)
    spans = np.asarray(batch["offset_mapping"], dtype=np.int64) if offsets else None
    return Encoding(ids, attention, special, spans)


def pool(activations: Tensor, rows: Ints, pair: Ints, count: int, last: bool) -> Tensor:
    """Reduce the rows of each pair to one vector.

    Args:
        activations: (texts * tokens, d).
        rows: (m,) rows that belong to a pair, in order.
        pair: (m,) the pair of each, ascending.
        count: number of pairs.
        last: take the last row of a pair (causal models) rather than the mean.

    Returns:
        (count, d).
    """
    device = activations.device
    if len(rows) == count:
        return activations[torch.from_numpy(rows).to(device)]
    if last:
        closing = np.append(pair[1:] != pair[:-1], True)
        return activations[torch.from_numpy(rows[closing]).to(device)]
    index = torch.from_numpy(pair).to(device)
    members = activations[torch.from_numpy(rows).to(device)]
    members = members.to(torch.promote_types(members.dtype, torch.float32))
    total = members.new_zeros(count, members.shape[1]).index_add_(0, index, members)
    return total / torch.bincount(index, minlength=count)[:, None]
