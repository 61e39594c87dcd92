"""Learning curves of a group, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ..comparison import best, whole_curve
from ..groups import BASELINE, Group, Place, split_by
from ..results import Point
from ..table import fixed, of_task, proper
from .scales import WIDTH, Frame, Panel, Scale, Tick, apart, scale

TOP, BOTTOM, LEFT = 26, 218, 42
"""Of the part of a panel in which curves are drawn, in pixels; above it stands what the scores are."""
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

    @property
    def ends(self) -> list[float]:
        """The scores a deviation below and above: what an axis has to hold."""
        return [*(self.scores - self.deviation), *(self.scores + self.deviation)]

    def drawn(self, x: Scale, y: Scale) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Give its points, and the outline of mean ± deviation, empty where there is one seed; in pixels."""
        across = [x(step) for step in self.steps]
        points, upper, lower = (
            list(zip(across, map(y, self.scores + sign * self.deviation), strict=True)) for sign in (0, 1, -1)
        )
        return points, upper + lower[::-1] if self.deviation.any() else []


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
class ScorePanel(Panel):
    """Scores of one group over training steps.

    Attributes:
        y: ticks of the score.
        y_name: what it is, and its unit.
    """

    y: Sequence[Tick]
    y_name: str


@dataclass(frozen=True)
class CurvePanel(ScorePanel):
    """Curves of one group.

    Attributes:
        lines: one per row.
        goal: height of the baseline's best score, where there is a baseline.
    """

    lines: Sequence[Line]
    goal: float | None


@dataclass(frozen=True)
class _Curves:
    """What is to be drawn of one group.

    Attributes:
        group: whose.
        means: row -> its curve.
        goal: the baseline's best score, where there is a baseline.
        trainings: how many each curve is the mean of.
    """

    group: Group
    means: Mapping[str, Mean]
    goal: float | None
    trainings: int


def curve_panels(groups: Sequence[Group]) -> list[CurvePanel]:
    """Draw validation scores against steps, over the trainings that all students have; those of a task on one scale."""
    panels = []
    for of_one_task in split_by("task", groups):
        found = [curves for group in of_one_task if (curves := _curves(group))]
        means = [mean for curves in found for mean in curves.means.values()]
        steps, levels = ends_of(means, [curves.goal for curves in found])
        longest = max((len(row) for curves in found for row in curves.means), default=0)
        panels += [_drawn(curves, steps, levels, longest) for curves in found]
    return panels


def ends_of(means: Sequence[Mean], goals: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Give the steps and the scores that axes have to hold so that panels share them."""
    steps = [float(step) for mean in means for step in mean.steps]
    return steps, [*(level for mean in means for level in mean.ends), *(goal for goal in goals if goal is not None)]


def _curves(group: Group) -> _Curves | None:
    by_row = {
        row: {place: curve for place, result in group.cells.get(row, {}).items() if (curve := whole_curve(result))}
        for row in (BASELINE, *group.transferred)
    }
    by_row = {row: curves for row, curves in by_row.items() if curves}
    shared = set.intersection(*map(set, by_row.values())) if by_row else set()
    if not shared:
        return None
    means = {row: mean_curve({place: curves[place] for place in shared}) for row, curves in by_row.items()}
    if not all(len(mean.steps) for mean in means.values()):  # one ends before another begins
        return None
    goal = fmean(best(by_row[BASELINE][place], group.measured) for place in shared) if BASELINE in by_row else None
    return _Curves(group, means, goal, len(shared))


def _drawn(curves: _Curves, steps: Sequence[float], levels: Sequence[float], longest: int) -> CurvePanel:
    group, means, goal = curves.group, curves.means, curves.goal
    frame = Frame(LEFT, TOP, right=WIDTH - 20 - _LETTER * longest, bottom=BOTTOM)
    y = scale(levels, frame.bottom, frame.top)
    x = scale(steps, frame.left, frame.right, margin=0)
    labels = apart([y(mean.scores[-1]) for mean in means.values()], _LABEL_GAP)
    lines = [Line(row, *mean.drawn(x, y), label) for (row, mean), label in zip(means.items(), labels, strict=True)]
    ends = ", ".join(f"{row} {fixed(mean.scores[-1], group.measured.digits)}" for row, mean in means.items())
    baseline = "" if goal is None else f" The baseline's best: {fixed(goal, group.measured.digits)}."
    return CurvePanel(
        title=f"{of_task(group.task)} {proper(group.peft)}, {proper(group.metric)}",
        description=f"Validation scores at the end: {ends}.{baseline} Trainings per row: {curves.trainings}.",
        frame=frame,
        x=x.ticks(5),
        y=y.ticks(5),
        y_name=score_name(group),
        lines=lines,
        goal=None if goal is None else y(goal),
    )


def score_name(group: Group) -> str:
    """Name what the curves of a group are of."""
    unit = group.measured.unit
    return f"validation {proper(group.metric)}, {'percent' if unit == 'points' else unit}"


def mean_curve(curves: Mapping[Place, tuple[Point, ...]]) -> Mean:
    """Average curves at all the steps that any of them has, as far as all of them go."""
    first = max(curve[0].step for curve in curves.values())
    last = min(curve[-1].step for curve in curves.values())
    within = {point.step for curve in curves.values() for point in curve if first <= point.step <= last}
    steps = np.array(sorted(within), dtype=float)
    scores = {
        place: np.interp(steps, [point.step for point in curve], [point.score for point in curve])
        for place, curve in curves.items()
    }
    return averaged(steps, scores)


def averaged(steps: NDArray[np.float64], by_place: Mapping[Place, NDArray[np.float64]]) -> Mean:
    """Average scores over languages and seeds.

    Args:
        steps: where they are, [n].
        by_place: of each language and seed, [n].
    """
    scores = dict(sorted(by_place.items(), key=str))
    seeds = [seed for _, seed in scores]
    full = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) == len({language for language, _ in scores})]
    by_seed = [np.mean([score for (_, seed), score in scores.items() if seed == one], axis=0) for one in full]
    deviation = np.std(by_seed, axis=0, ddof=1) if len(by_seed) > 1 else np.zeros(len(steps))
    return Mean(steps, np.mean(list(scores.values()), axis=0), deviation)
