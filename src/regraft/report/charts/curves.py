"""Learning curves of a group, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ..comparison import best, whole_curve
from ..groups import BASELINE, Group, Place
from ..results import Point
from ..table import fixed, of_task, proper
from .scales import WIDTH, Frame, Panel, Tick, apart, scale

_BOTTOM = 204
_LABEL_GAP = 14
_LETTER = 6.8  # width of one, about


@dataclass(frozen=True)
class Mean:
    """A curve averaged over languages and seeds.

    Attributes:
        steps: training steps, [n].
        scores: mean at these steps, [n].
        deviation: sample standard deviation over seeds of the mean over languages, [n]; 0 where there is one seed.
    """

    steps: NDArray[np.float64]
    scores: NDArray[np.float64]
    deviation: NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The curve of a row.

    Attributes:
        row: its name.
        points: in pixels.
        band: outline of mean ± deviation, in pixels; empty where there is one seed.
        label: height of its label, moved so that labels do not touch.
    """

    row: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]]
    label: float


@dataclass(frozen=True)
class CurvePanel(Panel):
    """Curves of one group over training steps.

    Attributes:
        y: ticks of the score.
        lines: one per row.
        goal: height of the baseline's best score, where there is a baseline.
    """

    y: Sequence[Tick]
    lines: Sequence[Line]
    goal: float | None


def curve_panel(group: Group) -> CurvePanel | None:
    """Draw validation scores against steps, over the trainings that all students have; None where there are none."""
    by_row = {
        row: {place: curve for place, result in group.cells.get(row, {}).items() if (curve := whole_curve(result))}
        for row in (BASELINE, *group.transferred)
    }
    by_row = {row: curves for row, curves in by_row.items() if curves}
    shared = set.intersection(*map(set, by_row.values())) if by_row else set()
    if not shared:
        return None
    means = {row: _mean({place: curves[place] for place in shared}) for row, curves in by_row.items()}
    if not all(len(mean.steps) for mean in means.values()):  # one ends before another begins
        return None
    goal = fmean(best(by_row[BASELINE][place], group.measured) for place in shared) if BASELINE in by_row else None
    levels = np.concatenate([mean.scores + sign * mean.deviation for mean in means.values() for sign in (-1, 1)])
    frame = Frame(left=40, top=12, right=WIDTH - 20 - _LETTER * max(map(len, means)), bottom=_BOTTOM)
    y = scale([*levels.tolist(), *([] if goal is None else [goal])], frame.bottom, frame.top)
    x = scale([float(step) for mean in means.values() for step in mean.steps], frame.left, frame.right, margin=0)
    labels = apart([y(mean.scores[-1]) for mean in means.values()], _LABEL_GAP)
    lines = []
    for (row, mean), label in zip(means.items(), labels, strict=True):
        across = [x(step) for step in mean.steps]
        points, upper, lower = (
            list(zip(across, map(y, mean.scores + sign * mean.deviation), strict=True)) for sign in (0, 1, -1)
        )
        lines.append(Line(row, points, upper + lower[::-1] if mean.deviation.any() else [], label))
    ends = ", ".join(f"{row} {fixed(mean.scores[-1], group.measured.digits)}" for row, mean in means.items())
    baseline = "" if goal is None else f" The baseline's best: {fixed(goal, group.measured.digits)}."
    return CurvePanel(
        title=f"{of_task(group.task)} {proper(group.peft)}, {proper(group.metric)}",
        description=f"Validation scores at the end: {ends}.{baseline} Trainings per row: {len(shared)}.",
        frame=frame,
        x=x.ticks(6),
        y=y.ticks(5),
        lines=lines,
        goal=None if goal is None else y(goal),
    )


def _mean(curves: Mapping[Place, tuple[Point, ...]]) -> Mean:
    """Average curves at all the steps that any of them has, as far as all of them go."""
    first = max(curve[0].step for curve in curves.values())
    last = min(curve[-1].step for curve in curves.values())
    within = {point.step for curve in curves.values() for point in curve if first <= point.step <= last}
    steps = np.array(sorted(within), dtype=float)
    scores = {
        place: np.interp(steps, [point.step for point in curve], [point.score for point in curve])
        for place, curve in sorted(curves.items(), key=str)
    }
    seeds = [seed for _, seed in scores]
    full = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) == len({language for language, _ in scores})]
    by_seed = [np.mean([score for (_, seed), score in scores.items() if seed == one], axis=0) for one in full]
    deviation = np.std(by_seed, axis=0, ddof=1) if len(by_seed) > 1 else np.zeros(len(steps))
    return Mean(steps, np.mean(list(scores.values()), axis=0), deviation)
