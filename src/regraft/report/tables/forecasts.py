"""Could it be told before training? What was known of a start beside what it then gained."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

from ..groups import Group, Pair
from ..table import Table, columns, fixed, of_task, proper, texts

# With fewer points a rank correlation says nothing.
ENOUGH_POINTS = 8


def foretold(groups: Sequence[Group]) -> list[Table]:
    """Set gains beside what was known before training: how the two rank, and both per start.

    Returns:
        Two tables; none with fewer than `ENOUGH_POINTS` trainings whose start has an expectation.
    """
    starts = [(group, row, told) for group in groups for row in group.transferred if (told := _told(group.pairs(row)))]
    every = [one for _, _, told in starts for one in told]
    if len(every) < ENOUGH_POINTS:
        return []
    measures = [
        ("expectation", [(expected, pair.gain) for expected, pair in every]),
        (
            "score before training, over the random start's",
            [
                (pair.result.measured.gain(pair.result.before, pair.baseline.before), pair.gain)
                for _, pair in every
                if pair.result.before is not None and pair.baseline.before is not None
            ],
        ),
    ]
    ranked = Table(
        name="foretold",
        title="What foretells the gain",
        columns=columns("known before training", "trainings", "rank correlation with the gain"),
        labels=1,
        rows=[texts(name, str(len(pairs)), fixed(_ranks(pairs))) for name, pairs in measures],
        notes=[
            "Spearman's rank correlation, over all trainings whose start has an expectation, with the gain over the "
            "baseline of the same cell. 1: the more was expected the more was gained; 0: no relation. None with fewer "
            f"than {ENOUGH_POINTS} trainings or where nothing differs. Trainings from one port share its expectation, "
            "so they are fewer than they seem.",
        ],
    )
    per_start = Table(
        name="foretold-starts",
        title="Expectation and gain per start",
        columns=columns("setting", "task", "module", "start", "trainings", "expected", "before training", "gain"),
        labels=4,
        rows=[texts(*_row(*start)) for start in starts],
        notes=[
            "Expected: share of the variance of what the ported task head (without one: the module) reads that the "
            "student provides, on held-out texts. Means over the trainings."
        ],
    )
    return [ranked, per_start]


def _told(pairs: Sequence[Pair]) -> list[tuple[float, Pair]]:
    """Set what was expected of a start beside what came of it; the task head's share where there is one."""
    told = []
    for pair in pairs:
        expected = pair.result.expected
        share = None if expected is None else expected.module if expected.head is None else expected.head
        told += [] if share is None else [(share, pair)]
    return told


def _row(group: Group, row: str, told: Sequence[tuple[float, Pair]]) -> tuple[str, ...]:
    before = [pair.result.before for _, pair in told if pair.result.before is not None]
    return (
        group.setting,
        of_task(group.task),
        proper(group.peft),
        row,
        str(len(told)),
        fixed(fmean(expected for expected, _ in told)),
        fixed(fmean(before) if before else None, group.measured.digits),
        fixed(fmean(pair.gain for _, pair in told), group.measured.digits, signed=True),
    )


def _ranks(pairs: Sequence[tuple[float, float]]) -> float | None:
    differ = all(np.ptp(values) > 0 for values in zip(*pairs, strict=True))
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) >= ENOUGH_POINTS and differ else None
