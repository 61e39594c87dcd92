"""Batches of texts through both tokenizers, with the tokens that go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SamplingError
from ..files.texts import Text, singly
from ..models.pretrained import Pretrained
from .options import SampleOptions
from .pairing import PAIRINGS, Encoding, Pairs, encode

# One text in ten is held out, at least a batch.
HELD_OUT_SHARE = 0.1
MIN_PAIRS = 64
# At the least, so that few texts leave some to hold out.
_BATCHES = 4


@dataclass(frozen=True)
class Texts:
    """The texts of a batch.

    Attributes:
        count: how many.
        of_pair: (n,) the number of the text that each pair of tokens is from.
        begins: (n,) whether a pair begins a word, see `pairing.Pairs.begin_words`.
    """

    count: int
    of_pair: Tensor
    begins: NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Some texts as either model reads them.

    Attributes:
        teacher: what the teacher reads.
        student: what the student reads.
        pairs: which of their tokens go together.
        held_out: of a batch that is held out its texts, else None.
    """

    teacher: Encoding
    student: Encoding
    pairs: Pairs
    held_out: Texts | None


class Batches:
    """The batches of some texts, as long as they hold pairs, made one after the other."""

    def __init__(self, teacher: Pretrained, student: Pretrained, texts: Sequence[str], options: SampleOptions) -> None:
        """Prepare to read texts.

        Args:
            teacher: one model.
            student: the other.
            texts: what `in_order` gave.
            options: which tokens go together, of how much of a text.

        Raises:
            SamplingError: models that read no texts, or tokenizers that do not serve.
        """
        for base in (teacher, student):
            if base.family.inputs != "texts":
                raise SamplingError(
                    f"{base.name} ({base.config.model_type}) reads {base.family.inputs}, expected a model that reads "
                    "texts; copy the module (--align none, without --texts)"
                )
        self._tokenizers = teacher.tokenizer(), student.tokenizer()
        self._lengths = [min(options.max_length, base.longest) for base in (teacher, student)]
        self._pair, self._pairing = PAIRINGS[options.pairing](*self._tokenizers), options.pairing
        self._texts = _cut(texts, options.batch_size)
        self._pairs = self._paired = self._tokens = 0

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Batch]:
        self._pairs = self._paired = self._tokens = 0
        for texts, is_held_out in self._texts:
            teacher, student = (
                encode(tokenizer, texts, length)
                for tokenizer, length in zip(self._tokenizers, self._lengths, strict=True)
            )
            pairs = self._pair(texts, teacher, student)
            self._pairs += pairs.count
            self._paired += pairs.paired_student_tokens
            self._tokens += pairs.student_tokens
            if not pairs.count:
                continue
            yield Batch(teacher, student, pairs, _texts(texts, student, pairs) if is_held_out else None)

    def counts(self) -> tuple[int, int, int]:
        """Say how much was paired in the batches made so far: pairs, student tokens that were paired, all of them.

        Raises:
            SamplingError: too little.
        """
        if self._pairs < MIN_PAIRS:
            raise SamplingError(
                f"paired {self._pairs} tokens ({self._paired} of {self._tokens} student tokens), expected at least "
                f"{MIN_PAIRS}; "
                + ("give more texts" if self._pairing == "offsets" else "give more texts or use pairing 'offsets'")
            )
        return self._pairs, self._paired, self._tokens


def _texts(texts: Sequence[str], student: Encoding, pairs: Pairs) -> Texts:
    of_pair = pairs.text_of_pair(student.ids.shape[1])
    return Texts(len(texts), torch.from_numpy(of_pair), pairs.begin_words(texts, student))


def in_order(texts: Sequence[Text]) -> list[str]:
    """Leave out empty texts and sort the others by length, which saves padding and makes their order not matter.

    The texts of pairs are compared one by one.

    Raises:
        SamplingError: one string, or too few texts.
    """
    if isinstance(texts, str):
        raise SamplingError("got one string for texts, expected a list of texts")
    alone = [text for text in singly(texts) if text.strip()]
    if len(alone) < 2:
        raise SamplingError(
            f"found {len(alone)} non-empty texts, expected at least 2 (a tenth is held out); "
            "give plain text, one per line, some hundred lines"
        )
    return sorted(alone, key=lambda text: (len(text), text))


def _cut(ordered: Sequence[str], batch_size: int) -> list[tuple[Sequence[str], bool]]:
    """Cut texts into batches of texts of like length, and say of each whether it is held out."""
    size = max(1, min(batch_size, len(ordered) // _BATCHES))
    chosen = held_out_texts(len(ordered), size)
    of_each = (np.setdiff1d(np.arange(len(ordered)), chosen), chosen)
    batches = [
        (numbers[start : start + size], is_held_out)
        for is_held_out, numbers in enumerate(of_each)
        for start in range(0, len(numbers), size)
    ]
    in_turn = sorted(batches, key=lambda batch: int(batch[0][0]))
    return [([ordered[number] for number in numbers], bool(is_held_out)) for numbers, is_held_out in in_turn]


def unfitted_texts(texts: Sequence[Text], batch_size: int) -> list[Text]:
    """Choose those of some texts that nothing is fitted on; of pairs those of which one text is held out.

    Args:
        texts: what the models are compared on.
        batch_size: of `Batches`.

    Raises:
        SamplingError: as for `in_order`.
    """
    batches = _cut(in_order(texts), batch_size)
    fitted, held_out = (
        {text for batch, is_held_out in batches if is_held_out is out for text in batch} for out in (False, True)
    )
    return [text for text in texts if not (held_out - fitted).isdisjoint(singly([text]))]


def held_out_texts(count: int, fewest: int) -> NDArray[np.int64]:
    """Choose texts to hold out: a tenth of them, `fewest` at least, spread evenly over all lengths.

    Args:
        count: how many texts there are, in order of length.
        fewest: hold out so many; a batch, so that few texts leave enough to judge by.

    Returns:
        Their numbers, ascending.
    """
    held_out = max(round(count * HELD_OUT_SHARE), fewest) if count > 1 else 0
    return ((np.arange(held_out) + 0.5) * count / max(held_out, 1)).astype(np.int64)
