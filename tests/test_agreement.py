"""Answers of two modules, compared: known values, and seqeval, PyTorch and scipy as oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from seqeval.metrics import f1_score

from regraft.errors import TaskError
from regraft.tasks.agreement import agree, divergence

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
rng = np.random.default_rng(3)


def logits(answers: list[int], labels: int) -> np.ndarray:
    return 5 * np.eye(labels)[answers] + rng.normal(size=(len(answers), labels))


def test_spans_are_counted_as_seqeval_counts_them() -> None:
    sizes = rng.integers(3, 9, size=40)
    texts = np.repeat(np.arange(40), sizes)
    teacher, student = (rng.normal(size=(len(texts), len(BIO))) for _ in range(2))
    student[::2] = teacher[::2]
    found = agree("TOKEN_CLS", teacher, student, texts, BIO)
    its, mine = (
        [np.array(BIO)[each.argmax(1)[texts == text]].tolist() for text in range(40)] for each in (teacher, student)
    )
    assert found.metric == "span F1"
    assert found.percent == pytest.approx(100 * f1_score(its, mine))
    assert found.interval[0] < found.percent < found.interval[1]
    assert found.texts == 40


def test_a_span_does_not_go_on_into_the_next_text() -> None:
    teacher = logits([1, 2, 2, 0], 5)
    one = agree("TOKEN_CLS", teacher, logits([1, 2, 0, 0], 5), np.array([0, 0, 1, 1]), BIO)
    assert one.percent == pytest.approx(100 * 2 / 3)  # of the teacher's two spans the student finds one


def test_the_divergence_is_that_of_pytorch() -> None:
    teacher, student = rng.normal(size=(7, 3)), rng.normal(size=(7, 3))
    ours = divergence(teacher, student)
    theirs = torch.nn.functional.kl_div(
        torch.tensor(student).log_softmax(1), torch.tensor(teacher).log_softmax(1), reduction="none", log_target=True
    )
    np.testing.assert_allclose(ours, theirs.sum(1).numpy())
    assert agree("SEQ_CLS", teacher, student, np.arange(7)).divergence == pytest.approx(ours.mean())
    assert agree("SEQ_CLS", teacher, teacher, np.arange(7)).divergence == pytest.approx(0)


def test_texts_are_compared_by_their_label() -> None:
    found = agree("SEQ_CLS", logits([0, 1, 1, 0], 2), logits([0, 1, 0, 0], 2), np.arange(4), ("no", "yes"))
    assert (found.metric, found.percent, found.constant) == ("accuracy", 75.0, False)


def test_words_without_spans_are_compared_by_their_label() -> None:
    found = agree("TOKEN_CLS", logits([0, 1, 1], 2), logits([0, 1, 0], 2), np.array([0, 0, 1]), ("NOUN", "VERB"))
    assert (found.metric, found.percent, found.texts) == ("accuracy", pytest.approx(200 / 3), 2)


def test_a_teacher_with_one_answer_is_told() -> None:
    found = agree("TOKEN_CLS", logits([0, 0, 0], 5), logits([0, 0, 0], 5), np.zeros(3, dtype=np.int64), BIO)
    assert (found.constant, found.metric, found.percent) == (True, "accuracy", 100.0)


def test_numbers_are_compared_by_their_ranks() -> None:
    teacher = rng.normal(size=(50, 1))
    student = teacher + rng.normal(size=(50, 1))
    found = agree("SEQ_CLS", teacher, student, np.arange(50))
    assert found.metric == "rank correlation"
    assert found.percent == pytest.approx(100 * spearmanr(teacher[:, 0], student[:, 0]).statistic)
    assert found.interval[0] < found.percent < found.interval[1]
    assert agree("SEQ_CLS", np.ones((50, 1)), student, np.arange(50)).constant


def test_the_interval_covers_other_texts() -> None:
    """Of many samples of texts, about 95% give an interval with the rate that all texts have."""
    covered = 0
    for seed in range(200):
        dice = np.random.default_rng(seed)
        same = dice.random(100) < 0.7
        low, high = agree(
            "SEQ_CLS", np.eye(2)[np.zeros(100, int)], np.eye(2)[(~same).astype(int)], np.arange(100)
        ).interval
        covered += low <= 70 <= high
    assert 180 <= covered <= 199


def test_answers_of_other_shapes_are_refused() -> None:
    with pytest.raises(TaskError, match=r"\(3, 2\) of the student beside \(4, 2\) of the teacher"):
        agree("SEQ_CLS", np.zeros((4, 2)), np.zeros((3, 2)), np.arange(4))
    with pytest.raises(TaskError, match="no text"):
        agree("SEQ_CLS", np.zeros((0, 2)), np.zeros((0, 2)), np.arange(0))
