"""Could it be told before training? What was known of a start beside what it then gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

from ..groups import Group
from ..table import Column, Table, fixed, of_peft, of_task, texts

# With fewer points a rank correlation says nothing.
ENOUGH_POINTS = 8


@dataclass(frozen=True)
class _Point:
    """One training from a transferred start.

    Attributes:
        expected: of the start.
        before: its validation score before any training, in percent; None unknown.
        ahead: the same over the baseline's, in points, so that tasks compare; None unknown.
        gain: over the baseline of the same language and seed, in points.
    """

    expected: float
    before: float | None
    ahead: float | None
    gain: float


def foretold(groups: Sequence[Group]) -> list[Table]:
    """Set gains beside what was known before training: how the two rank, and both per start.

    Returns:
        Two tables; none with fewer than `ENOUGH_POINTS` trainings whose start has an expectation.
    """
    starts = [(group, row, points) for group in groups for row in group.transferred if (points := _points(group, row))]
    every = [point for _, _, points in starts for point in points]
    if len(every) < ENOUGH_POINTS:
        return []
    scored = [(point.ahead, point.gain) for point in every if point.ahead is not None]
    known = [
        ("expectation", [(point.expected, point.gain) for point in every]),
        ("score before training, over the random start's", scored),
    ]
    ranked = Table(
        name="foretold",
        title="What foretells the gain",
        columns=[Column(head) for head in ("known before training", "trainings", "rank correlation with the gain")],
        labels=1,
        rows=[texts(name, str(len(pairs)), fixed(_ranks(pairs))) for name, pairs in known],
        notes=[
            "Spearman's rank correlation, over all trainings whose start has an expectation, with the gain over the "
            "baseline of the same cell. 1: the more was expected the more was gained; 0: no relation. None with fewer "
            f"than {ENOUGH_POINTS} trainings or where nothing differs. Trainings from one port share its expectation, "
            "so they are fewer than they seem.",
        ],
    )
    heads = ("setting", "task", "module", "start", "trainings", "expected", "before training", "gain")
    per_start = Table(
        name="foretold-starts",
        title="Expectation and gain per start",
        columns=[Column(head) for head in heads],
        labels=4,
        rows=[texts(*_row(*start)) for start in starts],
        notes=[
            "Expected: share of the variance of what the ported task head (without one: the module) reads that the "
            "student provides, on held-out texts. Means over the trainings."
        ],
    )
    return [ranked, per_start]


def _points(group: Group, row: str) -> list[_Point]:
    return [
        _Point(expected, result.before, _over(result.before, baseline.before), result.score - baseline.score)
        for result, baseline in group.pairs(row)
        if result.expected is not None and (expected := result.expected.decisive) is not None
    ]


def _over(own: float | None, others: float | None) -> float | None:
    return None if own is None or others is None else own - others


def _row(group: Group, row: str, points: Sequence[_Point]) -> tuple[str, ...]:
    before = [point.before for point in points if point.before is not None]
    return (
        group.setting,
        of_task(group.task),
        of_peft(group.peft),
        row,
        str(len(points)),
        fixed(fmean(point.expected for point in points)),
        fixed(fmean(before) if before else None),
        fixed(fmean(point.gain for point in points), signed=True),
    )


def _ranks(pairs: Sequence[tuple[float, float]]) -> float | None:
    differ = all(np.ptp(values) > 0 for values in zip(*pairs, strict=True))
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) >= ENOUGH_POINTS and differ else None
