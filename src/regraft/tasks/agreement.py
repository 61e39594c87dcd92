"""How often a student gives the teacher's answer, on texts that nobody labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
PLACES, COSINE = "answer F1", "cosine"
# The labels of spans, as conlleval knows them.
_OF_SPANS = ("B-", "I-", "E-", "S-")


@dataclass(frozen=True)
class Agreement:
    """How far a student's answers are the teacher's.

    Attributes:
        metric: ``"span F1"``, the teacher's spans standing for the right ones; ``"accuracy"``; of numbers
            ``"rank correlation"``; of language models ``"likelihood overlap"``: one minus the difference of the
            probabilities that both give a chunk of text; of answers to questions ``"answer F1"``: F1 of the words of
            the student's answer, the teacher's standing for the right one, averaged over texts; of vectors
            ``"cosine"``, averaged likewise.
        percent: its value.
        interval: 95% of the values that other texts of this kind would give.
        divergence: of the student's answers from the teacher's: mean Kullback-Leibler divergence in nats; of numbers
            the mean squared difference in units of the teacher's variance; of language models, that of a chunk being
            what it is; of answers to questions those of their start and of their end, added; of vectors one
            minus the cosine.
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
        task_type: ``"TOKEN_CLS"``, a row for each word, in order; ``"SEQ_CLS"``, a row for each text;
            ``"CAUSAL_LM"``, a row for each chunk of a text that both models give a probability; ``"QUESTION_ANS"``, a
            row for each word of a context, in order; or ``"FEATURE_EXTRACTION"``, a row for each text.
        teacher: (rows, labels) logits; (rows, 1) numbers where it was trained on numbers, and log-likelihoods of what
            is before the end of a chunk, in nats; (rows, 2) logits of a word being the start and the end of the answer;
            (rows, width) vectors.
        student: the same of the student, vectors mapped to the teacher's space.
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
    return _JUDGES[task_type].agree(teacher.astype(np.float64), student.astype(np.float64), texts, count, labels)


def one_answer(task_type: str, answers: Floats, text_of_row: Ints) -> bool:
    """Say whether a module gives one answer to everything; arguments as for `agree`, of a row or more."""
    said = _JUDGES[task_type].said(answers, text_of_row)
    return bool((said == said[0]).all())


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
    counts = np.zeros((count, 2))
    for text, rows in enumerate(_texts(texts)):
        found, right = ({*get_entities(names[answers[rows]].tolist())} for answers in (mine, its))
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


def _of_words(teacher: Floats, student: Floats, texts: Ints, count: int, labels: Sequence[str]) -> Agreement:
    """Compare spans, where the labels name any that either finds; else the labels of words."""
    found = _of_labels(teacher, student, texts, count, labels)
    if not _names_spans(labels) or teacher.shape[1] == 1:
        return found
    counts = _span_counts(student.argmax(1), teacher.argmax(1), texts, count, labels)
    if counts[:, 1].sum() == 0:
        return found
    return replace(found, metric=SPANS, percent=_percent(counts), interval=_interval(counts))


def _of_labels(teacher: Floats, student: Floats, texts: Ints, count: int, _: Sequence[str]) -> Agreement:
    """Compare labels, or numbers where there is one column."""
    if teacher.shape[1] == 1:
        return _of_numbers(teacher[:, 0], student[:, 0], count)
    mine, its = student.argmax(1), teacher.argmax(1)
    counts = _counted(texts, count, mine == its, np.ones(len(its)))
    far = float(divergence(teacher, student).mean())
    return Agreement(LABELS, _percent(counts), _interval(counts), far, count, bool((its == its[0]).all()))


def _said(answers: Floats, _: Ints) -> NDArray[np.generic]:
    return answers if answers.shape[1] == 1 else answers.argmax(1)


