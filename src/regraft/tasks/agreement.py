"""How often a student gives the teacher's answer, on texts that nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import spearmanr
from seqeval.metrics.sequence_labeling import get_entities

from ..errors import TaskError

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

# Of the bootstrap that says how sure an agreement is.
_RESAMPLES = 1000
# What answers are compared by.
SPANS, LABELS, NUMBERS, CHUNKS = "span F1", "accuracy", "rank correlation", "likelihood overlap"
# The labels of spans, as conlleval knows them.
_OF_SPANS = ("B-", "I-", "E-", "S-")


@dataclass(frozen=True)
class Agreement:
    """How far a student's answers are the teacher's.

    Attributes:
        metric: ``"span F1"``, the teacher's spans standing for the right ones; ``"accuracy"``; of numbers
            ``"rank correlation"``; of language models ``"likelihood overlap"``: one minus the difference of the
            probabilities that both give a chunk of text.
        percent: its value.
        interval: 95% of the values that other texts of this kind would give.
        divergence: of the student's answers from the teacher's: mean Kullback-Leibler divergence in nats; of numbers
            the mean squared difference in units of the teacher's variance; of language models, that of a chunk being
            what it is.
        texts: how many there were.
        constant: whether the teacher gives one answer to all of them, so that agreeing with it says nothing.
    """

    metric: str
    percent: float
    interval: tuple[float, float]
    divergence: float
    texts: int
    constant: bool


def agree(task_type: str, teacher: Floats, student: Floats, text_of_row: Ints, labels: Sequence[str] = ()) -> Agreement:
    """Compare the answers of two modules.

    Args:
        task_type: ``"TOKEN_CLS"``, a row for each word, in order; ``"SEQ_CLS"``, a row for each text; or
            ``"CAUSAL_LM"``, a row for each chunk of a text that both models give a probability.
        teacher: (rows, labels) logits; (rows, 1) numbers where it was trained on numbers, and log-likelihoods of what
            is before the end of a chunk, in nats.
        student: the same of the student.
        text_of_row: (rows,) the number of the text that a row is of.
        labels: names of the columns; where they name spans (``"B-PER"``, ``"I-PER"``, ``"O"``), these are compared.

    Raises:
        TaskError: no answers, or answers of other shapes.
    """
    if teacher.shape != student.shape or len(teacher) != len(text_of_row):
        raise TaskError(
            f"found answers of {student.shape} of the student beside {teacher.shape} of the teacher, expected as many"
        )
    if not len(teacher):
        raise TaskError("found no text that both models answer, expected some hundred; give more texts")
    texts = np.unique(text_of_row, return_inverse=True)[1]
    count = int(texts.max()) + 1
    if task_type == "CAUSAL_LM":
        return _of_chunks(teacher[:, 0].astype(np.float64), student[:, 0].astype(np.float64), texts, count)
    if teacher.shape[1] == 1:
        return _of_numbers(teacher[:, 0].astype(np.float64), student[:, 0].astype(np.float64), count)
    mine, its = student.argmax(1), teacher.argmax(1)
    metric, counts = LABELS, _counted(texts, count, mine == its, np.ones(len(its)))
    if task_type == "TOKEN_CLS" and _names_spans(labels):
        spans = _span_counts(mine, its, texts, count, labels)
        if spans[:, 1].sum() > 0:
            metric, counts = SPANS, spans
    far = divergence(teacher, student).mean()
    return Agreement(metric, _percent(counts), _interval(counts), float(far), count, bool((its == its[0]).all()))


def divergence(teacher: Floats, student: Floats) -> Floats:
    """Kullback-Leibler divergence of the student's distribution from the teacher's, (rows,), in nats.

    Args:
        teacher: (rows, labels) logits.
        student: the same of the student.
    """
    its, mine = (log_softmax(logits.astype(np.float64), axis=1) for logits in (teacher, student))
    far: Floats = (np.exp(its) * (its - mine)).sum(1)
    return far


def _names_spans(labels: Sequence[str]) -> bool:
    return bool(labels) and all(label == "O" or label.startswith(_OF_SPANS) for label in labels)


def _span_counts(mine: Ints, its: Ints, texts: Ints, count: int, labels: Sequence[str]) -> Floats:
    """Count for each text twice the spans that both find, and all that either does: what F1 is made of, (texts, 2)."""
    names = np.array(labels)
    ends = np.flatnonzero(np.diff(texts, append=count)) + 1
    counts = np.zeros((count, 2))
    for text, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        found, right = ({*get_entities(names[answers[start:end]].tolist())} for answers in (mine, its))
        counts[text] = 2 * len(found & right), len(found) + len(right)
    return counts


def _counted(texts: Ints, count: int, *values: NDArray[np.generic]) -> Floats:
    """Sum over the rows of each text, (texts, values)."""
    return np.column_stack([np.bincount(texts, each, minlength=count) for each in values])


def _percent(counts: Floats) -> float:
    share, whole = counts.sum(0)
    return 100 * float(share / whole)


def _interval(counts: Floats) -> tuple[float, float]:
    """Draw the texts again and again (Efron's bootstrap, 1979), and give what 95% of the draws lie between."""
    drawn = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _RESAMPLES)
    share, whole = (drawn @ counts).T
    low, high = np.quantile(100 * share / np.maximum(whole, 1), (0.025, 0.975))
    return float(low), float(high)


def _of_chunks(teacher: Floats, student: Floats, texts: Ints, count: int) -> Agreement:
    """Compare probabilities of chunks, given the log-likelihoods up to their ends."""
    starts = np.append(True, np.diff(texts) != 0)
    its, mine = (
        np.minimum(totals - np.where(starts, 0, np.append(0, totals[:-1])), 0) for totals in (teacher, student)
    )
    same = 1 - np.abs(np.exp(its) - np.exp(mine))
    counts = _counted(texts, count, same, np.ones(len(its)))
    far = divergence(*(np.column_stack([one, np.log(-np.expm1(one - 1e-9))]) for one in (its, mine))).mean()
    return Agreement(CHUNKS, _percent(counts), _interval(counts), float(far), count, False)


def _of_numbers(teacher: Floats, student: Floats, count: int) -> Agreement:
    """Compare numbers by their ranks; the interval is Fieller, Hartley & Pearson's (1957), by Fisher's z."""
    spread = float(teacher.var())
    if spread == 0 or count < 4:
        return Agreement(NUMBERS, 0.0, (-100.0, 100.0), 0.0, count, spread == 0)
    rank = 0.0 if student.var() == 0 else float(spearmanr(teacher, student).statistic)
    z, error = np.arctanh(min(max(rank, -1 + 1e-12), 1 - 1e-12)), 1.96 * np.sqrt(1.06 / (count - 3))
    low, high = 100 * np.tanh((z - error, z + error))
    far = float(((student - teacher) ** 2).mean()) / spread
    return Agreement(NUMBERS, 100 * rank, (float(low), float(high)), far, count, False)
