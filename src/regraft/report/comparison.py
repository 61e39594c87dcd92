"""What a transferred start gains over the baseline, pair by pair, and whether chance could do the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test, ttest_1samp

from ..tasks.records import Metric
from .groups import TEACHER, Group, Pair
from .results import Point, Result

# With fewer pairs no outcome of a two-sided sign-flip test is significant at 5%: 2 / 2**5 = 0.06.
ENOUGH_PAIRS = 6
# Of two differences Student's interval is 13 times as wide as their standard error.
ENOUGH_FOR_INTERVAL = 3
_TIE = 1e-9  # scores are read from text and averaged


@dataclass(frozen=True)
class Comparison:
    """A transferred start against the random start, in one group.

    Attributes:
        group: where.
        row: the transferred start.
        pairs: how many pairs of the same language and seed there are.
        gain: mean difference over the pairs.
        by_language: the same per language.
        interval: 95% interval of the gain; None with fewer than `ENOUGH_FOR_INTERVAL` pairs.
        p: of a paired sign-flip test, two-sided; None with fewer than `ENOUGH_PAIRS` pairs.
        closed: share of the gap between teacher and baseline that is closed, on the pairs whose language the teacher
            has; None without any, or where the gap is so small that a share of it is a share of noise.
    """

    group: Group
    row: str
    pairs: int
    gain: float
    by_language: Mapping[str, float]
    interval: tuple[float, float] | None
    p: float | None
    closed: float | None

    @property
    def wins(self) -> int:
        """In how many languages the start is better, seeds averaged; a tie is no win."""
        return sum(gain > _TIE for gain in self.by_language.values())

    @property
    def ties(self) -> int:
        """In how many languages it is neither better nor worse."""
        return sum(abs(gain) <= _TIE for gain in self.by_language.values())


@dataclass(frozen=True)
class Progress:
    """How soon a transferred start is as good on the validation split as the baseline ever gets.

    Attributes:
        pairs: pairs of the same language and seed that have learning curves.
        reached: in how many of them the start reaches the baseline's best score.
        steps: after how many training steps, on average over those; None where there are none.
        baseline_steps: after how many the baseline was there, on average over the same.
    """

    pairs: int
    reached: int
    steps: float | None
    baseline_steps: float | None


@cache  # every table asks again
def sign_flip(differences: tuple[float, ...]) -> float:
    """Return the two-sided p of a paired permutation test on the mean.

    Under the null hypothesis each difference is as likely to have the other sign. Exact for up to 16 differences, a
    Monte Carlo estimate from a fixed seed (Phipson and Smyth 2010, so never 0) for more. Two at least.
    """

    def size(values: NDArray[np.float64], axis: int) -> Any:
        # Rounded, since scores are read from text: means that are the same but for rounding are ties.
        return np.abs(np.mean(values, axis)).round(9)

    test = permutation_test(
        (differences,), size, permutation_type="samples", n_resamples=2**16, alternative="greater", rng=0
    )
    return float(test.pvalue)


@cache
def interval(differences: tuple[float, ...], level: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval of the mean, which few differences widen; None for fewer than `ENOUGH_FOR_INTERVAL`."""
    if len(differences) < ENOUGH_FOR_INTERVAL:
        return None
    if np.ptp(differences) < _TIE:
        return differences[0], differences[0]
    low, high = ttest_1samp(differences, 0).confidence_interval(level)
    return float(low), float(high)


def compare(group: Group) -> list[Comparison]:
    """Compare each transferred start with the baseline, on the pairs that both have."""
    return [_comparison(group, row, pairs) for row in group.transferred if (pairs := group.pairs(row))]


def _comparison(group: Group, row: str, pairs: Sequence[Pair]) -> Comparison:
    gains = tuple(pair.gain for pair in pairs)
    by_language: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        by_language[pair.result.language].append(pair.gain)
    return Comparison(
        group=group,
        row=row,
        pairs=len(gains),
        gain=fmean(gains),
        by_language={language: fmean(here) for language, here in by_language.items()},
        interval=interval(gains),
        p=sign_flip(gains) if len(gains) >= ENOUGH_PAIRS else None,
        closed=_closed(group, pairs),
    )


def _closed(group: Group, pairs: Sequence[Pair]) -> float | None:
    with_teacher = [
        (pair.gain, group.measured.gain(teacher.mean, pair.baseline.score))
        for pair in pairs
        if (teacher := group.average(TEACHER, [(pair.result.language, pair.result.seed)]))
    ]
    if not with_teacher:
        return None
    gain, gap = (fmean(numbers) for numbers in zip(*with_teacher, strict=True))
    return gain / gap if gap >= group.measured.least_gap else None


def progress(group: Group, row: str) -> Progress:
    """Count training steps to the baseline's best validation score."""
    pairs = [(whole_curve(result), whole_curve(baseline)) for result, baseline in group.pairs(row)]
    pairs = [(curve, baseline) for curve, baseline in pairs if curve and baseline]
    goals = [best(baseline, group.measured) for _, baseline in pairs]
    steps = [
        tuple(_first(curve, goal, group.measured) for curve in both) for both, goal in zip(pairs, goals, strict=True)
    ]
    reached = [(own, others) for own, others in steps if own is not None and others is not None]
    return Progress(
        pairs=len(pairs),
        reached=len(reached),
        steps=fmean(own for own, _ in reached) if reached else None,
        baseline_steps=fmean(others for _, others in reached) if reached else None,
    )


def whole_curve(result: Result) -> tuple[Point, ...]:
    """Return a learning curve by step, with the score before training as step 0 where it is known."""
    points = {point.step: point.score for point in result.curve}
    if points and result.before is not None:
        points.setdefault(0, result.before)
    return tuple(Point(step, points[step]) for step in sorted(points))


def best(curve: Sequence[Point], measured: Metric) -> float:
    """Return the best score of a learning curve."""
    return max((point.score for point in curve), key=lambda score: measured.gain(score, 0))


def _first(curve: Sequence[Point], score: float, measured: Metric) -> int | None:
    return next((point.step for point in curve if measured.gain(point.score, score) >= 0), None)
