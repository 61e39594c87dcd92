"""How modules of each task type answer: what a row of answers is, how it is asked for, and which loss learns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..files.texts import Text
from ..tasks.agreement import Floats, mean_vectors, whole_texts
from .encoding import encode_texts, encode_words
from .hidden import last_states
from .likeliest import encode_all_tokens, likeliest, likeliest_distance, next_logits, of_next, packed, unpacked
from .likelihood import encode_tokens, likelihood_distance, log_likelihoods
from .losses import distance_of_answers
from .rows import Ints, Rows, halved, whole
from .spans import encode_questions, mean_of_words, span_distance, span_logits
from .vectors import Bridge, angle, mean_of_tokens, pooled

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From (rows, labels) of a student's answers and of its teacher's, and the number of the text of each row, (rows,), to
losses, one for each row or one for each text."""


def _logits(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs).logits
    return logits


def _of_tokens(states: Tensor, _: Mapping[str, Tensor]) -> Tensor:
    return states


@dataclass(frozen=True)
class AnswerKind:
    """How modules of a task type answer.

    Attributes:
        of: what a row of the answers is: ``"words"``, ``"texts"``, ``"tokens"`` or ``"words of contexts"``.
        encode: from a tokenizer, texts and the number of tokens after which they are cut to the model's inputs and the
            rows that they have.
        says: from a model and its inputs to what it says, of which rows are taken.
        teaches: what a teacher says, where that is more than what answers are judged by; None where it is not.
        learns: what of a student the loss reads, where that is something else; None where it is not.
        distance: the loss, from all that the teacher gave, the temperature that its answers are softened with and,
            where these are labels, whether the largest alone counts and whether rows count by how sure it is.
        has_head: whether a task head answers; else the model's own does.
        in_bits: whether answers are log-likelihoods, of which there are bits per byte; what is taught beside them
            stands in further columns.
        has_labels: whether the columns are labels, or one number, so that they may have names.
        uninformed: where no labels are answered, what who knows nothing would answer: what to call it, and from the
            teacher's answers and the number of the text of each row to answers; None where there is no such thing.
        states: from (texts, tokens, width) last hidden states and the model's inputs to states of which rows are taken
            as they are of what it says; None where the answers are such states already.
        bridge: where the columns of two models are not the same, fits a map that takes the student's to the teacher's,
            to rows of both.
        one_tokenizer: how models answer that read the same tokens, where they can then say more.
        packed: takes the columns of answers apart for a file.
        unpacked: puts them together again.
    """

    of: str
    encode: Callable[[Any, Sequence[Text], int], tuple[Mapping[str, Tensor], Rows]]
    says: Callable[[Any, Mapping[str, Tensor]], Tensor] = _logits
    teaches: Callable[[Any, Mapping[str, Tensor]], Tensor] | None = None
    learns: Callable[[Any, Mapping[str, Tensor]], Tensor] | None = None
    distance: Callable[[Tensor, float, bool, bool], Distance] = distance_of_answers
    has_head: bool = True
    in_bits: bool = False
    has_labels: bool = True
    uninformed: tuple[str, Callable[[Floats, Ints], Floats]] | None = None
    states: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = _of_tokens
    bridge: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] | None = None
    one_tokenizer: AnswerKind | None = None
    packed: Callable[[Tensor], dict[str, Tensor]] = halved
    unpacked: Callable[[Mapping[str, Tensor]], Tensor] = whole

    @property
    def learning(self) -> AnswerKind:
        """How a student answers while it learns."""
        return self if self.learns is None else replace(self, says=self.learns)

    def asked(self, model: Any, inputs: Mapping[str, Tensor], seen: Any = None) -> tuple[Tensor, Tensor | None]:
        """Run a model; give what it says and, of the same run, its last hidden states.

        Args:
            model: what is run.
            inputs: what it is to read.
            seen: the model of PEFT in it, whose states to give; None for none.
        """
        if seen is None or self.states is None:
            return self.says(model, inputs), None
        with last_states(seen) as held:
            said = self.says(model, inputs)
        return said, self.states(torch.cat(held), inputs)


_LIKELIHOODS = AnswerKind(
    "tokens",
    encode_tokens,
    log_likelihoods,
    distance=lambda *_: likelihood_distance,
    has_head=False,
    in_bits=True,
    has_labels=False,
)
_LIKELIEST = replace(
    _LIKELIHOODS,
    encode=encode_all_tokens,
    says=of_next,
    teaches=likeliest,
    learns=next_logits,
    distance=lambda _, temperature, *__: likeliest_distance(temperature),
    packed=packed,
    unpacked=unpacked,
)

ANSWERS: Mapping[str, AnswerKind] = {
    "TOKEN_CLS": AnswerKind("words", encode_words),
    "SEQ_CLS": AnswerKind("texts", encode_texts, states=mean_of_tokens),
    "QUESTION_ANS": AnswerKind(
        "words of contexts",
        encode_questions,
        span_logits,
        distance=span_distance,
        has_labels=False,
        uninformed=("the whole context", whole_texts),
        states=mean_of_words,
    ),
    "FEATURE_EXTRACTION": AnswerKind(
        "texts",
        encode_texts,
        pooled,
        distance=angle,
        has_head=False,
        has_labels=False,
        uninformed=("the teacher's mean vector", mean_vectors),
        states=None,
        bridge=Bridge.fitted,
    ),
    "CAUSAL_LM": replace(_LIKELIHOODS, one_tokenizer=_LIKELIEST),
}
"""PEFT's task type -> how its modules answer."""


def kind_of(task_type: str, one_tokenizer: bool = False) -> AnswerKind:
    """Say how modules of a task type answer, to students that read the same tokens or to any."""
    kind = ANSWERS[task_type]
    return (one_tokenizer and kind.one_tokenizer) or kind