def _of_places(teacher: Floats, student: Floats, texts: Ints, count: int, _: Sequence[str]) -> Agreement:
    """Compare answers to questions by the words that they share, as SQuAD does (Rajpurkar et al. 2016, 1606.05250).

    A word is told by its place: the same words elsewhere are another answer.
    """
    its, mine = (best_spans(answers, texts) for answers in (teacher, student))
    shared = np.minimum(its[:, 1], mine[:, 1]) - np.maximum(its[:, 0], mine[:, 0]) + 1
    counts = np.column_stack([2 * shared.clip(min=0) / (np.diff(its) + np.diff(mine) + 2)[:, 0], np.ones(count)])
    # Of a text two distributions over its words.
    far = sum(divergence(teacher[rows].T, student[rows].T).sum() for rows in _texts(texts)) / count
    return Agreement(PLACES, _percent(counts), _interval(counts), float(far), count, bool((its == its[0]).all()))


def best_spans(answers: Floats, text_of_row: Ints) -> Ints:
    """Find the likeliest answers, of all that end where they begin or later (Devlin et al. 2019, arXiv 1810.04805).

    Args:
        answers: (rows, 2) logits of a word being the start and the end.
        text_of_row: (rows,) the number of its text, ascending.

    Returns:
        (texts, 2) the first row and the last, counted from the first of the text.
    """
    found = []
    for rows in _texts(text_of_row):
        starts, ends = answers[rows].T
        last = int((np.maximum.accumulate(starts) + ends).argmax())
        found.append((int(starts[: last + 1].argmax()), last))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def whole_texts(_: Floats, text_of_row: Ints) -> Floats:
    """Give the answers of who knows nothing: all words of a text, (rows, 2) as `best_spans` takes them."""
    answers = np.zeros((len(text_of_row), 2))
    for rows in _texts(text_of_row):
        answers[rows.start, 0] = answers[rows.stop - 1, 1] = 1
    return answers


def _of_vectors(teacher: Floats, student: Floats, _: Ints, count: int, __: Sequence[str]) -> Agreement:
    """Compare directions of vectors."""
    lengths = np.linalg.norm(teacher, axis=1) * np.linalg.norm(student, axis=1)
    cosines = (teacher * student).sum(1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    counts = np.column_stack([cosines, np.ones(count)])
    constant, far = bool((teacher == teacher[0]).all()), 1 - float(cosines.mean())
    return Agreement(COSINE, _percent(counts), _interval(counts), far, count, constant)


def mean_vectors(teacher: Floats, _: Ints) -> Floats:
    """Give the mean of a teacher's vectors as that of every text."""
    return np.tile(teacher.mean(0), (len(teacher), 1))


def _texts(text_of_row: Ints) -> Iterator[slice]:
    """List the rows of each text."""
    ends = np.flatnonzero(np.diff(text_of_row, append=-1)) + 1
    return (slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _of_chunks(teacher: Floats, student: Floats, texts: Ints, count: int, _: Sequence[str]) -> Agreement:
    """Compare probabilities of chunks, given the log-likelihoods up to their ends."""
    teacher, student = teacher[:, 0], student[:, 0]
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


@dataclass(frozen=True)
class _Judge:
    """How answers of a task type are compared.

    Attributes:
        agree: compares the teacher's with the student's; of the number of the text of each row, from 0, how many texts
            there are, and the names of the labels.
        said: gives what is answered, a row for each answer; of the answers and the number of the text of each row.
    """

    agree: Callable[[Floats, Floats, Ints, int, Sequence[str]], Agreement]
    said: Callable[[Floats, Ints], NDArray[np.generic]] = _said


_JUDGES: Mapping[str, _Judge] = {
    "TOKEN_CLS": _Judge(_of_words),
    "SEQ_CLS": _Judge(_of_labels),
    "CAUSAL_LM": _Judge(_of_chunks),
    "QUESTION_ANS": _Judge(_of_places, best_spans),
    "FEATURE_EXTRACTION": _Judge(_of_vectors, lambda vectors, _: vectors),
}
