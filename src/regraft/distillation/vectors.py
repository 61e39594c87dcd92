"""What a model makes of a text as one vector, and how those of two models are laid side by side.

Dimensions of two models mean different things, whatever their number, so a linear map takes the student's vectors to
the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..alignment.linear import reads_towards
from ..alignment.maps import Linear
from ..alignment.methods import METHODS, Problem
from ..alignment.moments import Moments
from ..errors import TaskError


def pooled(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Average the final hidden states of the tokens that are no padding, as sentence embeddings do.

    Source: Reimers & Gurevych 2019, Sentence-BERT, arXiv 1908.10084.

    Args:
        model: one without a task head.
        inputs: what it is to read, with ``attention_mask``, (texts, tokens).

    Returns:
        (texts, width).
    """
    return mean_of_tokens(model(**inputs).last_hidden_state, inputs)


def mean_of_tokens(states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Average (texts, tokens, width) states over the tokens that are no padding; (texts, width)."""
    read = inputs["attention_mask"][..., None].to(states.dtype)
    mean: Tensor = (states * read).sum(1) / read.sum(1).clamp(min=1)
    return mean


@dataclass(frozen=True)
class Bridge:
    """A linear map from the vectors of one model to those of another.

    Attributes:
        matrix: (d_t, d_s).
        offset: (d_t,).
    """

    matrix: Tensor
    offset: Tensor

    @staticmethod
    def fitted(student: Tensor, teacher: Tensor) -> Bridge:
        """Fit it by ridge regression, shrunk towards the identity where widths agree, else towards nothing.

        Args:
            student: (texts, d_s) vectors.
            teacher: (texts, d_t) vectors of the same texts.
        """
        moments = Moments.of(student.double(), teacher.double(), full=True)
        widths = teacher.shape[1], student.shape[1]
        same = widths[0] == widths[1]
        prior = torch.eye(*widths, dtype=torch.float64) if same else torch.zeros(widths, dtype=torch.float64)
        return Bridge(*reads_towards(moments, prior)[:2])

    @staticmethod
    def ported(moments: Moments) -> Bridge:
        """Fit it as a port fits what a task head reads: by the method ``ridge``.

        Args:
            moments: of the vectors of both models, with covariances.

        Raises:
            SamplingError: of fewer than two rows.
        """
        d_s, d_t = moments.cross.shape
        problem = Problem("last hidden states", d_s, d_t, moments, written=False, unit="rows")
        fitted = METHODS["ridge"].fit(problem)
        assert isinstance(fitted, Linear)
        return Bridge(fitted.reads, fitted.offset)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Take (texts, d_s) vectors to (texts, d_t)."""
        return F.linear(vectors, self.matrix.to(vectors), self.offset.to(vectors))


def by_halves(
    fitted: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]], student: Tensor, teacher: Tensor
) -> Tensor:
    """Take vectors of a student to a teacher's, those of every other text by a map that was fitted to the rest.

    Args:
        fitted: fits a map, as `Bridge.fitted` does.
        student: (texts, d_s) vectors.
        teacher: (texts, d_t) vectors of the same texts.

    Raises:
        TaskError: so few texts that maps fitted to half of them would say nothing.
    """
    fewest = 2 * student.shape[1]
    if len(student) < fewest:
        raise TaskError(
            f"found {len(student)} texts, expected at least {fewest}: a map of the student's vectors, "
            f"{student.shape[1]} wide, is fitted to half of them; give more texts"
        )
    taken = torch.empty_like(teacher)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        rest = slice(1 - half.start, None, 2)
        taken[half] = fitted(student[rest], teacher[rest])(student[half])
    return taken


def angle(*_: object) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give the loss of vectors: one minus the cosine of the student's and the teacher's, (texts,), from 0 to 2."""
    return lambda student, teacher, _: 1 - F.cosine_similarity(student.float(), teacher.float(), dim=1)
