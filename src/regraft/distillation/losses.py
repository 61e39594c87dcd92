"""How far a student is from its teacher, token by token: DistilBERT's three losses, and the match of hidden states.

Source: Sanh et al. 2019, DistilBERT (arXiv 1910.01108), and the distillation script that was released with it. Every
loss is a map of shape (texts, tokens); `mean_over` averages it over the tokens that count, so padding never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened student from the softened teacher, times the squared temperature.

    The factor keeps the gradients' size independent of the temperature (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        student: (texts, tokens, vocabulary) logits.
        teacher: logits of the same shape.
        temperature: what both are divided by.

    Returns:
        (texts, tokens), in nats.
    """
    predicted = F.log_softmax(student.float() / temperature, dim=-1)
    expected = F.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(predicted, expected, reduction="none", log_target=True).sum(-1)


def language_model(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the right tokens.

    Args:
        logits: (texts, tokens, vocabulary).
        labels: (texts, tokens), `IGNORED` where nothing is to be predicted; the loss is 0 there.

    Returns:
        (texts, tokens), in nats.
    """
    return F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of two (texts, tokens, width) hidden states; (texts, tokens), from 0 to 2."""
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)


def hidden_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of hidden states, over the layers and the width.

    Args:
        student: one (texts, tokens, width) hidden state per layer.
        teacher: those they are to match.

    Returns:
        (texts, tokens).
    """
    squares = [(mine.float() - its.float()).square().mean(-1) for mine, its in zip(student, teacher, strict=True)]
    return sum(squares[1:], squares[0]) / len(squares)


def mean_over(values: Tensor, tokens: Tensor) -> Tensor:
    """Average (texts, tokens) values over the tokens that count; 0 where none does (a batch without a masked token)."""
    return values.masked_fill(~tokens, 0).sum() / tokens.sum().clamp(min=1)


def distance_of_answers(
    answers: Tensor, temperature: float, hard: bool = False, certainty: bool = False
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give the loss that says how far a student's answers are from its teacher's.

    Args:
        answers: (rows, labels) logits, or (rows, 1) numbers: all that the teacher gave.
        temperature: what logits are divided by.
        hard: whether of logits only the largest counts.
        certainty: whether rows of logits count by how sure the teacher is of them.

    Returns:
        From rows of the student's and of the teacher's, and the texts that they are of, to (rows,): of logits their
        divergence or, where they are `hard`, the cross-entropy of the largest, by `certainty` times the probability of
        the largest in units of its mean; of numbers the squared difference in units of the teacher's variance.
    """
    if answers.shape[1] == 1:
        variance = float(answers.var())
        return lambda student, teacher, _: (student.float() - teacher).square().sum(-1) / variance
    usual = float(_certainty(answers).mean())

    def distance(student: Tensor, teacher: Tensor, _: Tensor) -> Tensor:
        if hard:
            rows = F.cross_entropy(student.float(), teacher.argmax(-1), reduction="none")
        else:
            rows = divergence(student, teacher, temperature)
        return rows * _certainty(teacher) / usual if certainty else rows

    return distance


def _certainty(logits: Tensor) -> Tensor:
    return logits.float().softmax(-1).amax(-1)
