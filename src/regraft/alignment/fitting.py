"""Fit a map for every pair of spaces, and say how well each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import SamplingError
from .maps import Assignment, Kind, Map
from .methods import Choice, Problem, method_named
from .moments import Moments
from .scores import r2

SpacePair = TypeVar("SpacePair")


@dataclass(frozen=True)
class Score(Generic[SpacePair]):
    """How well a pair of spaces was aligned.

    Attributes:
        space: the pair, as the caller calls it.
        d_s: width of the student's.
        d_t: width of the teacher's.
        matched: student dimensions with a counterpart, or any weight in a linear map.
        constant: student dimensions that never varied in the sample (their correlation counts as 0).
        assigned: mean Pearson's r over the assigned pairs, on the tokens the map was fitted on; None unsampled, and for
            linear maps, which assign nothing.
        held_out: the same on held-out tokens.
        kind: of the map.
        r2_read: share of the variance of the teacher's activations that the map predicts from the student's on held-out
            tokens; None unsampled.
        r2_write: share of the variance of the student's that it predicts from the teacher's; None where nothing is
            written too.
        method: that made the map; under ``auto`` the one that was chosen ...
        candidates: ... of these, each with its ``r2_read``.
    """

    space: SpacePair
    d_s: int
    d_t: int
    matched: int
    constant: int = 0
    assigned: float | None = None
    held_out: float | None = None
    kind: Kind = "one-to-one"
    r2_read: float | None = None
    r2_write: float | None = None
    method: str = ""
    candidates: Mapping[str, float] = field(default_factory=dict)


def fit_maps(problems: Mapping[SpacePair, Problem], name: str) -> tuple[dict[SpacePair, Map], list[Score[SpacePair]]]:
    """Fit a map for every pair of spaces.

    Args:
        problems: by whatever the caller calls the pairs.
        name: a key of `methods.METHODS`.

    Returns:
        The maps, and for each how well it fits.

    Raises:
        PlanError: an unknown method.
        SamplingError: moments are needed and missing, lack the covariances that are needed, or are of too few rows.
    """
    method = method_named(name)
    maps: dict[SpacePair, Map] = {}
    scores = []
    for space, problem in problems.items():
        if method.needs == "covariances" and problem.moments is not None and not problem.moments.full:
            raise SamplingError(
                f"alignment {name!r} needs covariances, and the moments of {problem.name} hold variances alone; "
                "sample again with covariances"
            )
        result = method.fit(problem)
        choice = result if isinstance(result, Choice) else Choice(name, result, {})
        maps[space] = choice.fitted
        scores.append(_score(space, choice, problem))
    return maps, scores


def _score(space: SpacePair, choice: Choice, problem: Problem) -> Score[SpacePair]:
    fitted = choice.fitted
    d_s, d_t = fitted.student_width, fitted.teacher_width
    matched = d_s - fitted.unmatched
    if problem.moments is None or problem.held_out is None:
        return Score(space, d_s, d_t, matched, kind=fitted.kind, method=choice.method)
    constant = int(problem.moments.constant_s.sum())
    assigned, held_out = (_mean_r(moments, fitted) for moments in (problem.moments, problem.held_out))
    read, write = r2(problem.held_out, fitted, problem.written)
    return Score(
        space, d_s, d_t, matched, constant, assigned, held_out, fitted.kind, read, write, choice.method, choice.shares
    )


def _mean_r(moments: Moments, fitted: Map) -> float | None:
    if moments.n < 2 or not isinstance(fitted, Assignment):
        return None
    rows = (fitted.index >= 0).nonzero().flatten()
    return float(moments.correlation()[rows, fitted.index[rows]].mean())
